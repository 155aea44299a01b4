use rusqlite::config::DbConfig;

use super::*;

pub(super) fn database(sql: &str) -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false).unwrap();
    conn.execute_batch(sql).unwrap();
    conn
}

pub(super) fn captured(conn: &Connection, sql: &str) -> Vec<u8> {
    captured_by(conn, |conn| conn.execute_batch(sql).unwrap())
}

pub(super) fn captured_by(conn: &Connection, change: impl FnOnce(&Connection)) -> Vec<u8> {
    let session = Session::start(conn).unwrap();
    change(conn);
    session.changeset().unwrap()
}

fn rows(conn: &Connection) -> Vec<(String, i64)> {
    let mut statement = conn.prepare("SELECT id, n FROM t ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

const TABLE: &str = "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, n INTEGER);";

#[test]
fn what_one_connection_changes_another_can_apply() {
    let (from, to) = (database(TABLE), database(TABLE));
    for sql in [
        "INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3)",
        "UPDATE t SET n = 9 WHERE id = 'a'; DELETE FROM t WHERE id = 'b'",
        "UPDATE t SET id = 'z' WHERE id = 'c'",
    ] {
        apply(&to, &captured(&from, sql)).unwrap();
        assert_eq!(rows(&from), rows(&to), "{sql}");
    }
}

#[test]
fn our_own_tables_are_not_captured() {
    let conn =
        database("CREATE TABLE _vski_log (id INTEGER PRIMARY KEY); CREATE TABLE xvski_log (id INTEGER PRIMARY KEY);");
    assert!(captured(&conn, "INSERT INTO _vski_log VALUES (1)").is_empty());
    assert!(!captured(&conn, "INSERT INTO xvski_log VALUES (1)").is_empty());
}

#[test]
fn a_rolled_back_savepoint_leaves_nothing_in_the_changeset() {
    let (from, to) = (database(TABLE), database(TABLE));
    let changeset =
        captured(&from, "BEGIN; SAVEPOINT a; INSERT INTO t VALUES ('a', 1); ROLLBACK TO a; RELEASE a; COMMIT");
    assert!(changeset.is_empty());
    let changeset = captured(
        &from,
        "BEGIN; SAVEPOINT a; INSERT INTO t VALUES ('a', 1), ('x', 1); ROLLBACK TO a; RELEASE a;
         SAVEPOINT b; INSERT INTO t VALUES ('a', 2); RELEASE b; COMMIT",
    );
    apply(&to, &changeset).unwrap();
    assert_eq!(rows(&to), [("a".to_owned(), 2)]);
}

#[test]
fn every_kind_of_conflict_is_reported_and_undoes_the_whole_changeset() {
    let from = database(TABLE);
    from.execute_batch("INSERT INTO t VALUES ('a', 1)").unwrap();
    let update = captured(&from, "INSERT INTO t VALUES ('new', 0); UPDATE t SET n = 2 WHERE id = 'a'");
    for (here, kind) in [
        ("INSERT INTO t VALUES ('a', 7)", "update on t: the row has other values here"),
        ("", "update on t: the row is missing here"),
        ("INSERT INTO t VALUES ('a', 1), ('new', 5)", "insert on t: the row exists here already"),
    ] {
        let to = database(&format!("{TABLE}{here}"));
        let before = rows(&to);
        let is_told = || match apply(&to, &update) {
            Err(ApplyError::Conflict(conflict)) => assert_eq!(conflict.to_string(), kind),
            other => panic!("{here}: {other:?}"),
        };
        is_told();
        assert_eq!(rows(&to), before);
        // The same in a transaction, which is the caller's to roll back.
        to.execute_batch("BEGIN").unwrap();
        is_told();
        to.execute_batch("ROLLBACK").unwrap();
        assert_eq!(rows(&to), before);
    }
}

#[test]
fn unique_values_can_be_swapped() {
    let table =
        "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, n INTEGER UNIQUE); INSERT INTO t VALUES ('a', 1), ('b', 2);";
    let (from, to) = (database(table), database(table));
    let swap =
        "UPDATE t SET n = 3 WHERE id = 'a'; UPDATE t SET n = 1 WHERE id = 'b'; UPDATE t SET n = 2 WHERE id = 'a'";
    apply(&to, &captured(&from, swap)).unwrap();
    assert_eq!(rows(&to), rows(&from));
}

#[test]
fn triggers_and_foreign_keys_do_not_run_again() {
    let schema = "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, n INTEGER REFERENCES p ON DELETE CASCADE);
        CREATE TRIGGER g AFTER INSERT ON p BEGIN INSERT INTO t VALUES ('g' || new.id, new.id); END;";
    let (from, to) = (database(schema), database(schema));
    from.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).unwrap();
    from.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true).unwrap();
    for sql in ["INSERT INTO p VALUES (1), (2)", "DELETE FROM p WHERE id = 1"] {
        apply(&to, &captured(&from, sql)).unwrap();
        assert_eq!(rows(&to), rows(&from));
    }
    assert_eq!(rows(&to), [("g2".to_owned(), 2)]);
}

#[test]
fn bytes_that_are_no_changeset_are_an_error() {
    let conn = database(TABLE);
    assert!(apply(&conn, b"no changeset").is_err());
    apply(&conn, b"").unwrap();
}

#[test]
fn the_size_grows_with_the_changes_and_bounds_the_changeset() {
    let conn = database(TABLE);
    let session = Session::start(&conn).unwrap();
    assert_eq!(session.changeset_size(), 0);
    conn.execute_batch("INSERT INTO t SELECT 'id' || value, value FROM (WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s LIMIT 1000) SELECT value FROM s)").unwrap();
    let changeset = session.changeset().unwrap();
    assert!(changeset.len() > 5_000 && changeset.len() <= session.changeset_size());
}

#[test]
fn a_dropped_table_makes_capture_fail_instead_of_losing_rows() {
    let conn = database(&format!("{TABLE} CREATE TABLE u (id INTEGER PRIMARY KEY);"));
    let session = Session::start(&conn).unwrap();
    conn.execute_batch("INSERT INTO t VALUES ('a', 1); INSERT INTO u VALUES (1); DROP TABLE u").unwrap();
    assert!(session.changeset().is_err());
}
