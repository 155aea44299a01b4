//! Cutting the log from below: by age, by size, in bounded steps.
//!
//! A step deletes the oldest entries and moves the base row up to the last of them, in the caller's transaction: the
//! base then says of the history below it all that later questions need (position, schema, how many schema entries,
//! how many bytes were there). The head is never removed, so a node always knows its own position.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{signed, unsigned};
use super::{LogError, base, head, position_at, schema_at, traces};
use crate::position::Position;
use crate::ranges::Overview;

/// Most entries that one step removes: a writer waits for no longer than that takes.
pub const STEP_ENTRIES: u64 = 1_000;

/// Payload bytes after which a step ends.
pub const STEP_BYTES: u64 = 16 << 20;

/// How much history a node keeps for others. Whatever exceeds one of the two goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Entries older than this go.
    pub max_age: Duration,
    /// The oldest entries go while the payloads of all are more than this, bytes.
    pub max_bytes: u64,
}

impl Retention {
    /// Commit time before which entries are too old at `now_ms`.
    #[must_use]
    pub fn oldest_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(i64::try_from(self.max_age.as_millis()).unwrap_or(i64::MAX))
    }
}

/// What one step may remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Entries committed before this go, ms since 1970.
    pub before_ms: i64,
    /// So many payload bytes go, whatever their age.
    pub excess_bytes: u64,
    /// Entries after this version stay: somebody still needs them.
    pub up_to: u64,
}

impl Cut {
    /// What a log of `bytes` exceeds its retention by, with nobody who needs more.
    #[must_use]
    pub fn of(retention: Retention, bytes: u64, now_ms: i64) -> Self {
        Self {
            before_ms: retention.oldest_ms(now_ms),
            excess_bytes: bytes.saturating_sub(retention.max_bytes),
            up_to: u64::MAX,
        }
    }
}

/// What one step removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Entries.
    pub entries: u64,
    /// Their payloads, bytes.
    pub bytes: u64,
    /// Whether the step ended by its own bound, so that there is more to remove.
    pub more: bool,
}

/// Removes the oldest entries that `cut` names, as many as one step may, and moves the base up. The caller commits.
pub fn prune(conn: &Connection, cut: Cut) -> Result<Pruned, LogError> {
    upgrade(conn)?;
    let (pruned, last) = measure(conn, cut)?;
    let Some(last) = last else { return Ok(pruned) };
    let at = head_at(conn, last)?;
    // Looked up before the entry that tells it is gone.
    let objects = schema_at(conn, last)?.map(|objects| serde_json::to_string(&objects)).transpose();
    let objects = objects.map_err(|error| LogError::Damaged(error.to_string()))?;
    conn.prepare_cached(
        "UPDATE _vski_base SET generation = ?1, epoch = ?2, version = ?3, chain = ?4, schema_hash = ?5,
             committed_ms = ?6, objects = ?7, pruned_bytes = pruned_bytes + ?8, schema_version = schema_version
             + (SELECT count(*) FROM _vski_changelog WHERE kind = 'schema' AND version <= ?3)",
    )?
    .execute(params![
        signed(at.position.epoch.generation),
        at.position.epoch.id.0,
        signed(last),
        at.position.chain.0,
        at.schema_hash.0,
        at.committed_ms,
        objects,
        signed(pruned.bytes),
    ])?;
    conn.prepare_cached("DELETE FROM _vski_changelog WHERE version <= ?1")?.execute([signed(last)])?;
    traces::delete(conn, last)?;
    Ok(pruned)
}

/// Whether [`prune`] would remove anything.
pub fn exceeds(conn: &Connection, cut: Cut) -> Result<bool, LogError> {
    Ok(measure(conn, cut)?.1.is_some())
}

/// Makes the base row of a file from before there was pruning fit for it, and the table of traces. Does nothing to
/// others. For the lock holder, when it opens a file.
pub fn upgrade(conn: &Connection) -> Result<(), LogError> {
    traces::create(conn)?;
    if !has_objects(conn)? {
        conn.execute_batch(
            "ALTER TABLE _vski_base ADD COLUMN objects TEXT;
             ALTER TABLE _vski_base ADD COLUMN pruned_bytes INTEGER NOT NULL DEFAULT 0",
        )?;
    }
    Ok(())
}

