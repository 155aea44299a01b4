use tempfile::TempDir;
use vski_replication::changelog::{Pruned, Retention};
use vski_replication::datadir::DataDir;
use vski_replication::{clock, lease};

use super::*;
use crate::testing::{Master, rows};

/// A copy of `master` as it stands now.
fn copy(master: &Master) -> (TempDir, LocalCopy) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    master.copy_to(&path);
    let copy = LocalCopy::open("a", &path).unwrap();
    (dir, copy)
}

fn equal(master: &Master, copy: &LocalCopy) {
    assert_eq!(rows(&master.conn), rows(&copy.conn));
    assert_eq!(copy.position(), master.position());
    assert_eq!(changelog::head(&copy.conn).unwrap().position, master.position());
    assert_eq!(schema::hash(&copy.conn).unwrap(), schema::hash(&master.conn).unwrap());
}

#[test]
fn rows_schema_and_promotion_arrive_in_one_transaction() {
    let mut master = Master::with_a_row();
    let (_dir, mut copy) = copy(&master);
    let start = master.position().version;
    master.changes("INSERT INTO t VALUES ('b', 2); UPDATE t SET n = 7 WHERE id = 'a'");
    master.schema_with_rows(&["ALTER TABLE t ADD COLUMN x TEXT"], "INSERT INTO t VALUES ('c', 3, 'x')");
    master.epoch(EpochReason::Promoted);
    master.changes("DELETE FROM t WHERE id = 'b'");
    assert_eq!(copy.apply(&master.entries_after(start)).unwrap(), Applied::All);
    equal(&master, &copy);
}

#[test]
fn what_the_applier_does_not_expect_is_done_by_sqlite_together_with_what_is_around_it() {
    let mut master = Master::new();
    master.schema(&["CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, n INTEGER UNIQUE)"]);
    master.changes("INSERT INTO t VALUES ('a', 1), ('b', 2)");
    let (_dir, mut copy) = copy(&master);
    let start = master.position().version;
    master.changes("INSERT INTO t VALUES ('c', 3)");
    master.changes(
        "UPDATE t SET n = -n WHERE id = 'a'; UPDATE t SET n = 1 WHERE id = 'b'; UPDATE t SET n = 2 WHERE id = 'a'",
    );
    master.changes("DELETE FROM t WHERE id = 'c'; UPDATE t SET n = 9 WHERE id = 'b'");
    assert_eq!(copy.apply(&master.entries_after(start)).unwrap(), Applied::All);
    equal(&master, &copy);
}

#[test]
fn a_copy_that_an_older_master_made_keeps_the_traces_of_what_is_applied() {
    let mut master = Master::with_a_row();
    master.conn.execute_batch("DROP TABLE _vski_trace").unwrap();
    let (_dir, mut copy) = copy(&master);
    let trace = Trace { trace_id: [1; 16], span_id: [2; 8], flags: 1 };
    let entry = Entry { trace: Some(trace), ..master.changes("INSERT INTO t VALUES ('b', 2)") };
    copy.apply(std::slice::from_ref(&entry)).unwrap();
    equal(&master, &copy);
    assert_eq!(changelog::entry(&copy.conn, entry.version).unwrap(), Some(entry));
}

#[test]
fn what_was_applied_is_still_there_after_opening_again() {
    let mut master = Master::with_a_row();
    let (dir, mut copy) = copy(&master);
    let entry = master.changes("INSERT INTO t VALUES ('b', 2)");
    copy.apply(&[entry]).unwrap();
    drop(copy);
    equal(&master, &LocalCopy::open("a", &dir.path().join("a.db")).unwrap());
}

#[test]
fn a_conflict_keeps_the_good_entries_before_it_and_names_the_bad_one() {
    let mut master = Master::with_a_row();
    let (_dir, mut copy) = copy(&master);
    copy.conn.execute_batch("UPDATE t SET n = 99 WHERE id = 'a'").unwrap();
    let good = master.changes("INSERT INTO t VALUES ('b', 2)");
    let bad = master.changes("INSERT INTO t VALUES ('c', 3); UPDATE t SET n = 2 WHERE id = 'a'");
    let after = master.changes("INSERT INTO t VALUES ('d', 4)");
    let error = copy.apply(&[good.clone(), bad.clone(), after]).unwrap_err();
    assert!(matches!(&error, AgentError::Conflict { version, .. } if *version == bad.version), "{error}");
    assert_eq!(error.state_name(), "diverged");
    assert_eq!(copy.position(), good.position());
    assert_eq!(rows(&copy.conn), [("a".to_owned(), Some(99)), ("b".to_owned(), Some(2))]);
}

