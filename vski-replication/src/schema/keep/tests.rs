use super::*;
use crate::schema::hash;

const BASE: &str = "CREATE TABLE x (id TEXT PRIMARY KEY NOT NULL, v); CREATE INDEX by_v ON x (v);
    CREATE TABLE child (id INTEGER PRIMARY KEY, x TEXT REFERENCES x (id));
    CREATE VIEW both AS SELECT x.v, child.id FROM x, child;
    CREATE TRIGGER on_x AFTER INSERT ON x BEGIN DELETE FROM child; END;
    CREATE TRIGGER on_child AFTER INSERT ON child BEGIN DELETE FROM x WHERE id = new.x; END;
    INSERT INTO child VALUES (1, 'a');";

/// Rows with a value of every storage class.
const ROWS: &str = "INSERT INTO x VALUES ('a', 1), ('b', 1.0), ('c', x'00ff'), ('d', NULL), ('e', 'é');";

fn database() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    conn.execute_batch(BASE).unwrap();
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    conn.execute_batch(ROWS).unwrap();
    conn
}

fn texts(statements: &[&str]) -> Vec<String> {
    statements.iter().map(|&statement| statement.to_owned()).collect()
}

fn rows(conn: &Connection, table: &str) -> Vec<String> {
    let sql = format!("SELECT id || ' ' || typeof(v) || ' ' || quote(v) FROM {} ORDER BY id", quote_name(table));
    let mut statement = conn.prepare(&sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The same statements on a master, which drops, and on a replica, which keeps: the schemas end equal.
fn replayed(statements: &[&str]) -> (Connection, Vec<Kept>) {
    let (master, replica) = (database(), database());
    statements.iter().for_each(|statement| master.execute_batch(statement).unwrap());
    replica.execute_batch("BEGIN IMMEDIATE").unwrap();
    let kept = run_keeping(&replica, &texts(statements), 9).unwrap();
    replica.execute_batch("COMMIT").unwrap();
    assert_eq!(hash(&replica).unwrap(), hash(&master).unwrap(), "{statements:?}");
    (replica, kept)
}

#[test]
fn a_dropped_table_stays_with_its_rows_however_the_drop_is_spelt() {
    let expected = rows(&database(), "x");
    for drop in [
        "DROP TABLE x",
        "drop table if exists \"X\"",
        "DROP/**/TABLE main.[x]",
        "-- nothing\nDROP TABLE\n`x` ;",
        "CREATE TABLE y (id INTEGER PRIMARY KEY); DROP TABLE 'x'; DROP TABLE IF EXISTS x",
    ] {
        let (replica, kept) = replayed(&[drop]);
        assert_eq!(kept, [Kept { table: "x".to_owned(), name: "_vski_kept_x_9".to_owned() }], "{drop}");
        assert_eq!(rows(&replica, "_vski_kept_x_9"), expected, "{drop}");
        let left: i64 = replica
            .query_row(
                "SELECT count(*) FROM sqlite_master WHERE tbl_name = '_vski_kept_x_9' AND sql IS NOT NULL",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(left, 1, "no index or trigger stays with it: {drop}");
    }
}

#[test]
fn a_table_that_is_dropped_and_made_again_twice_is_kept_twice() {
    let again = "CREATE TABLE x (id TEXT PRIMARY KEY NOT NULL, other)";
    let (replica, kept) = replayed(&["DROP TABLE x", again, "DROP TABLE x", again]);
    let names: Vec<&str> = kept.iter().map(|kept| kept.name.as_str()).collect();
    assert_eq!(names, ["_vski_kept_x_9", "_vski_kept_x_9_"]);
    assert_eq!(rows(&replica, names[0]).len(), 5);
    let count: i64 = replica.query_row("SELECT count(*) FROM x", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 0);
}

#[test]
fn a_renamed_table_is_not_a_dropped_one() {
    for statements in [
        &["DROP VIEW both", "ALTER TABLE x RENAME TO renamed"][..],
        &["ALTER TABLE child RENAME COLUMN x TO y"],
        &["ALTER TABLE x ADD COLUMN w", "DROP INDEX by_v", "DROP TRIGGER on_x", "DROP VIEW both"],
    ] {
        assert_eq!(replayed(statements).1, [], "{statements:?}");
    }
    let (replica, kept) = replayed(&["DROP VIEW both", "ALTER TABLE x RENAME TO y", "DROP TABLE y"]);
    assert_eq!(kept[0].table, "y");
    assert_eq!(rows(&replica, "_vski_kept_y_9").len(), 5);
}

#[test]
fn a_rename_and_a_drop_in_one_text_are_told_apart() {
    let (replica, kept) = replayed(&[
        "DROP VIEW both; ALTER TABLE child RENAME TO brat; DROP TABLE x; CREATE TABLE z (id INTEGER PRIMARY KEY)",
    ]);
    assert_eq!(kept.len(), 1);
    assert_eq!(rows(&replica, "_vski_kept_x_9").len(), 5);
}

#[test]
fn a_statement_that_fails_is_named_and_leaves_renames_as_they_should_be() {
    let conn = database();
    conn.execute_batch("BEGIN").unwrap();
    let error = run_keeping(&conn, &texts(&["DROP TABLE x", "DROP TABLE x"]), 9).unwrap_err();
    assert!(matches!(&error, MigrateError::Statement { statement, .. } if statement == "DROP TABLE x"), "{error}");
    conn.execute_batch("ROLLBACK").unwrap();
    let legacy: bool = conn.pragma_query_value(None, "legacy_alter_table", |row| row.get(0)).unwrap();
    assert!(!legacy);
    assert_eq!(rows(&conn, "x").len(), 5);
}

#[test]
fn a_kept_table_with_foreign_keys_holds_on_to_nothing_and_its_rows_are_exact() {
    let child =
        "CREATE TABLE picky (id INTEGER PRIMARY KEY, v ANY, x TEXT REFERENCES x (id) ON DELETE RESTRICT, t TEXT,
        sum INTEGER AS (id + 1)) STRICT";
    let fill = "INSERT INTO picky (id, v, x, t) VALUES (1, '1', 'a', '01'), (2, 1, 'b', NULL), (3, 1.0, 'c', ''), (4, x'31', 'd', 'é')";
    let conn = database();
    conn.execute_batch(&format!("{child}; {fill}")).unwrap();
    let before = rows(&conn, "picky");
    let kept = run_keeping(&conn, &texts(&["DROP TABLE picky", "DROP TABLE child"]), 9).unwrap();
    assert_eq!(kept.len(), 2);
    assert_eq!(rows(&conn, "_vski_kept_picky_9"), before);
    let other: String = conn
        .query_row("SELECT group_concat(quote(t) || sum || x) FROM _vski_kept_picky_9", [], |row| row.get(0))
        .unwrap();
    assert_eq!(other, "'01'2a,NULL3b,''4c,'é'5d");
    conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    assert_eq!(conn.execute("DELETE FROM x", []).unwrap(), 5);
    assert_eq!(rows(&conn, "_vski_kept_picky_9").len(), 4);
}
