use proptest::prelude::*;
use rusqlite::Connection;

use super::*;
use crate::damage::damaged;
use crate::position::{Chain, DatabaseId, Epoch, EpochId, Position};

const TABLE: &str = "CREATE TABLE t (a TEXT, k TEXT NOT NULL, n INTEGER NOT NULL, g AS (a || 'x'), PRIMARY KEY (n, k))";

fn table(rows: u32) -> (Connection, Shape) {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(TABLE).unwrap();
    let insert = "WITH RECURSIVE s(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM s LIMIT ?1)
        INSERT INTO t (a, k, n) SELECT 'value ' || v, 'key ' || v, v / 3 FROM s";
    if rows > 0 {
        conn.execute(insert, [rows]).unwrap();
    }
    let shape = Shape::read(&conn, "t").unwrap();
    (conn, shape)
}

fn rows(shape: &Shape, conn: &Connection) -> Vec<Vec<u8>> {
    rows_between(shape, conn, None, None).into_iter().map(|(_, row)| row).collect()
}

fn rows_between(shape: &Shape, conn: &Connection, start: Option<&Hex>, end: Option<&Hex>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let visit = |key: &[u8], row: &[u8]| {
        found.push((key.to_vec(), row.to_vec()));
        Ok(true)
    };
    shape.scan(conn, start, end, visit).unwrap();
    found
}

/// The ranges of both tables, as `there` and `here`.
fn listed(here: &Connection, there: &Connection, shape: &Shape) -> RangeList {
    let folder = tempfile::tempdir().unwrap();
    let list = RangeList::create(&folder.path().join("ranges")).unwrap();
    list.cut("here", shape, here, true).unwrap();
    list.cut("there", shape, there, true).unwrap();
    list
}

/// All ranges of a table, and its digest.
fn ranges(shape: &Shape, conn: &Connection) -> (Vec<Listed>, TableDigest) {
    let (mut found, mut start) = (Vec::new(), None);
    let digest = shape.cut(conn, |range, hashes| {
        range.row_hashes(hashes).unwrap();
        found.push(Listed { at: found.len(), start: start.take(), range: range.clone() });
        start.clone_from(&range.end);
        Ok(())
    });
    (found, digest.unwrap())
}

/// Makes `local` equal to `remote` the way a replica does: only rows of differing ranges are looked at.
fn merge(local: &Connection, remote: &Connection, shape: &Shape) -> (usize, usize) {
    let list = listed(local, remote, shape);
    let (mut delete, mut insert) = (Vec::new(), Vec::new());
    for Listed { start, range, .. } in list.differing("there", "here", 0, usize::MAX).unwrap() {
        let read = |conn| rows_between(shape, conn, start.as_ref(), range.end.as_ref());
        let (here, there) = (read(local), read(remote));
        delete.extend(here.iter().filter(|row| !there.contains(row)).map(|(key, _)| key.clone()));
        insert.extend(there.iter().filter(|row| !here.contains(row)).map(|(_, row)| row.clone()));
    }
    delete.iter().for_each(|key| assert_eq!(shape.delete(local, key).unwrap(), 1));
    insert.iter().for_each(|row| shape.insert(local, row).unwrap());
    (delete.len(), insert.len())
}

#[test]
fn ranges_tile_the_table_and_hold_about_a_thousand_rows() {
    let (conn, shape) = table(20_000);
    let (found, digest) = ranges(&shape, &conn);
    assert_eq!(digest.rows, 20_000);
    assert_eq!(found.iter().map(|listed| listed.range.rows).sum::<u64>(), 20_000);
    assert!((8..60).contains(&found.len()), "{} ranges", found.len());
    let mut pieces = Vec::new();
    for Listed { start, range, .. } in &found {
        let (start, end) = (start.as_ref(), range.end.as_ref());
        assert_eq!(shape.count(&conn, start, end).unwrap(), range.rows);
        pieces.extend(rows_between(&shape, &conn, start, end).into_iter().map(|(_, row)| row));
    }
    assert_eq!(pieces, rows(&shape, &conn));
}