#[test]
fn rows_captured_on_another_schema_wait_for_a_migration() {
    let mut master = Master::with_a_row();
    let (_dir, mut copy) = copy(&master);
    copy.conn.execute_batch("CREATE INDEX mine ON t (n)").unwrap();
    let entry = master.changes("INSERT INTO t VALUES ('b', 2)");
    let needed = copy.apply(std::slice::from_ref(&entry)).unwrap();
    let Applied::SchemaNeeded { version, local, master: wanted } = needed else { panic!("{needed:?}") };
    assert_eq!((version, wanted), (entry.version, entry.schema_hash));
    assert_eq!(local, schema::hash(&copy.conn).unwrap());
    copy.migrate(version, &schema::objects(&master.conn).unwrap()).unwrap();
    assert_eq!(copy.apply(&[entry]).unwrap(), Applied::All);
    equal(&master, &copy);
}

#[test]
fn a_schema_entry_repairs_another_schema_and_skips_its_own() {
    let mut master = Master::with_a_row();
    for local in ["CREATE INDEX mine ON t (n)", "ALTER TABLE t ADD COLUMN x TEXT"] {
        let (_dir, mut copy) = copy(&master);
        copy.conn.execute_batch(local).unwrap();
        let statement = if local.contains("mine") { "CREATE INDEX theirs ON t (n)" } else { local };
        let entry = master.schema(&[statement]);
        assert_eq!(copy.apply(&[entry]).unwrap(), Applied::All, "{local}");
        equal(&master, &copy);
    }
}

#[test]
fn an_unreachable_schema_is_an_error_that_changes_nothing() {
    let mut master = Master::with_a_row();
    let (_dir, mut copy) = copy(&master);
    copy.conn.execute_batch("CREATE TABLE mine (id TEXT PRIMARY KEY NOT NULL)").unwrap();
    let before = copy.position();
    let error = copy.migrate(3, &schema::objects(&master.conn).unwrap()).unwrap_err();
    assert_eq!(error.recovery(), crate::error::Recovery::Converge);
    let entry = master.schema(&["CREATE INDEX theirs ON t (n)"]);
    let error = copy.apply(&[entry]).unwrap_err();
    assert!(crate::error::chain(&error).contains("mine"), "{}", crate::error::chain(&error));
    assert_eq!(copy.position(), before);
}

#[test]
fn a_change_that_the_log_does_not_carry_is_not_skipped() {
    let mut master = Master::with_a_row();
    let (_dir, mut copy) = copy(&master);
    for reason in [EpochReason::ForeignEdit, EpochReason::Uncaptured] {
        let entry = master.epoch(reason);
        assert!(matches!(copy.apply(&[entry]), Err(AgentError::Uncaptured { .. })));
    }
    assert_ne!(copy.position(), master.position());
}

#[test]
fn a_log_that_somebody_else_wrote_is_noticed() {
    let mut master = Master::with_a_row();
    let (_dir, mut copy) = copy(&master);
    let entry = master.changes("INSERT INTO t VALUES ('b', 2)");
    changelog::append(&copy.conn, &entry).unwrap();
    assert!(matches!(copy.apply(&[entry]), Err(AgentError::Meddled)));
}

#[test]
fn triggers_and_foreign_keys_do_not_run_again() {
    let mut master = Master::with_a_row();
    master.schema(&[
        "CREATE TABLE log (id TEXT PRIMARY KEY NOT NULL, t TEXT REFERENCES t ON DELETE CASCADE)",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.id, new.id); END",
    ]);
    let (_dir, mut copy) = copy(&master);
    let start = master.position().version;
    master.changes("INSERT INTO t VALUES ('b', 2), ('c', 3)");
    master.changes("DELETE FROM t WHERE id = 'b'");
    copy.apply(&master.entries_after(start)).unwrap();
    let count: i64 = copy.conn.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
    equal(&master, &copy);
}

