//! The log inside each database: one entry per committed transaction, written by that very transaction.
//!
//! Invariants: versions are contiguous from the base; each entry's chain follows from the one before; the base row
//! is the position before the first stored entry, so that the log can be cut from below. Callers append inside the
//! transaction that makes the change: either both exist or neither.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::entry::{Entry, Kind};
use crate::position::{Chain, DatabaseId, Epoch, EpochId, ParseError, Position, SchemaHash};
use crate::schema::Object;
use crate::{chain, clock};

mod prune;

/// The traces of entries, in a table beside the log.
mod traces;

pub use prune::{
    Cut, LogSize, Pruned, Retention, STEP_BYTES, STEP_ENTRIES, bytes_after, exceeds, prune, replace, upgrade,
};

/// The layout of our own tables. A database with another one is refused.
const FORMAT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE _vski_meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        format INTEGER NOT NULL,
        database_id BLOB NOT NULL
    );
    CREATE TABLE _vski_base (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        generation INTEGER NOT NULL,
        epoch BLOB NOT NULL,
        version INTEGER NOT NULL,
        chain BLOB NOT NULL,
        schema_hash BLOB NOT NULL,
        schema_version INTEGER NOT NULL,
        committed_ms INTEGER NOT NULL,
        objects TEXT,
        pruned_bytes INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE _vski_changelog (
        version INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        generation INTEGER NOT NULL,
        epoch BLOB NOT NULL,
        schema_hash BLOB NOT NULL,
        committed_ms INTEGER NOT NULL,
        chain BLOB NOT NULL,
        payload BLOB NOT NULL
    );
    -- Small: finding the schema in force somewhere must not read every payload.
    CREATE INDEX _vski_changelog_schema ON _vski_changelog (version) WHERE kind = 'schema';";

const ENTRY_COLUMNS: &str = "version, kind, generation, epoch, schema_hash, committed_ms, chain, payload";

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

/// Makes the log tables of a new database, with an empty history in generation 1.
pub fn create(conn: &Connection, id: DatabaseId) -> Result<Head, LogError> {
    conn.execute_batch(TABLES)?;
    traces::create(conn)?;
    conn.execute("INSERT INTO _vski_meta VALUES (1, ?1, ?2)", params![FORMAT, id.0])?;
    let (epoch, chain) = (Epoch { generation: 1, id: EpochId::random() }, chain::genesis(id));
    let (objects, committed_ms) = (crate::schema::objects(conn)?, clock::now_ms());
    let schema_hash = crate::schema::hash_objects(&objects);
    let objects = serde_json::to_string(&objects).expect("strings always serialise");
    conn.execute(
        "INSERT INTO _vski_base (one, generation, epoch, version, chain, schema_hash, schema_version, committed_ms, objects)
         VALUES (1, ?1, ?2, 0, ?3, ?4, 0, ?5, ?6)",
        params![signed(epoch.generation), epoch.id.0, chain.0, schema_hash.0, committed_ms, objects],
    )?;
    Ok(Head { position: Position { epoch, version: 0, chain }, schema_hash, committed_ms })
}

/// The database's id, once its log is known to be of this program's format.
pub fn database_id(conn: &Connection) -> Result<DatabaseId, LogError> {
    let found = conn.query_row("SELECT format, database_id FROM _vski_meta", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
    });
    match found {
        Ok((FORMAT, id)) => Ok(DatabaseId::from_slice(&id)?),
        Ok((format, _)) => Err(LogError::NotOurs(format!(" but of format {format}"))),
        Err(error) if error.to_string().contains("no such table") => Err(LogError::NotOurs(String::new())),
        Err(error) => Err(error.into()),
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

/// What a node's log says to a peer that stands at some position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The peer stands at this log's head.
    AtHead,
    /// This log has the peer's position and entries after it.
    Behind,
    /// This log has another history there, or none. Both agree no later than `common`.
    Diverged {
        /// The last position both may share; what they share beyond it is nothing.
        common: Position,
    },
    /// The entries after the peer's position are gone: the log begins at `base`.
    BelowBase {
        /// Position before the first stored entry.
        base: Position,
    },
}

/// Compares a peer's position with this log.
pub fn standing(conn: &Connection, peer: Position) -> Result<Standing, LogError> {
    let (head, base) = (head(conn)?.position, base(conn)?.position);
    if peer == head {
        return Ok(Standing::AtHead);
    }
    if peer.version < base.version {
        return Ok(Standing::BelowBase { base });
    }
    if position_at(conn, peer.version)? == Some(peer) {
        return Ok(Standing::Behind);
    }
    Ok(Standing::Diverged { common: common(conn, base, peer)? })
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

/// Whether this log contains the entry that some node wrote as `version` of `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contains {
    /// It does.
    Yes,
    /// It may once the log is longer.
    NotYet,
    /// It never will, or cannot tell any more: another history, or an epoch that ended below the log's base.
    No,
}

/// Looks for an entry by the part of its position that a client keeps.
pub fn contains(conn: &Connection, epoch: Epoch, version: u64) -> Result<Contains, LogError> {
    let (head, base) = (head(conn)?.position, base(conn)?.position);
    if epoch.generation > head.epoch.generation || (epoch == head.epoch && version > head.version) {
        return Ok(Contains::NotYet);
    }
    // Below the base only its own epoch is known; above it, who wrote each version.
    let wrote = if version < base.version { Some(base.epoch) } else { position_at(conn, version)?.map(|at| at.epoch) };
    Ok(if wrote == Some(epoch) { Contains::Yes } else { Contains::No })
}

/// When the stored entry with this version was committed, ms since 1970.
pub fn committed_ms(conn: &Connection, version: u64) -> Result<Option<i64>, LogError> {
    let mut statement = conn.prepare_cached("SELECT committed_ms FROM _vski_changelog WHERE version = ?1")?;
    Ok(statement.query_row([signed(version)], |row| row.get(0)).optional()?)
}

/// The last position of ours below the peer's that the peer's epoch, or an older one, wrote.
fn common(conn: &Connection, base: Position, peer: Position) -> Result<Position, LogError> {
    let mut statement = conn.prepare_cached(
        "SELECT max(version) FROM _vski_changelog
         WHERE version < ?1 AND ((generation = ?2 AND epoch = ?3) OR generation < ?2)",
    )?;
    let at = params![signed(peer.version), signed(peer.epoch.generation), peer.epoch.id.0];
    let version: Option<i64> = statement.query_row(at, |row| row.get(0))?;
    match version {
        Some(version) => Ok(position_at(conn, unsigned(version)?)?.unwrap_or(base)),
        None => Ok(base),
    }
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

fn head_row(row: &Row<'_>) -> Result<Head, LogError> {
    let position = Position {
        epoch: Epoch {
            generation: unsigned(row.get(0)?)?,
            id: EpochId::from_slice(row.get_ref(1)?.as_blob().map_err(damaged)?)?,
        },
        version: unsigned(row.get(2)?)?,
        chain: Chain::from_slice(row.get_ref(3)?.as_blob().map_err(damaged)?)?,
    };
    let schema_hash = SchemaHash::from_slice(row.get_ref(4)?.as_blob().map_err(damaged)?)?;
    Ok(Head { position, schema_hash, committed_ms: row.get(5)? })
}

fn entry_row(row: &Row<'_>) -> Result<Entry, LogError> {
    let kind: String = row.get(1)?;
    Ok(Entry {
        version: unsigned(row.get(0)?)?,
        kind: Kind::from_name(&kind).ok_or_else(|| LogError::Damaged(format!("unknown kind {kind:?}")))?,
        epoch: Epoch {
            generation: unsigned(row.get(2)?)?,
            id: EpochId::from_slice(row.get_ref(3)?.as_blob().map_err(damaged)?)?,
        },
        schema_hash: SchemaHash::from_slice(row.get_ref(4)?.as_blob().map_err(damaged)?)?,
        committed_ms: row.get(5)?,
        chain: Chain::from_slice(row.get_ref(6)?.as_blob().map_err(damaged)?)?,
        payload: row.get(7)?,
        trace: traces::read(row.get_ref(8)?),
    })
}

fn damaged(error: impl std::fmt::Display) -> LogError {
    LogError::Damaged(error.to_string())
}

/// Versions and generations count up from 0 one by one: they never reach 2^63.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> Result<u64, LogError> {
    u64::try_from(number).map_err(|_| LogError::Damaged(format!("negative number {number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(entries: u64) -> (Connection, Vec<Position>) {
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
    fn a_peer_is_at_the_head_behind_or_diverged() {
        let (conn, positions) = log(5);
        assert_eq!(standing(&conn, positions[5]).unwrap(), Standing::AtHead);
        for position in &positions[..5] {
            assert_eq!(standing(&conn, *position).unwrap(), Standing::Behind);
        }
        let forked = Position { chain: Chain([9; 32]), ..positions[3] };
        assert_eq!(standing(&conn, forked).unwrap(), Standing::Diverged { common: positions[2] });
        let ahead = Position { version: 9, ..forked };
        assert_eq!(standing(&conn, ahead).unwrap(), Standing::Diverged { common: positions[5] });
        let other = Position { epoch: Epoch { generation: 1, id: EpochId([0; 8]) }, ..forked };
        assert_eq!(standing(&conn, other).unwrap(), Standing::Diverged { common: positions[0] });
    }

    #[test]
    fn a_peer_below_the_base_is_told_so() {
        let (conn, positions) = log(5);
        let base = positions[2];
        prune(&conn, Cut { before_ms: i64::MAX, excess_bytes: 0, up_to: 2 }).unwrap();
        assert_eq!(standing(&conn, positions[1]).unwrap(), Standing::BelowBase { base });
        assert_eq!(standing(&conn, base).unwrap(), Standing::Behind);
    }

    #[test]
    fn a_log_contains_what_its_lineage_wrote_and_nothing_of_another_branch() {
        let (conn, positions) = log(3);
        let first = positions[3].epoch;
        let second = Epoch { generation: 2, id: EpochId([2; 8]) };
        let other = Epoch { generation: 1, id: EpochId([3; 8]) };
        let mut head = head(&conn).unwrap();
        assert_eq!(contains(&conn, second, 4).unwrap(), Contains::NotYet, "a newer generation may still come");
        assert_eq!(contains(&conn, first, 4).unwrap(), Contains::NotYet);
        for kind in [Kind::Epoch, Kind::Changes] {
            let entry = head.next(kind, second, head.schema_hash, Vec::new());
            append(&conn, &entry).unwrap();
            head = Head::after(&entry);
        }
        assert_eq!(contains(&conn, first, 3).unwrap(), Contains::Yes);
        assert_eq!(contains(&conn, second, 5).unwrap(), Contains::Yes);
        assert_eq!(contains(&conn, second, 6).unwrap(), Contains::NotYet);
        assert_eq!(contains(&conn, first, 4).unwrap(), Contains::No, "the branch that was left at version 3");
        assert_eq!(contains(&conn, first, 9).unwrap(), Contains::No);
        assert_eq!(contains(&conn, other, 2).unwrap(), Contains::No);
        conn.execute_batch("DELETE FROM _vski_changelog WHERE version <= 2; UPDATE _vski_base SET version = 2")
            .unwrap();
        assert_eq!(contains(&conn, first, 1).unwrap(), Contains::Yes);
        assert_eq!(contains(&conn, other, 1).unwrap(), Contains::No);
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
