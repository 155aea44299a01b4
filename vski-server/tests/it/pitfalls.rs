//! Known pitfalls of SQLite's session extension, one test each: what it skips, tears apart or does twice must not reach a
//! replica as another row. Those that are prevented at the gate, by the cap or by hashes are tested there.

use rusqlite::Connection;
use vski_server::store::error::StoreError;
use vski_sync_agent::apply::Applied;

use crate::store::Store;

/// Plays schema statements and then writes on a master, one request each, and compares a copy that followed.
async fn followed(schema: &[&str], writes: &[&str]) -> Store {
    let store = Store::new();
    for statement in schema {
        store.ddl(statement).await.unwrap();
    }
    let mut copy = store.copy();
    for write in writes {
        store.sql(write).await.unwrap_or_else(|error| panic!("{write}: {}", error.describe()));
    }
    copy.follow_and_compare(&store);
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_without_a_condition_is_captured_row_by_row() {
    followed(&["CREATE TABLE t (id INTEGER PRIMARY KEY)"], &["INSERT INTO t VALUES (1), (2), (3)", "DELETE FROM t"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_touched_many_times_in_one_request_arrives_as_it_ended() {
    let writes = [
        "INSERT INTO t VALUES (1, 'a'); UPDATE t SET v = 'b'; DELETE FROM t; INSERT INTO t VALUES (1, 'c')",
        "UPDATE t SET v = 'd'; UPDATE t SET v = 'c'",
        "DELETE FROM t; INSERT INTO t VALUES (1, 'c')",
    ];
    let store = followed(&["CREATE TABLE t (id INTEGER PRIMARY KEY, v)"], &writes).await;
    let entries = store.entries_after(0).len();
    assert_eq!(entries, 3, "two schema entries and one of rows: no net change, no entry");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_is_a_delete_and_an_insert_also_over_several_columns() {
    let table = "CREATE TABLE t (a TEXT NOT NULL, b INTEGER NOT NULL, v, PRIMARY KEY (b, a)) WITHOUT ROWID";
    followed(&[table], &["INSERT INTO t VALUES ('x', 1, 'v'), ('y', 1, 'w')", "UPDATE t SET a = a || 'z', b = -b"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_are_computed_anew_on_each_node() {
    let table = "CREATE TABLE t (g TEXT AS (v || '!') STORED, id INTEGER PRIMARY KEY, v TEXT, h AS (id * 2))";
    let index = "CREATE INDEX i ON t (h, g)";
    followed(&[table, index], &["INSERT INTO t (id, v) VALUES (1, 'a'), (2, NULL)", "UPDATE t SET v = 'b'"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_of_analyze_stay_on_their_node() {
    let store = followed(
        &["CREATE TABLE t (id INTEGER PRIMARY KEY, v)", "CREATE INDEX i ON t (v)"],
        &["INSERT INTO t VALUES (1, 1), (2, 1)", "ANALYZE", "INSERT INTO t VALUES (3, 3)"],
    )
    .await;
    assert!(store.entries_after(0).iter().all(|entry| !entry.payload.windows(11).any(|part| part == b"sqlite_stat")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_written_in_place_is_captured() {
    let store = Store::new();
    store.ddl("CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)").await.unwrap();
    store.sql("INSERT INTO t VALUES (1, zeroblob(100))").await.unwrap();
    let mut copy = store.copy();
    let write = |conn: &Connection| {
        let mut blob = conn.blob_open("main", "t", "b", 1, false)?;
        blob.write_at(b"in place", 50)?;
        Ok::<_, StoreError>(blob.close()?)
    };
    store.writer.rows(0, write).await.unwrap();
    copy.follow_and_compare(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_triggers_and_cascades_did_on_the_master_is_not_done_again() {
    let schema = [
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p ON DELETE CASCADE ON UPDATE SET NULL)",
        "CREATE TABLE audit (id INTEGER PRIMARY KEY, what TEXT)",
        "CREATE TRIGGER made AFTER INSERT ON p BEGIN INSERT INTO audit (what) VALUES ('made ' || new.id); END",
        "CREATE TRIGGER gone AFTER DELETE ON c BEGIN INSERT INTO audit (what) VALUES ('gone ' || old.id); END",
    ];
    let writes = [
        "INSERT INTO p VALUES (1), (2), (3); INSERT INTO c VALUES (10, 1), (11, 1), (12, 2)",
        "DELETE FROM p WHERE id = 1",
        "UPDATE p SET id = 20 WHERE id = 2",
        "INSERT OR REPLACE INTO p VALUES (3)",
    ];
    followed(&schema, &writes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unique_values_can_be_swapped_within_a_transaction() {
    let swap =
        "UPDATE t SET u = NULL WHERE id = 1; UPDATE t SET u = 'a' WHERE id = 2; UPDATE t SET u = 'b' WHERE id = 1";
    followed(
        &["CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE)"],
        &["INSERT INTO t VALUES (1, 'a'), (2, 'b')", swap],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_added_later_reads_alike_in_older_rows() {
    let store = Store::new();
    store.ddl("CREATE TABLE t (id INTEGER PRIMARY KEY)").await.unwrap();
    let mut copy = store.copy();
    store.sql("INSERT INTO t VALUES (1)").await.unwrap();
    store.ddl("ALTER TABLE t ADD COLUMN v TEXT DEFAULT 'x'").await.unwrap();
    store.sql("INSERT INTO t VALUES (2, 'y'); UPDATE t SET v = v || '!' WHERE id = 1").await.unwrap();
    copy.follow_and_compare(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changeset_never_meets_a_table_that_is_missing_or_shaped_otherwise() {
    for edit in ["DROP TABLE t", "ALTER TABLE t RENAME COLUMN a TO z", "ALTER TABLE t DROP COLUMN b"] {
        let store = Store::new();
        store.ddl("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)").await.unwrap();
        let mut copy = store.copy();
        Connection::open(&copy.file).unwrap().execute_batch(edit).unwrap();
        store.sql("INSERT INTO t VALUES (1, 'a', 'b')").await.unwrap();
        let position = copy.local.position();
        let applied = copy.local.apply(&store.entries_after(position.version)).unwrap();
        assert!(matches!(applied, Applied::SchemaNeeded { .. }), "{edit}: {applied:?}");
        assert_eq!(copy.local.position(), position, "{edit}: nothing is skipped in silence");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_already_there_conflict_instead_of_being_applied_twice() {
    let store = Store::new();
    store.ddl("CREATE TABLE t (id INTEGER PRIMARY KEY, n)").await.unwrap();
    store.sql("INSERT INTO t VALUES (1, 0)").await.unwrap();
    let mut copy = store.copy();
    store.sql("UPDATE t SET n = n + 1").await.unwrap();
    let entries = store.entries_after(copy.local.position().version);
    copy.local.apply(&entries).unwrap();
    assert!(copy.local.apply(&entries).is_err());
    copy.follow_and_compare(&store);
}