#[test]
fn an_empty_table_is_one_empty_range() {
    let (conn, shape) = table(0);
    let (found, digest) = ranges(&shape, &conn);
    assert_eq!((digest.rows, found.len(), found[0].range.end.clone()), (0, 1, None));
    assert_eq!(listed(&conn, &conn, &shape).count_differing("there", "here").unwrap(), 0);
}

#[test]
fn one_changed_row_makes_one_or_two_ranges_differ() {
    for change in [
        "UPDATE t SET a = 'other' WHERE k = 'key 5000'",
        "DELETE FROM t WHERE k = 'key 5000'",
        "INSERT INTO t (a, k, n) VALUES ('x', 'y', 4000)",
    ] {
        let ((here, shape), (there, _)) = (table(20_000), table(20_000));
        there.execute_batch(change).unwrap();
        let differing = listed(&here, &there, &shape).count_differing("there", "here").unwrap();
        assert!((1..=2).contains(&differing), "{change}: {differing}");
        let (deleted, inserted) = merge(&here, &there, &shape);
        assert!(deleted + inserted <= 2, "{change}: {deleted} deleted, {inserted} inserted");
        assert_eq!(rows(&shape, &here), rows(&shape, &there));
    }
}

#[test]
fn every_flipped_bit_of_hashes_and_ranges_is_detected() {
    let (conn, shape) = table(2_000);
    let (found, digest) = ranges(&shape, &conn);
    let first = &found[0].range;
    let mut hashes = Vec::new();
    rows_between(&shape, &conn, None, first.end.as_ref()).iter().for_each(|(_, row)| hashes.extend(row_hash(row)));
    first.row_hashes(&hashes).unwrap();
    for bit in 0..hashes.len().min(200) * 8 {
        hashes[bit / 8] ^= 1 << (bit % 8);
        assert!(first.row_hashes(&hashes).is_err(), "bit {bit}");
        hashes[bit / 8] ^= 1 << (bit % 8);
    }
    for length in 0..hashes.len().min(100) {
        assert!(first.row_hashes(&hashes[..length]).is_err(), "cut at {length}");
    }
    let sealed = |ranges: &[Listed]| {
        let mut hasher = RangesHasher::default();
        ranges.iter().for_each(|listed| hasher.add(&listed.range));
        hasher.finish("t")
    };
    assert_eq!(sealed(&found), digest);
    for at in 0..found.len() {
        let mut changed = found.clone();
        changed[at].range.hash.0[7] ^= 1;
        assert_ne!(sealed(&changed), digest);
        changed.remove(at);
        assert_ne!(sealed(&changed), digest);
    }
}

