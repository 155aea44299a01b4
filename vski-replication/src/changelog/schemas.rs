//! The schemas that a history went through: how many, and which was in force where.

use rusqlite::{Connection, OptionalExtension};

use super::rows::{damaged, signed, unsigned};
use super::{LogError, entry, prune};
use crate::schema::Object;

/// How many schema entries the history has (the specification's `schemaVersion`).
pub fn schema_version(conn: &Connection) -> Result<u64, LogError> {
    let mut statement = conn.prepare_cached(
        "SELECT (SELECT schema_version FROM _vski_base) + (SELECT count(*) FROM _vski_changelog WHERE kind = 'schema')",
    )?;
    unsigned(statement.query_row([], |row| row.get(0))?)
}

/// How many schema entries there are up to `version`.
pub fn schema_version_at(conn: &Connection, version: u64) -> Result<u64, LogError> {
    let mut statement = conn.prepare_cached(
        "SELECT (SELECT schema_version FROM _vski_base)
              + (SELECT count(*) FROM _vski_changelog WHERE kind = 'schema' AND version <= ?1)",
    )?;
    unsigned(statement.query_row([signed(version)], |row| row.get(0))?)
}

/// The schema in force at `version`: that of the last schema entry up to it, else that of the base. `None` below the
/// base, and where the base does not tell it.
pub fn schema_at(conn: &Connection, version: u64) -> Result<Option<Vec<Object>>, LogError> {
    let mut statement =
        conn.prepare_cached("SELECT max(version) FROM _vski_changelog WHERE kind = 'schema' AND version <= ?1")?;
    let at: Option<i64> = statement.query_row([signed(version)], |row| row.get(0))?;
    let Some(at) = at else { return base_schema(conn, version) };
    let Some(entry) = entry(conn, unsigned(at)?)? else { return Ok(None) };
    let (change, _) = entry.schema_change().map_err(|error| LogError::Damaged(error.to_string()))?;
    Ok(Some(change.objects))
}

fn base_schema(conn: &Connection, version: u64) -> Result<Option<Vec<Object>>, LogError> {
    if !prune::has_objects(conn)? {
        return Ok(None);
    }
    let mut statement = conn.prepare_cached("SELECT objects FROM _vski_base WHERE version <= ?1")?;
    let objects: Option<Option<String>> = statement.query_row([signed(version)], |row| row.get(0)).optional()?;
    objects.flatten().map(|json| serde_json::from_str(&json).map_err(damaged)).transpose()
}
