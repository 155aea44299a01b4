//! The log inside each database: one entry per committed transaction, written by that very transaction.
//!
//! Invariants: versions are contiguous from the base; each entry's chain follows from the one before; the base row
//! is the position before the first stored entry, so that the log can be cut from below. Callers append inside the
//! transaction that makes the change: either both exist or neither.

use rusqlite::{Connection, OptionalExtension, params};

use crate::entry::{Entry, Kind};
use crate::position::{Chain, Epoch, ParseError, Position, SchemaHash};
use crate::{chain, clock};

/// The tables.
mod tables;

/// How rows are read.
mod rows;

/// Where a peer stands.
mod standing;

/// Which schema was in force.
mod schemas;

/// Cutting the log from below.
mod prune;

/// The traces of entries, in a table beside the log.
mod traces;

use rows::{ENTRY_COLUMNS, entry_row, head_row, signed};
use tables::FORMAT;

pub use prune::{
    Cut, LogSize, Pruned, Retention, STEP_BYTES, STEP_ENTRIES, bytes_after, exceeds, prune, replace, upgrade,
};
pub use schemas::{schema_at, schema_version, schema_version_at};
pub use standing::{Contains, Standing, contains, standing, standing_between};
pub use tables::{create, database_id};

/// A log that cannot be read or extended.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file is no VSKI database, or one of another layout.
    #[error("this file has no VSKI changelog of format {FORMAT}{0}")]
    NotOurs(String),
    /// A stored value is not what this program writes there.
    #[error("the changelog is damaged: {0}")]
    Damaged(String),
    /// SQLite failed.
    #[error("access the changelog")]
    Sqlite(#[from] rusqlite::Error),
}

impl From<ParseError> for LogError {
    fn from(error: ParseError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Position of the last entry, or of the base where there is none.
    pub position: Position,
    /// The schema there.
    pub schema_hash: SchemaHash,
    /// When that entry was committed, ms since 1970.
    pub committed_ms: i64,
}

impl Head {
    /// The entry that follows this head: same epoch unless `epoch` begins a new one.
    #[must_use]
    pub fn next(&self, kind: Kind, epoch: Epoch, schema_hash: SchemaHash, payload: Vec<u8>) -> Entry {
        let mut entry = Entry {
            version: self.position.version + 1,
            kind,
            epoch,
            schema_hash,
            committed_ms: clock::now_ms().max(self.committed_ms),
            payload,
            chain: Chain([0; 32]),
            trace: None,
        };
        entry.chain = chain::next(self.position.chain, &entry);
        entry
    }

    /// This head once `entry` follows it.
    #[must_use]
    pub fn after(entry: &Entry) -> Self {
        Self { position: entry.position(), schema_hash: entry.schema_hash, committed_ms: entry.committed_ms }
    }
}

/// The position before the first stored entry.
pub fn base(conn: &Connection) -> Result<Head, LogError> {
    let mut statement =
        conn.prepare_cached("SELECT generation, epoch, version, chain, schema_hash, committed_ms FROM _vski_base")?;
    statement.query_row([], |row| Ok(head_row(row)))?
}

/// Where the log ends.
pub fn head(conn: &Connection) -> Result<Head, LogError> {
    let mut statement = conn.prepare_cached(
        "SELECT generation, epoch, version, chain, schema_hash, committed_ms FROM _vski_changelog
         ORDER BY version DESC LIMIT 1",
    )?;
    match statement.query_row([], |row| Ok(head_row(row))).optional()? {
        Some(head) => head,
        None => base(conn),
    }
}

/// Adds an entry at the head. The caller's transaction also holds the change it describes.
pub fn append(conn: &Connection, entry: &Entry) -> Result<(), LogError> {
    let mut statement = conn.prepare_cached("INSERT INTO _vski_changelog VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    statement.execute(params![
        signed(entry.version),
        entry.kind.name(),
        signed(entry.epoch.generation),
        entry.epoch.id.0,
        entry.schema_hash.0,
        entry.committed_ms,
        entry.chain.0,
        entry.payload,
    ])?;
    traces::append(conn, entry)
}

