//! The gate: which tables a changeset cannot carry faithfully, and why.
//!
//! SQLite's session extension skips tables without a primary key and rows with a NULL in it without a word, and
//! tears rows apart whose key is compared under a collation; virtual tables are not captured but their shadow
//! tables are; AUTOINCREMENT's counter is not captured at all. All of these are refused where they are made and
//! when a database is opened, instead of diverging later.

use rusqlite::Connection;

use super::sql::{quote_name, tokens};
use super::{Object, objects};

/// A table or view that cannot be replicated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name} {reason}")]
pub struct Problem {
    /// `table`, `view` …
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

/// Everything in this database that cannot be replicated; empty is good.
pub fn problems(conn: &Connection) -> rusqlite::Result<Vec<Problem>> {
    let mut found = Vec::new();
    for object in objects(conn)? {
        if let Some(reason) = problem(conn, &object)? {
            found.push(Problem { kind: object.kind, name: object.name, reason });
        }
    }
    Ok(found)
}

fn problem(conn: &Connection, object: &Object) -> rusqlite::Result<Option<String>> {
    match object.kind.as_str() {
        "table" => {
            let tokens = tokens(&object.sql);
            if tokens.get(1).is_some_and(|token| token.is("virtual")) {
                return Ok(Some("is virtual, and changes to virtual tables cannot be captured".into()));
            }
            if tokens.iter().any(|token| token.is("autoincrement")) {
                return Ok(Some("uses AUTOINCREMENT, whose counter cannot be captured: leave the word out".into()));
            }
            if let Some(reason) = key_problem(conn, &object.name)? {
                return Ok(Some(reason.into()));
            }
            Ok(compile_problem(conn, &object.name))
        }
        "view" => Ok(compiles(conn, &format!("SELECT * FROM {}", quote_name(&object.name)))),
        _ => Ok(None),
    }
}

fn key_problem(conn: &Connection, table: &str) -> rusqlite::Result<Option<&'static str>> {
    let mut statement = conn.prepare_cached("SELECT type, \"notnull\" FROM pragma_table_info(?1) WHERE pk > 0")?;
    let keys: Vec<(String, bool)> =
        statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Ok(Some("has no primary key: add one, such as id TEXT PRIMARY KEY NOT NULL"));
    }
    let mut statement = conn.prepare_cached("SELECT name FROM pragma_index_list(?1) WHERE origin = 'pk'")?;
    let index: Option<String> = statement.query_map([table], |row| row.get(0))?.next().transpose()?;
    let Some(index) = index else {
        return Ok(None); // INTEGER PRIMARY KEY: the rowid itself, never NULL, never collated.
    };
    if keys.iter().any(|(_, not_null)| !not_null) {
        return Ok(Some("has a primary key that may be NULL: declare its columns NOT NULL"));
    }
    let mut statement =
        conn.prepare_cached("SELECT count(*) FROM pragma_index_xinfo(?1) WHERE key AND coll <> 'BINARY'")?;
    let collated: i64 = statement.query_row([&index], |row| row.get(0))?;
    Ok((collated > 0).then_some("has a primary key with a collation: only BINARY keys can be captured"))
}

/// Compiling a write also compiles the table's checks, generated columns, index expressions and triggers, so a
/// function that plain SQLite lacks shows here.
fn compile_problem(conn: &Connection, table: &str) -> Option<String> {
    let table = quote_name(table);
    let statements = [format!("INSERT INTO {table} DEFAULT VALUES"), format!("DELETE FROM {table}")];
    statements.iter().find_map(|statement| compiles(conn, statement)).or_else(|| update_problem(conn, &table))
}

fn update_problem(conn: &Connection, quoted: &str) -> Option<String> {
    let column = conn.prepare(&format!("SELECT * FROM {quoted}")).ok()?.column_name(0).ok()?.to_owned();
    let column = quote_name(&column);
    compiles(conn, &format!("UPDATE {quoted} SET {column} = {column}"))
        .filter(|reason| !reason.contains("generated column"))
}

fn compiles(conn: &Connection, sql: &str) -> Option<String> {
    let error = conn.prepare(sql).err()?;
    Some(format!("cannot be used with plain SQLite: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(sql: &str) -> Vec<String> {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(sql).unwrap();
        problems(&conn).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn tables_with_a_plain_not_null_key_pass() {
        let sql = "CREATE TABLE a (id TEXT PRIMARY KEY NOT NULL, x); CREATE TABLE b (id INTEGER PRIMARY KEY);
            CREATE TABLE c (x NOT NULL, y NOT NULL, PRIMARY KEY (y, x)) WITHOUT ROWID; CREATE VIEW v AS SELECT x FROM a;
            CREATE TABLE d (g AS (id || 'x'), id TEXT PRIMARY KEY NOT NULL);
            CREATE TRIGGER t AFTER UPDATE ON a BEGIN DELETE FROM b; END;";
        assert_eq!(reasons(sql), Vec::<String>::new());
    }

    #[test]
    fn each_unsafe_table_is_refused_with_its_reason() {
        for (sql, reason) in [
            ("CREATE TABLE t (a)", "no primary key"),
            ("CREATE TABLE t (a TEXT PRIMARY KEY)", "may be NULL"),
            ("CREATE TABLE t (a TEXT COLLATE NOCASE PRIMARY KEY NOT NULL)", "collation"),
            ("CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT)", "AUTOINCREMENT"),
            ("CREATE VIRTUAL TABLE t USING dbstat", "virtual"),
            (
                "CREATE TABLE t (a INTEGER PRIMARY KEY); CREATE TRIGGER g AFTER UPDATE ON t BEGIN SELECT mine(1); END",
                "mine",
            ),
            ("CREATE VIEW t AS SELECT mine(1)", "mine"),
        ] {
            let found = reasons(sql);
            assert!(found.iter().any(|found| found.contains(reason)), "{sql}: {found:?}");
        }
    }
}
