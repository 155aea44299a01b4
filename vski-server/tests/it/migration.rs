use vski_replication::entry::{Entry, EpochReason, Kind};
use vski_server::store::error::StoreError;
use vski_server::store::migration::{Done, Plan};

use crate::store::Store;

async fn migrate(store: &Store, sql: &str) -> Result<Done, StoreError> {
    store.writer.migrate(sql.len(), Plan::parse(sql)?).await
}

/// Two tables, one referring to the other, with a row each.
async fn shop() -> Store {
    let store = Store::new();
    store.ddl("CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT)").await.unwrap();
    store.ddl("CREATE TABLE b (id INTEGER PRIMARY KEY, a REFERENCES a ON DELETE CASCADE)").await.unwrap();
    store.sql("INSERT INTO a VALUES (1, 'one'), (2, 'two'); INSERT INTO b VALUES (1, 1)").await.unwrap();
    store
}

/// The one entry after `done.before`.
fn entry(store: &Store, done: Done) -> Entry {
    let mut entries = store.entries_after(done.before);
    assert_eq!((entries.len(), done.version), (1, done.before + 1));
    entries.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_and_rows_are_one_entry_that_replicas_repeat() {
    let store = shop().await;
    let mut copy = store.copy();
    let sql = "ALTER TABLE a RENAME COLUMN x TO name; CREATE INDEX i ON a (name);
        CREATE TRIGGER t AFTER UPDATE ON a BEGIN UPDATE b SET a = new.id WHERE a = new.id; END;
        UPDATE a SET name = upper(name) || random();";
    let done = migrate(&store, sql).await.unwrap();
    let (change, changeset) = (entry(&store, done).schema_change().unwrap().0, done.entry);
    assert_eq!((change.statements.len(), changeset), (3, "schema"));
    copy.follow_and_compare(&store);

    let done =
        migrate(&store, "DELETE FROM a WHERE id = 1; WITH n(v) AS (VALUES (7)) INSERT INTO b SELECT v, 2 FROM n")
            .await
            .unwrap();
    assert_eq!((entry(&store, done).kind, done.entry), (Kind::Changes, "changes"));
    let done = migrate(&store, "DELETE FROM a WHERE id = 99").await.unwrap();
    assert_eq!((done.entry, done.before), ("none", done.version));
    let done = migrate(&store, "DROP TRIGGER t; DROP TABLE b; ALTER TABLE a DROP COLUMN id2").await;
    assert!(done.unwrap_err().to_string().contains("id2"));
    let done = migrate(&store, "DROP TRIGGER t; DROP TABLE b").await.unwrap();
    assert_eq!(entry(&store, done).kind, Kind::Schema);
    copy.follow_and_compare(&store);
    store.sql("INSERT INTO a VALUES (3, 'three')").await.unwrap();
    copy.follow_and_compare(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_entry_cannot_carry_is_run_and_begins_an_epoch() {
    let store = shop().await;
    let mixed = "UPDATE a SET x = 'x'; ALTER TABLE a ADD COLUMN y; UPDATE a SET y = x";
    let huge = "INSERT INTO a SELECT value, zeroblob(1 << 20) FROM (WITH RECURSIVE s(value) AS
        (SELECT 10 UNION ALL SELECT value + 1 FROM s LIMIT 70) SELECT value FROM s); DELETE FROM a WHERE id = 10";
    for (sql, count) in [(mixed, 2), (huge.replace("value, zeroblob", "value, 0, zeroblob").as_str(), 71)] {
        let done = migrate(&store, sql).await.unwrap();
        let entry = entry(&store, done);
        assert_eq!((done.entry, entry.epoch_change().unwrap().reason), ("epoch", EpochReason::Uncaptured));
        let rows = store.master.reader("default").unwrap();
        let found: i64 =
            rows.read(|conn| Ok(conn.query_row("SELECT count(*) FROM a", [], |row| row.get(0))?)).await.unwrap();
        assert_eq!(found, count);
    }
    let mut copy = store.copy();
    store.sql("INSERT INTO b VALUES (5, 2)").await.unwrap();
    copy.follow_and_compare(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fails_anywhere_leaves_nothing() {
    let store = shop().await;
    let before = store.entries_after(0).len();
    for (sql, reason) in [
        ("UPDATE a SET x = 'gone'; INSERT INTO a VALUES (1, 'twice')", "UNIQUE"),
        ("UPDATE a SET x = 'gone'; INSERT OR ROLLBACK INTO a VALUES (1, 'twice')", "UNIQUE"),
        ("CREATE TABLE c (id TEXT)", "no primary key"),
        ("UPDATE a SET x = 'gone'; CREATE TABLE c (id TEXT)", "no primary key"),
        ("DROP TABLE a", "foreign keys would be broken"),
        ("DELETE FROM a; DROP TABLE _collections", "server's own"),
        ("ALTER TABLE _superusers ADD COLUMN x", "server's own"),
        ("DELETE FROM a; ROLLBACK", "one transaction"),
        ("DELETE FROM a; DELETE FROM '_vski_changelog'", "log's own"),
        ("UPDATE a SET x = 'gone'; CREATE TABLE '_vski_c' (id TEXT PRIMARY KEY NOT NULL)", "log's own"),
        ("DELETE FROM a; DELETE FROM \"_Superusers\"", "/api/admins"),
        ("DELETE FROM _api_keys", "/api/keys"),
        ("INSERT INTO '_files' DEFAULT VALUES", "with their records"),
        ("WITH x AS (SELECT 1) UPDATE main._databases SET name = 'x'", "/api/databases"),
        (
            "UPDATE a SET x = 'gone'; INSERT INTO _collections (id, name, type, fields, created, updated) \
          VALUES ('p', 'posts', 'base', 'garbage', '', '')",
            "collection posts cannot be used",
        ),
    ] {
        let error = migrate(&store, sql).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{sql}: {error}");
    }
    assert_eq!(store.entries_after(0).len(), before);
    let mut copy = store.copy();
    // Foreign keys hold again after a migration without them.
    store.sql("DELETE FROM a WHERE id = 1").await.unwrap();
    let rows = store.master.reader("default").unwrap();
    let left: i64 =
        rows.read(|conn| Ok(conn.query_row("SELECT count(*) FROM b", [], |row| row.get(0))?)).await.unwrap();
    assert_eq!(left, 0);
    copy.follow_and_compare(&store);
}