/// Forgets all entries and stands where a snapshot stands: what this log said before is no part of its history.
pub fn replace(conn: &Connection, overview: &Overview) -> Result<(), LogError> {
    upgrade(conn)?;
    conn.execute("DELETE FROM _vski_changelog", [])?;
    traces::delete(conn, u64::MAX)?;
    let Position { epoch, version, chain } = overview.position;
    let objects = serde_json::to_string(&overview.objects).expect("strings always serialise");
    conn.execute(
        "UPDATE _vski_base SET generation = ?1, epoch = ?2, version = ?3, chain = ?4, schema_hash = ?5,
         schema_version = ?6, committed_ms = ?7, objects = ?8, pruned_bytes = 0",
        params![
            signed(epoch.generation),
            epoch.id.0,
            signed(version),
            chain.0,
            overview.schema_hash.0,
            signed(overview.schema_version),
            overview.committed_ms,
            objects,
        ],
    )?;
    Ok(())
}

/// Whether the base row can tell a schema and a count of bytes.
pub(super) fn has_objects(conn: &Connection) -> Result<bool, LogError> {
    let mut statement =
        conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM pragma_table_info('_vski_base') WHERE name = 'objects')")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

/// The last version that goes, and what goes with it.
fn measure(conn: &Connection, cut: Cut) -> Result<(Pruned, Option<u64>), LogError> {
    let end = head(conn)?.position.version.saturating_sub(1).min(cut.up_to);
    let mut statement = conn.prepare_cached(
        "SELECT version, committed_ms, length(payload) FROM _vski_changelog WHERE version <= ?1 ORDER BY version",
    )?;
    let mut rows = statement.query([signed(end)])?;
    let (mut pruned, mut last) = (Pruned::default(), None);
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(1)? >= cut.before_ms && pruned.bytes >= cut.excess_bytes {
            break;
        }
        if pruned.entries == STEP_ENTRIES || pruned.bytes >= STEP_BYTES {
            pruned.more = true;
            break;
        }
        last = Some(unsigned(row.get(0)?)?);
        pruned.entries += 1;
        pruned.bytes += unsigned(row.get(2)?)?;
    }
    Ok((pruned, last))
}

fn head_at(conn: &Connection, version: u64) -> Result<super::Head, LogError> {
    let entry = super::entry(conn, version)?;
    entry.as_ref().map(super::Head::after).ok_or_else(|| LogError::Damaged(format!("entry {version} is missing")))
}

/// The payload bytes of the entries after `version`, without reading the payloads.
pub fn bytes_after(conn: &Connection, version: u64) -> Result<u64, LogError> {
    let mut statement =
        conn.prepare_cached("SELECT coalesce(sum(length(payload)), 0) FROM _vski_changelog WHERE version > ?1")?;
    unsigned(statement.query_row([signed(version)], |row| row.get(0))?)
}

/// The size of a log, kept up to date by looking only at what is new.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSize {
    counted: Option<Counted>,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    /// The head when it was counted.
    upto: Position,
    /// What had been pruned by then.
    pruned_bytes: u64,
    bytes: u64,
}

impl LogSize {
    /// Payload bytes in the log, if that was counted when it ended at `head` and nothing was removed since.
    #[must_use]
    pub fn at(&self, head: Position) -> Option<u64> {
        self.counted.filter(|counted| counted.upto == head).map(|counted| counted.bytes)
    }

    /// Entries of so many payload bytes follow what was counted, the last of them at `head`. For the one who appends.
    pub fn appended(&mut self, head: Position, bytes: u64) {
        if let Some(counted) = &mut self.counted {
            (counted.upto, counted.bytes) = (head, counted.bytes + bytes);
        }
    }

    /// Payload bytes in the log, as this connection sees it.
    pub fn refresh(&mut self, conn: &Connection) -> Result<u64, LogError> {
        let (upto, pruned_bytes) = (head(conn)?.position, pruned_bytes(conn)?);
        // Another history, or one that was cut beyond what was counted, is counted anew.
        let known = match self.counted {
            Some(known) if position_at(conn, known.upto.version)? == Some(known.upto) => pruned_bytes
                .checked_sub(known.pruned_bytes)
                .and_then(|pruned| known.bytes.checked_sub(pruned))
                .map(|left| (known.upto.version, left)),
            _ => None,
        };
        let (from, left) = match known {
            Some(known) => known,
            None => (base(conn)?.position.version, 0),
        };
        let bytes = left + bytes_after(conn, from)?;
        self.counted = Some(Counted { upto, pruned_bytes, bytes });
        Ok(bytes)
    }
}

fn pruned_bytes(conn: &Connection) -> Result<u64, LogError> {
    if !has_objects(conn)? {
        return Ok(0);
    }
    let mut statement = conn.prepare_cached("SELECT pruned_bytes FROM _vski_base")?;
    unsigned(statement.query_row([], |row| row.get(0)).optional()?.unwrap_or(0))
}

#[cfg(test)]
mod tests;
