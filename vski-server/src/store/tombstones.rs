//! Databases that were deleted: rows of `_databases` in the default database, replicated, so that a promoted replica
//! knows them, too. A deleted database's files stay where they are, untouched and not opened, and so does its name: only
//! restoring brings either back.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::error::StoreError;
use super::ids;

/// The statement that makes the table of a default database.
pub const TABLE: &str = "CREATE TABLE _databases (name TEXT PRIMARY KEY NOT NULL, deleted TEXT NOT NULL)";

/// Whether the table is there: a default database that an older master made gets it when a newer one opens it.
pub fn has_table(conn: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_databases')";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// The names of all deleted databases.
pub fn all(conn: &Connection) -> Result<BTreeSet<String>, StoreError> {
    if !has_table(conn)? {
        return Ok(BTreeSet::new());
    }
    let mut statement = conn.prepare_cached("SELECT name FROM _databases")?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// Says that a database is deleted.
pub fn add(conn: &Connection, name: &str) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR IGNORE INTO _databases VALUES (?1, ?2)")?.execute([name, ids::now().as_str()])?;
    Ok(())
}

/// Takes that back.
pub fn remove(conn: &Connection, name: &str) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM _databases WHERE name = ?1")?.execute([name])?;
    Ok(())
}
