//! The one transaction of a converge: open from the schema to the log, rolled back whenever it is dropped before.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;
use vski_replication::changelog;
use vski_replication::connection;
use vski_replication::datadir::DataDir;
use vski_replication::fault;
use vski_replication::ranges::{Overview, RowHash, Shape, TableRanges, row_hash};
use vski_replication::schema::{self, Object, diff};

use super::Report;
use super::lost::Lost;
use super::spool::Spool;
use crate::error::{AgentError, chain};

/// Payload bytes of local entries that are read at once.
const ENTRIES_AT_ONCE: usize = 8 << 20;

/// Rows of a range that the copy lacks and nobody fetched yet: their places in the range, and their hashes.
pub(super) struct Difference {
    pub(super) missing: Vec<(usize, RowHash)>,
}

/// An open transaction on a database that is being made equal to a snapshot.
pub(super) struct Merge {
    conn: Connection,
    spool: Spool,
    lost: Lost,
    kept: Vec<String>,
    deleted: u64,
    inserted: u64,
    pub(super) fetched_bytes: u64,
}

impl Merge {
    /// Begins it, and makes the schema the snapshot's, but for indexes that are not here: the rows as they are may
    /// be such that they cannot be made.
    pub(super) fn begin(dir: &DataDir, db: &str, target: &Overview) -> Result<Self, AgentError> {
        let conn = connection::applier(&dir.database(db))?;
        conn.execute_batch("BEGIN IMMEDIATE")?;
        fault::sql("converge:begin")?;
        let position = changelog::head(&conn)?.position;
        let version = target.position.version;
        let here: HashSet<Object> = schema::objects(&conn)?.into_iter().collect();
        let early = |object: &&Object| object.kind != "index" || here.contains(*object);
        let early: Vec<Object> = target.objects.iter().filter(early).cloned().collect();
        let kept =
            diff::migrate_keeping(&conn, &early, version).map_err(|source| AgentError::unreachable(version, source))?;
        fault::sql("converge:schema")?;
        let (spool, lost) = (Spool::open(dir, db)?, Lost::new(dir, db, position));
        Ok(Self { conn, spool, lost, kept, deleted: 0, inserted: 0, fetched_bytes: 0 })
    }

    /// The ranges of a table as it is here.
    pub(super) fn ranges(&mut self, table: &str) -> Result<TableRanges, AgentError> {
        Ok(Shape::read(&self.conn, table)?.ranges(&self.conn)?)
    }

    /// Removes the rows of one range without an identical twin in the snapshot, and tells which are missing.
    /// `piece` is that range alone, with where it begins.
    pub(super) fn compare(&mut self, table: &str, piece: &Piece, theirs: &[RowHash]) -> Result<Difference, AgentError> {
        let shape = Shape::read(&self.conn, table)?;
        let wanted: HashSet<&RowHash> = theirs.iter().collect();
        let mut here = HashSet::new();
        let mut doomed: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        shape.scan(&self.conn, piece.start.as_ref(), piece.end.as_ref(), |key, row| {
            let hash = row_hash(row);
            if wanted.contains(&hash) {
                here.insert(hash);
            } else {
                doomed.insert(key.to_vec(), row.to_vec());
            }
        })?;
        for (key, row) in &doomed {
            self.lost.row(&shape, row)?;
            fault::sql("converge:delete")?;
            shape.delete(&self.conn, key)?;
        }
        self.deleted += doomed.len() as u64;
        let mut missing = Vec::new();
        for (place, hash) in theirs.iter().enumerate().filter(|(_, hash)| !here.contains(*hash)) {
            self.spool.want(hash)?;
            if !self.spool.has(hash)? {
                missing.push((place, *hash));
            }
        }
        Ok(Difference { missing })
    }

    /// Keeps fetched rows until all deletes of their table are done: swapped unique values would clash otherwise.
    pub(super) fn keep(&mut self, rows: &[Vec<u8>]) -> Result<(), AgentError> {
        self.spool.keep(rows)
    }

    /// Puts the missing rows of a table in place, and proves the ranges that differed.
    pub(super) fn insert_and_check(
        &mut self,
        table: &str,
        ranges: &TableRanges,
        differing: &[usize],
    ) -> Result<(), AgentError> {
        let shape = Shape::read(&self.conn, table)?;
        fault::sql("converge:insert")?;
        self.inserted += self.spool.take_wanted(|row| Ok(shape.insert(&self.conn, row)?))?;
        for &at in differing {
            let mut hashes = Vec::new();
            let (start, end) = (ranges.start(at), ranges.ranges[at].end.as_ref());
            shape.scan(&self.conn, start, end, |_, row| hashes.extend(row_hash(row)))?;
            if ranges.ranges[at].row_hashes(&hashes).is_err() {
                return Err(AgentError::Snapshot {
                    reason: format!("table {table} is still another one in range {at}"),
                });
            }
        }
        Ok(fault::sql("converge:table")?)
    }

    /// Makes the missing indexes and the log the snapshot's, and commits. Entries after version `agreed` are lost.
    pub(super) fn finish(self, overview: &Overview, agreed: u64) -> Result<Report, AgentError> {
        let Self { conn, spool, mut lost, kept, deleted, inserted, fetched_bytes } = self;
        let version = overview.position.version;
        diff::migrate(&conn, &overview.objects).map_err(|source| AgentError::unreachable(version, source))?;
        let mut after = agreed;
        loop {
            let entries = changelog::read_after(&conn, after, ENTRIES_AT_ONCE)?;
            let Some(last) = entries.last() else { break };
            after = last.version;
            entries.iter().try_for_each(|entry| lost.entry(entry))?;
        }
        changelog::replace(&conn, overview)?;
        fault::sql("converge:log")?;
        let lost = lost.finish()?;
        fault::sql("converge:before-commit")?;
        conn.execute_batch("COMMIT")?;
        fault::point("converge:after-commit");
        // It is done, and its report must be told: what fails from here on costs only space.
        if let Err(error) = spool.remove() {
            tracing::warn!(error = chain(&error), "could not remove rows that were fetched and are in place");
        }
        // The write-ahead log holds every page that changed; readers decide how far it can be emptied now.
        let emptied = fault::sql("converge:checkpoint")
            .and_then(|()| conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())));
        if let Err(error) = emptied {
            tracing::warn!(%error, "could not empty the write-ahead log after a converge");
        }
        Ok(Report { position: overview.position, kept, deleted, inserted, fetched_bytes, lost })
    }
}

/// One range: where it begins and ends.
pub(super) struct Piece {
    pub(super) start: Option<vski_replication::ranges::Hex>,
    pub(super) end: Option<vski_replication::ranges::Hex>,
}
