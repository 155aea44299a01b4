//! Tables are never dropped on a replica: what would go is set aside with its rows, under another name that no schema,
//! changeset or comparison knows.

use std::collections::BTreeSet;

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Connection};

use super::diff::MigrateError;
use super::objects;
use super::sql::quote_name;
use crate::names::RESERVED_PREFIX;

/// A table that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name until then.
    pub table: String,
    /// Its name from then on: `_vski_kept_<table>_<version>`, with `_` added until nothing else has it.
    pub name: String,
}

/// Runs a master's statements verbatim, but for those that drop a table: each such table is set aside instead, with
/// everything else that DROP TABLE does. The caller's transaction is open, with foreign keys and triggers off.
///
/// Whether a statement drops a table is not read from its text. It runs inside a savepoint, and one after which a table
/// is gone and none is new has dropped it: ALTER TABLE RENAME makes a new name, and no statement drops and creates. Then
/// it is rolled back. Statements are told apart by SQLite itself.
pub fn run_keeping(conn: &Connection, statements: &[String], version: u64) -> Result<Vec<Kept>, MigrateError> {
    let mut kept = Vec::new();
    for text in statements {
        let failed = |source| MigrateError::Statement { statement: text.clone(), source };
        let mut batch = Batch::new(conn, text);
        loop {
            let before = tables(conn)?;
            conn.execute_batch("SAVEPOINT keeping")?;
            let Some(mut statement) = batch.next().map_err(failed)? else {
                conn.execute_batch("RELEASE keeping")?;
                break;
            };
            let mut rows = statement.raw_query();
            while rows.next().map_err(failed)?.is_some() {}
            drop(rows);
            drop(statement);
            let after = tables(conn)?;
            let gone: Vec<&String> = before.difference(&after).collect();
            if gone.is_empty() || after.difference(&before).next().is_some() {
                conn.execute_batch("RELEASE keeping")?;
                continue;
            }
            conn.execute_batch("ROLLBACK TO keeping; RELEASE keeping")?;
            for table in gone {
                kept.push(instead_of_drop(conn, table, version)?);
            }
        }
    }
    Ok(kept)
}

/// What DROP TABLE does, its indexes and triggers included, but that the rows stay.
fn instead_of_drop(conn: &Connection, table: &str, version: u64) -> Result<Kept, MigrateError> {
    for object in objects(conn)?.iter().filter(|object| object.table.eq_ignore_ascii_case(table)) {
        if matches!(object.kind.as_str(), "trigger" | "index") {
            let drop = format!("DROP {} {}", object.kind.to_uppercase(), quote_name(&object.name));
            super::diff::run(conn, &[drop])?;
        }
    }
    move_aside(conn, table, version)
}

/// Gives a table the name under which it is kept. References of other tables, views and triggers stay as they are, as
/// they do when a table is dropped: a plain RENAME would rewrite them, and fail on those that are broken.
///
/// A table with foreign keys is kept as a copy without them: where this node becomes the master and enforces them, rows
/// that nobody sees would hold on to rows of living tables.
pub(super) fn move_aside(conn: &Connection, table: &str, version: u64) -> Result<Kept, MigrateError> {
    let name = free_name(conn, table, version)?;
    let (from, to) = (quote_name(table), quote_name(&name));
    if conn.prepare("SELECT 1 FROM pragma_foreign_key_list(?1)")?.exists([table])? {
        let copy = [format!("CREATE TABLE {to} AS SELECT * FROM {from}"), format!("DROP TABLE {from}")];
        super::diff::run(conn, &copy)?;
        return Ok(Kept { table: table.to_owned(), name });
    }
    let rename = format!("ALTER TABLE {from} RENAME TO {to}");
    conn.execute_batch("PRAGMA legacy_alter_table = ON")?;
    let renamed = super::diff::run(conn, &[rename]);
    conn.execute_batch("PRAGMA legacy_alter_table = OFF")?;
    renamed.map(|()| Kept { table: table.to_owned(), name })
}

fn free_name(conn: &Connection, table: &str, version: u64) -> rusqlite::Result<String> {
    let mut name = format!("{RESERVED_PREFIX}kept_{table}_{version}");
    let mut taken = conn.prepare("SELECT 1 FROM sqlite_master WHERE name = ?1 COLLATE NOCASE")?;
    while taken.exists([&name])? {
        name.push('_');
    }
    Ok(name)
}

fn tables(conn: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    Ok(objects(conn)?.into_iter().filter(|object| object.kind == "table").map(|object| object.name).collect())
}

#[cfg(test)]
mod tests;