/// The entries after `version`, in order: at least one if there is one, then as many as fit into `max_bytes` of payload.
pub fn read_after(conn: &Connection, version: u64, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
    let trace = traces::column(conn)?;
    let sql = format!("SELECT {ENTRY_COLUMNS}, {trace} FROM _vski_changelog WHERE version > ?1 ORDER BY version");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([signed(version)])?;
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let entry = entry_row(row)?;
        bytes += entry.payload.len();
        if bytes > max_bytes && !entries.is_empty() {
            break;
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// The stored entry with this version.
pub fn entry(conn: &Connection, version: u64) -> Result<Option<Entry>, LogError> {
    let trace = traces::column(conn)?;
    let sql = format!("SELECT {ENTRY_COLUMNS}, {trace} FROM _vski_changelog WHERE version = ?1");
    let mut statement = conn.prepare_cached(&sql)?;
    statement.query_row([signed(version)], |row| Ok(entry_row(row))).optional()?.transpose()
}

/// This log's position at `version`, the base included.
pub fn position_at(conn: &Connection, version: u64) -> Result<Option<Position>, LogError> {
    let mut statement = conn.prepare_cached(
        "SELECT generation, epoch, version, chain, schema_hash, committed_ms FROM _vski_changelog WHERE version = ?1
         UNION ALL SELECT generation, epoch, version, chain, schema_hash, committed_ms FROM _vski_base WHERE version = ?1",
    )?;
    let head = statement.query_row([signed(version)], |row| Ok(head_row(row))).optional()?.transpose()?;
    Ok(head.map(|head| head.position))
}

/// When the stored entry with this version was committed, ms since 1970.
pub fn committed_ms(conn: &Connection, version: u64) -> Result<Option<i64>, LogError> {
    let mut statement = conn.prepare_cached("SELECT committed_ms FROM _vski_changelog WHERE version = ?1")?;
    Ok(statement.query_row([signed(version)], |row| row.get(0)).optional()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::DatabaseId;

    pub(super) fn log(entries: u64) -> (Connection, Vec<Position>) {
        let conn = Connection::open_in_memory().unwrap();
        let mut head = create(&conn, DatabaseId([1; 16])).unwrap();
        let mut positions = vec![head.position];
        for n in 0..entries {
            let entry = head.next(Kind::Changes, head.position.epoch, head.schema_hash, vec![0; 10 + n as usize]);
            append(&conn, &entry).unwrap();
            head = Head::after(&entry);
            positions.push(head.position);
        }
        (conn, positions)
    }

    #[test]
    fn the_head_of_an_empty_log_is_its_base_and_then_its_last_entry() {
        let (conn, positions) = log(0);
        assert_eq!(head(&conn).unwrap().position, positions[0]);
        let (conn, positions) = log(3);
        assert_eq!(head(&conn).unwrap().position, positions[3]);
        assert_eq!(base(&conn).unwrap().position, positions[0]);
    }

    #[test]
    fn entries_come_in_order_and_in_bounded_batches_of_at_least_one() {
        let (conn, positions) = log(5);
        let all = read_after(&conn, 0, usize::MAX).unwrap();
        assert_eq!(all.iter().map(Entry::position).collect::<Vec<_>>(), positions[1..]);
        assert_eq!(read_after(&conn, 2, 0).unwrap().len(), 1);
        assert_eq!(read_after(&conn, 0, 21).unwrap().len(), 2);
        assert!(read_after(&conn, 5, usize::MAX).unwrap().is_empty());
    }

    #[test]
    fn a_file_without_a_log_or_of_another_format_is_refused() {
        let conn = Connection::open_in_memory().unwrap();
        assert!(matches!(database_id(&conn), Err(LogError::NotOurs(_))));
        let (conn, _) = log(0);
        conn.execute_batch("UPDATE _vski_meta SET format = 99").unwrap();
        assert!(database_id(&conn).unwrap_err().to_string().contains("format 99"));
    }
}
