use proptest::prelude::*;

use super::*;
use crate::damage::damaged;
use crate::position::{Chain, Epoch, EpochId};

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
    let mut found = Vec::new();
    shape.scan(conn, None, None, |_, row| found.push(row.to_vec())).unwrap();
    found
}

/// Makes `local` equal to `remote` the way a replica does: only rows of differing ranges are looked at.
fn merge(local: &Connection, remote: &Connection, shape: &Shape) -> (usize, usize) {
    let (mine, theirs) = (shape.ranges(local).unwrap(), shape.ranges(remote).unwrap());
    let (mut delete, mut insert) = (Vec::new(), Vec::new());
    for at in theirs.differing(&mine) {
        let (start, end) = (theirs.start(at), theirs.ranges[at].end.as_ref());
        let (mut here, mut there) = (Vec::new(), Vec::new());
        shape.scan(local, start, end, |key, row| here.push((row_hash(row), key.to_vec()))).unwrap();
        shape.scan(remote, start, end, |_, row| there.push((row_hash(row), row.to_vec()))).unwrap();
        delete.extend(
            here.iter().filter(|(hash, _)| !there.iter().any(|(other, _)| other == hash)).map(|(_, key)| key.clone()),
        );
        insert.extend(
            there.iter().filter(|(hash, _)| !here.iter().any(|(other, _)| other == hash)).map(|(_, row)| row.clone()),
        );
    }
    delete.iter().for_each(|key| assert_eq!(shape.delete(local, key).unwrap(), 1));
    insert.iter().for_each(|row| shape.insert(local, row).unwrap());
    (delete.len(), insert.len())
}

#[test]
fn ranges_tile_the_table_and_hold_about_a_thousand_rows() {
    let (conn, shape) = table(20_000);
    let found = shape.ranges(&conn).unwrap();
    assert_eq!(found.rows, 20_000);
    assert_eq!(found.ranges.iter().map(|range| range.rows).sum::<u64>(), 20_000);
    assert!((8..60).contains(&found.ranges.len()), "{} ranges", found.ranges.len());
    let mut pieces = Vec::new();
    for (at, range) in found.ranges.iter().enumerate() {
        shape.scan(&conn, found.start(at), range.end.as_ref(), |_, row| pieces.push(row.to_vec())).unwrap();
    }
    assert_eq!(pieces, rows(&shape, &conn));
}

#[test]
fn an_empty_table_is_one_empty_range() {
    let (conn, shape) = table(0);
    let found = shape.ranges(&conn).unwrap();
    assert_eq!((found.rows, found.ranges.len(), found.ranges[0].end.clone()), (0, 1, None));
    assert!(found.differing(&found).is_empty());
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
        let differing = shape.ranges(&there).unwrap().differing(&shape.ranges(&here).unwrap());
        assert!((1..=2).contains(&differing.len()), "{change}: {differing:?}");
        let (deleted, inserted) = merge(&here, &there, &shape);
        assert!(deleted + inserted <= 2, "{change}: {deleted} deleted, {inserted} inserted");
        assert_eq!(rows(&shape, &here), rows(&shape, &there));
    }
}

#[test]
fn every_flipped_bit_of_hashes_and_ranges_is_detected() {
    let (conn, shape) = table(2_000);
    let found = shape.ranges(&conn).unwrap();
    found.verify(&found.hash.clone()).unwrap();
    let mut hashes = Vec::new();
    shape.scan(&conn, found.start(0), found.ranges[0].end.as_ref(), |_, row| hashes.extend(row_hash(row))).unwrap();
    found.ranges[0].row_hashes(&hashes).unwrap();
    for bit in 0..hashes.len().min(200) * 8 {
        hashes[bit / 8] ^= 1 << (bit % 8);
        assert!(found.ranges[0].row_hashes(&hashes).is_err(), "bit {bit}");
        hashes[bit / 8] ^= 1 << (bit % 8);
    }
    for length in 0..hashes.len().min(100) {
        assert!(found.ranges[0].row_hashes(&hashes[..length]).is_err(), "cut at {length}");
    }
    for at in 0..found.ranges.len() {
        let mut changed = found.clone();
        changed.ranges[at].hash.0[7] ^= 1;
        assert!(changed.verify(&found.hash).is_err());
        let mut changed = found.clone();
        changed.ranges.remove(at);
        assert!(changed.verify(&found.hash).is_err());
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_of_ranges_is_detected_or_means_the_same() {
    let (conn, shape) = table(1_200);
    let found = shape.ranges(&conn).unwrap();
    assert!(found.ranges.len() > 1, "a range that ends, and the last");
    for (what, json) in damaged(&serde_json::to_vec(&found).unwrap()) {
        // A flip may make a hex digit a capital one.
        let read = serde_json::from_slice::<TableRanges>(&json).ok().filter(|read| read.verify(&found.hash).is_ok());
        assert!(read.is_none_or(|read| read == found), "{what}");
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_of_an_overview_is_detected_or_means_the_same() {
    let (conn, shape) = table(3);
    let ranges = shape.ranges(&conn).unwrap();
    let objects = crate::schema::objects(&conn).unwrap();
    let epoch = Epoch { generation: 1, id: EpochId([2; 8]) };
    let overview = Overview {
        database_id: DatabaseId([1; 16]),
        position: Position { epoch, version: 3, chain: Chain([4; 32]) },
        schema_version: 5,
        schema_hash: crate::schema::hash_objects(&objects),
        committed_ms: 1_700_000_000_000,
        objects,
        tables: vec![TableDigest { name: "t".into(), rows: 3, hash: ranges.hash }],
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
    let found = Shape::read(&conn, "t").unwrap().ranges(&conn).unwrap();
    assert!(found.ranges.iter().all(|range| range.rows <= 2), "{found:?}");
}

#[test]
fn values_that_sqlite_calls_equal_are_told_apart() {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").unwrap();
    let shape = Shape::read(&conn, "t").unwrap();
    let mut hashes = std::collections::HashSet::new();
    for value in ["1", "1.0", "'1'", "x'31'", "NULL", "''", "x''", "'A'", "'a'", "0.0", "-0.0"] {
        conn.execute_batch(&format!("INSERT OR REPLACE INTO t VALUES (1, {value})")).unwrap();
        hashes.insert(shape.ranges(&conn).unwrap().hash);
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
        prop_assert_eq!(shape.ranges(&here).unwrap(), shape.ranges(&there).unwrap());
    }

    #[test]
    fn bytes_that_are_no_row_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let (_conn, shape) = table(0);
        let _ = shape.named(&bytes);
        let _ = shape.key_of(&bytes);
    }
}