#[test]
fn a_list_hands_out_pages_ranges_and_hashes_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (conn, shape) = table(20_000);
    let list = RangeList::create(&folder.path().join("ranges")).unwrap();
    let digest = list.cut("t", &shape, &conn, true).unwrap();
    let (found, same) = ranges(&shape, &conn);
    assert_eq!(digest, same);
    assert_eq!(list.count("t").unwrap(), found.len());
    assert_eq!(list.page("t", 2).unwrap().ranges[0], found[2].range);
    assert!(list.page("t", found.len()).unwrap().ranges.is_empty());
    for listed in &found {
        assert_eq!(list.get("t", listed.at).unwrap().as_ref(), Some(listed));
        let hashes = list.hashes("t", listed.at).unwrap().unwrap();
        listed.range.row_hashes(&hashes).unwrap();
        assert_eq!(list.hashes_between("t", listed).unwrap(), Some(hashes));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn rows_are_found_by_their_places() {
    let (conn, shape) = table(3_000);
    let (found, _) = ranges(&shape, &conn);
    for Listed { start, range, .. } in &found {
        let (start, end) = (start.as_ref(), range.end.as_ref());
        let all = rows_between(&shape, &conn, start, end);
        let places: Vec<usize> = (0..all.len()).filter(|place| place % 7 == 3 || place % 7 == 4).collect();
        let keys = shape.keys_at(&conn, start, end, &places).unwrap();
        assert_eq!(keys, places.iter().map(|&place| all[place].0.clone()).collect::<Vec<_>>());
        for (key, place) in keys.iter().zip(places) {
            let mut row = Vec::new();
            assert!(shape.row(&conn, key, &mut row).unwrap());
            assert_eq!(row, all[place].1);
        }
        assert!(shape.keys_at(&conn, start, end, &[all.len()]).unwrap().is_empty());
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_of_ranges_changes_the_digest_or_means_the_same() {
    let (conn, shape) = table(1_200);
    let (found, digest) = ranges(&shape, &conn);
    assert!(found.len() > 1, "a range that ends, and the last");
    let page = RangesPage { ranges: found.into_iter().map(|listed| listed.range).collect() };
    for (what, json) in damaged(&serde_json::to_vec(&page).unwrap()) {
        // A flip may make a hex digit a capital one.
        let Ok(read) = serde_json::from_slice::<RangesPage>(&json) else { continue };
        let mut hasher = RangesHasher::default();
        read.ranges.iter().for_each(|range| hasher.add(range));
        assert!(read == page || hasher.finish("t") != digest, "{what}");
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_of_an_overview_is_detected_or_means_the_same() {
    let (conn, shape) = table(3);
    let (_, digest) = ranges(&shape, &conn);
    let objects = crate::schema::objects(&conn).unwrap();
    let epoch = Epoch { generation: 1, id: EpochId([2; 8]) };
    let overview = Overview {
        database_id: DatabaseId([1; 16]),
        position: Position { epoch, version: 3, chain: Chain([4; 32]) },
        schema_version: 5,
        schema_hash: crate::schema::hash_objects(&objects),
        committed_ms: 1_700_000_000_000,
        objects,
        tables: vec![digest],
        digest: Hex(Vec::new()),
    }
    .sealed();
    for (what, json) in damaged(&serde_json::to_vec(&overview).unwrap()) {
        let read = serde_json::from_slice::<Overview>(&json).ok().filter(|read| read.verify().is_ok());
        assert!(read.is_none_or(|read| read == overview), "{what}");
    }
}

#[test]
fn huge_rows_are_cut_by_their_bytes() {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("CREATE TABLE t (k INTEGER PRIMARY KEY, b BLOB)").unwrap();
    for key in 0..8 {
        conn.execute("INSERT INTO t VALUES (?1, zeroblob(700000))", [key]).unwrap();
    }
    let (found, _) = ranges(&Shape::read(&conn, "t").unwrap(), &conn);
    assert!(found.iter().all(|listed| listed.range.rows <= 2), "{found:?}");
}

#[test]
fn values_that_sqlite_calls_equal_are_told_apart() {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").unwrap();
    let shape = Shape::read(&conn, "t").unwrap();
    let mut hashes = std::collections::HashSet::new();
    for value in ["1", "1.0", "'1'", "x'31'", "NULL", "''", "x''", "'A'", "'a'", "0.0", "-0.0"] {
        conn.execute_batch(&format!("INSERT OR REPLACE INTO t VALUES (1, {value})")).unwrap();
        hashes.insert(ranges(&shape, &conn).1.hash.0);
    }
    assert_eq!(hashes.len(), 10, "only -0.0 and 0.0 are the same, as they are to a session");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merging_makes_any_two_tables_equal(
        changes in prop::collection::vec((0..3u8, 0..4000i64, any::<String>()), 0..60),
        both in 0..4000u32,
    ) {
        let ((here, shape), (there, _)) = (table(both), table(both));
        for (kind, number, text) in changes {
            let (key, text) = (format!("key {number}"), text.replace('\0', ""));
            let done = match kind {
                0 => there.execute("INSERT OR REPLACE INTO t (a, k, n) VALUES (?1, ?2, ?3)", (text, key, number / 3)),
                1 => there.execute("DELETE FROM t WHERE k = ?1", [key]),
                _ => here.execute("UPDATE t SET a = ?1 WHERE k = ?2", (text, key)),
            };
            done.unwrap();
        }
        merge(&here, &there, &shape);
        prop_assert_eq!(rows(&shape, &here), rows(&shape, &there));
        prop_assert_eq!(ranges(&shape, &here), ranges(&shape, &there));
    }

    #[test]
    fn bytes_that_are_no_row_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let (_conn, shape) = table(0);
        let _ = shape.named(&bytes);
        let _ = shape.key_of(&bytes);
    }
}
