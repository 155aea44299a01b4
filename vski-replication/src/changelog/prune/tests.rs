use proptest::prelude::*;

use super::*;
use crate::changelog::{Head, Standing, append, create, read_after, schema_version, standing};
use crate::entry::{Kind, SchemaChange, schema_payload};
use crate::position::DatabaseId;
use crate::schema::{self, Object};

/// A log whose entries are schema changes where `kinds` says so, one second apart, and what every version was like.
struct History {
    conn: Connection,
    heads: Vec<Head>,
    schemas: Vec<Vec<Object>>,
    sizes: Vec<u64>,
}

fn history(kinds: &[bool]) -> History {
    let conn = Connection::open_in_memory().unwrap();
    let head = create(&conn, DatabaseId([1; 16])).unwrap();
    let mut history = History { conn, heads: vec![head], schemas: vec![Vec::new()], sizes: vec![0] };
    kinds.iter().for_each(|schema| history.add(*schema));
    history
}

impl History {
    fn add(&mut self, schema_change: bool) {
        let (head, n) = (self.head(), self.heads.len());
        let entry = if schema_change {
            let statement = format!("CREATE TABLE t{n} (id INTEGER PRIMARY KEY)");
            self.conn.execute_batch(&statement).unwrap();
            let objects = schema::objects(&self.conn).unwrap();
            let (after, statements) = (schema::hash_objects(&objects), vec![statement]);
            let change = SchemaChange { before: head.schema_hash, statements, objects };
            head.next(Kind::Schema, head.position.epoch, after, schema_payload(&change, &[]))
        } else {
            head.next(Kind::Changes, head.position.epoch, head.schema_hash, vec![0; 10 * n])
        };
        let entry = crate::entry::Entry { committed_ms: n as i64 * 1_000, ..entry };
        let entry = crate::entry::Entry { chain: crate::chain::next(head.position.chain, &entry), ..entry };
        append(&self.conn, &entry).unwrap();
        self.heads.push(Head::after(&entry));
        self.schemas.push(schema::objects(&self.conn).unwrap());
        self.sizes.push(entry.payload.len() as u64);
    }

    fn head(&self) -> Head {
        *self.heads.last().unwrap()
    }

    /// Everything that must hold of a log that was cut anyhow.
    fn check(&self, size: &mut LogSize) {
        let (conn, last) = (&self.conn, self.heads.len() - 1);
        assert_eq!(head(conn).unwrap(), self.head());
        let from = base(conn).unwrap();
        let at = from.position.version as usize;
        assert_eq!(from, self.heads[at]);
        let kept: Vec<_> = read_after(conn, from.position.version, usize::MAX).unwrap();
        assert_eq!(kept.iter().map(Head::after).collect::<Vec<_>>(), self.heads[at + 1..]);
        assert!(last == 0 || !kept.is_empty(), "the head is gone");
        for (version, known) in self.heads.iter().enumerate() {
            let expected = match version {
                _ if version < at => Standing::BelowBase { base: from.position },
                _ if version == last => Standing::AtHead,
                _ => Standing::Behind,
            };
            assert_eq!(standing(conn, known.position).unwrap(), expected, "version {version}");
            let told = schema_at(conn, version as u64).unwrap();
            assert_eq!(told.as_ref(), (version >= at).then_some(&self.schemas[version]), "schema at {version}");
        }
        let schemas = self.heads.windows(2).filter(|pair| pair[0].schema_hash != pair[1].schema_hash).count();
        assert_eq!(schema_version(conn).unwrap(), schemas as u64);
        assert_eq!(size.refresh(conn).unwrap(), self.sizes[at + 1..].iter().sum::<u64>());
    }
}

fn by_age(before_ms: i64) -> Cut {
    Cut { before_ms, excess_bytes: 0, up_to: u64::MAX }
}

fn by_size(excess_bytes: u64) -> Cut {
    Cut { before_ms: i64::MIN, excess_bytes, up_to: u64::MAX }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_cut_anyhow_still_tells_everything_from_its_base_on(
        kinds in prop::collection::vec(prop::bool::weighted(0.3), 0..30),
        cuts in prop::collection::vec((0_i64..35_000, 0_u64..3_000, 0_u64..35, any::<bool>()), 1..6),
    ) {
        let mut history = history(&kinds);
        let mut size = LogSize::default();
        for (before_ms, excess_bytes, up_to, grow) in cuts {
            prune(&history.conn, Cut { before_ms, excess_bytes, up_to }).unwrap();
            prop_assert!(base(&history.conn).unwrap().position.version <= up_to.max(kinds.len() as u64 + 6));
            history.check(&mut size);
            history.add(grow);
            history.check(&mut size);
        }
    }
}

#[test]
fn entries_go_by_age_by_size_and_not_beyond_what_is_still_needed() {
    let history = history(&[false; 9]);
    let base_version = || base(&history.conn).unwrap().position.version;
    assert_eq!(prune(&history.conn, by_age(3_000)).unwrap().entries, 2);
    // Entry 3 has 30 bytes, entry 4 has 40.
    assert_eq!(prune(&history.conn, by_size(31)).unwrap(), Pruned { entries: 2, bytes: 70, more: false });
    let needed = Cut { up_to: 5, ..by_age(i64::MAX) };
    assert_eq!(prune(&history.conn, needed).unwrap().entries, 1);
    assert_eq!(prune(&history.conn, needed).unwrap(), Pruned::default());
    prune(&history.conn, by_age(i64::MAX)).unwrap();
    assert_eq!(base_version(), 8);
    history.check(&mut LogSize::default());
}

#[test]
fn a_step_is_bounded_and_says_that_there_is_more() {
    let history = history(&vec![false; STEP_ENTRIES as usize + 10]);
    let first = prune(&history.conn, by_age(i64::MAX)).unwrap();
    assert_eq!((first.entries, first.more), (STEP_ENTRIES, true));
    let rest = prune(&history.conn, by_age(i64::MAX)).unwrap();
    assert_eq!((rest.entries, rest.more), (9, false));
}

#[test]
fn a_file_from_before_there_was_pruning_is_pruned_too() {
    let history = history(&[true, false, true, false, false]);
    history
        .conn
        .execute_batch("ALTER TABLE _vski_base DROP COLUMN objects; ALTER TABLE _vski_base DROP COLUMN pruned_bytes")
        .unwrap();
    let mut size = LogSize::default();
    assert_eq!(schema_at(&history.conn, 0).unwrap(), None);
    size.refresh(&history.conn).unwrap();
    prune(&history.conn, Cut { up_to: 4, ..by_age(i64::MAX) }).unwrap();
    history.check(&mut size);
}