#[test]
fn a_file_that_is_not_ours_is_malformed_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let stranger = dir.path().join("stranger.db");
    Connection::open(&stranger).unwrap().execute_batch("CREATE TABLE x (a)").unwrap();
    let (text, empty) = (dir.path().join("text.db"), dir.path().join("empty.db"));
    std::fs::write(&text, "no database at all, but long enough to look at: ".repeat(100)).unwrap();
    std::fs::write(&empty, "").unwrap();
    for path in [stranger, text, empty] {
        let before = std::fs::read(&path).unwrap();
        let error = LocalCopy::open("a", &path).err().expect("not ours");
        assert_eq!(error.state_name(), "malformed", "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
    assert!(LocalCopy::open("a", &dir.path().join("none.db")).is_err());
    assert!(!dir.path().join("none.db").exists());
}

#[test]
fn the_local_log_is_cut_between_batches_and_goes_on() {
    let mut master = Master::with_a_row();
    let (temporary, mut copy) = copy(&master);
    let dir = DataDir::open(temporary.path()).unwrap();
    for n in 0..20 {
        let entry = master.changes(&format!("INSERT INTO t VALUES ('x{n}', {n})"));
        copy.apply(&[entry]).unwrap();
    }
    let max_age = std::time::Duration::from_secs(3_600);
    let all = copy.size.refresh(&copy.conn).unwrap();
    let roomy = Retention { max_age, max_bytes: all };
    assert_eq!(copy.prune(roomy, true, clock::now_ms(), &dir).unwrap(), Pruned::default());
    let tight = Retention { max_age, max_bytes: all / 4 };
    assert!(copy.prune(tight, false, clock::now_ms(), &dir).unwrap().entries > 10);
    assert!(copy.size.refresh(&copy.conn).unwrap() <= all / 4);
    let old = Retention { max_age: std::time::Duration::ZERO, max_bytes: all };
    copy.prune(old, true, i64::MAX, &dir).unwrap();
    assert_eq!(changelog::read_after(&copy.conn, 0, usize::MAX).unwrap().len(), 1);
    let entry = master.changes("DELETE FROM t WHERE id = 'a'");
    copy.apply(&[entry]).unwrap();
    equal(&master, &copy);
}

#[test]
fn a_table_that_the_master_drops_is_kept_with_its_rows_and_entries_go_on() {
    let mut master = Master::with_a_row();
    let (_dir, mut copy) = copy(&master);
    let start = master.position().version;
    let dropped = master.schema_with_rows(
        &["drop table if exists \"T\"; CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, n INTEGER)"],
        "INSERT INTO t VALUES ('new', 1)",
    );
    master.schema(&["ALTER TABLE t RENAME TO u", "ALTER TABLE u RENAME TO t"]);
    master.changes("INSERT INTO t VALUES ('newer', 2)");
    assert_eq!(copy.apply(&master.entries_after(start)).unwrap(), Applied::All);
    equal(&master, &copy);
    let sql = format!("SELECT id, n FROM _vski_kept_t_{}", dropped.version);
    let kept: (String, i64) = copy.conn.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(kept, ("a".to_owned(), 1));
}

#[test]
fn what_follows_a_leased_snapshot_stays_until_the_log_is_too_large() {
    let mut master = Master::with_a_row();
    let (temporary, mut copy) = copy(&master);
    let dir = DataDir::open(temporary.path()).unwrap();
    let leased = copy.position().version;
    let held = lease::Lease::begin(&dir, "ab", "a", leased).unwrap();
    for n in 0..20 {
        let entry = master.changes(&format!("INSERT INTO t VALUES ('x{n}', {n})"));
        copy.apply(&[entry]).unwrap();
    }
    let all = copy.size.refresh(&copy.conn).unwrap();
    let base = |copy: &LocalCopy| changelog::base(&copy.conn).unwrap().position.version;
    let keeping = |max_bytes| Retention { max_age: std::time::Duration::ZERO, max_bytes };
    copy.prune(keeping(all / 2), true, i64::MAX, &dir).unwrap();
    assert_eq!((base(&copy), held.is_broken()), (leased, false));
    copy.prune(keeping(1), true, i64::MAX, &dir).unwrap();
    assert!(base(&copy) > leased && held.is_broken());
}
