//! The one transaction of a converge: open from the schema to the log, rolled back whenever it is dropped before.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{Connection, InterruptHandle};
use vski_replication::datadir::DataDir;
use vski_replication::ranges::{
    Hex, Listed, Overview, Range, RangeList, RangesHasher, RowHash, Shape, TableDigest, row_hash,
};
use vski_replication::schema::diff;
use vski_replication::{changelog, connection, fault, schema};

use super::Report;
use super::lost::Lost;
use super::spool::Spool;
use crate::error::AgentError;

/// Payload bytes of local entries that are read at once.
const ENTRIES_AT_ONCE: usize = 1 << 20;

/// Bytes of rows that are collected before they are deleted.
const DOOMED_AT_ONCE: usize = 1 << 20;

/// Ranges whose rows are counted before the next ones are looked up.
const CHECKED_AT_ONCE: usize = 1024;

/// Whose ranges the snapshot's are in the list; those of a table here are under [`here`].
const THERE: &str = "there";

/// Rows of a range that the copy lacks and nobody fetched yet: their places in the range, and their hashes.
pub(super) struct Missing {
    pub(super) range: usize,
    pub(super) rows: Vec<(usize, RowHash)>,
}

/// An open transaction on a database that is being made equal to a snapshot.
pub(super) struct Merge {
    conn: Connection,
    spool: Spool,
    list: RangeList,
    /// The tables that are in the list as they are here.
    tables: BTreeMap<String, TableDigest>,
    lost: Lost,
    kept: Vec<String>,
    deleted: u64,
    inserted: u64,
    pub(super) fetched_bytes: u64,
}

impl Merge {
    /// Begins it.
    pub(super) fn begin(dir: &DataDir, db: &str) -> Result<Self, AgentError> {
        let conn = connection::applier(&dir.database(db))?;
        conn.execute_batch("BEGIN IMMEDIATE")?;
        fault::point("converge:begin");
        let position = changelog::head(&conn)?.position;
        let (spool, lost) = (Spool::open(dir, db)?, Lost::new(dir, db, position));
        let (list, tables) = (spool.ranges()?, BTreeMap::new());
        Ok(Self { conn, spool, list, tables, lost, kept: Vec::new(), deleted: 0, inserted: 0, fetched_bytes: 0 })
    }

    /// What makes a step that is under way fail at once, which rolls everything back.
    pub(super) fn interrupt(&self) -> InterruptHandle {
        self.conn.get_interrupt_handle()
    }

    /// Cuts every table into ranges, as it is here.
    pub(super) fn list(&mut self) -> Result<(), AgentError> {
        self.tables.clear();
        for object in schema::objects(&self.conn)?.into_iter().filter(|object| object.kind == "table") {
            let shape = Shape::read(&self.conn, &object.name)?;
            if shape.has_key() {
                let digest = self.list.cut(&here(&object.name), &shape, &self.conn, true)?;
                self.tables.insert(object.name, digest);
            }
        }
        Ok(())
    }

    /// Makes the schema the snapshot's. What was listed of another one is listed anew.
    pub(super) fn migrate(&mut self, target: &Overview) -> Result<(), AgentError> {
        if schema::hash(&self.conn)? == target.schema_hash {
            return Ok(());
        }
        let version = target.position.version;
        self.kept = diff::migrate_keeping(&self.conn, &target.objects, version)
            .map_err(|source| AgentError::Unreachable { version, source })?;
        self.list()
    }

    /// Whether a table is the snapshot's already.
    pub(super) fn is_equal(&self, table: &TableDigest) -> bool {
        self.tables.get(&table.name).is_some_and(|found| found.hash == table.hash)
    }

    /// Notes ranges of the snapshot's table, from number `at` on. Returns where the last one ends.
    pub(super) fn note(&mut self, at: usize, ranges: Vec<Range>, after: Noted) -> Result<Noted, AgentError> {
        let Noted { mut hasher, mut end } = after;
        if at == 0 {
            self.list.forget(THERE)?;
        }
        for (at, range) in (at..).zip(ranges) {
            hasher.add(&range);
            let next = range.end.clone();
            self.list.put(THERE, &Listed { at, start: end, range }, None)?;
            end = next;
        }
        Ok(Noted { hasher, end })
    }

    /// Some of the noted ranges that differ, from number `from` on.
    pub(super) fn differing(&self, table: &str, from: usize, most: usize) -> Result<Vec<Listed>, AgentError> {
        Ok(self.list.differing(THERE, &here(table), from, most)?)
    }

    /// Removes the rows of a range without an identical twin in the snapshot, and tells which are missing.
    pub(super) fn compare(&mut self, table: &str, range: &Listed, theirs: &[RowHash]) -> Result<Missing, AgentError> {
        let shape = Shape::read(&self.conn, table)?;
        let wanted: HashSet<&RowHash> = theirs.iter().collect();
        let here = match self.list.hashes_between(&here(table), range)? {
            Some(hashes) => self.remove_listed(&shape, range, &wanted, &hashes)?,
            None => self.remove_found(&shape, range, &wanted)?,
        };
        let mut missing = Missing { range: range.at, rows: Vec::new() };
        for (place, hash) in theirs.iter().enumerate().filter(|(_, hash)| !here.contains(*hash)) {
            self.spool.want(hash)?;
            if !self.spool.has(hash)? {
                missing.rows.push((place, *hash));
            }
        }
        Ok(missing)
    }

    /// A range that begins and ends here as there: its rows were hashed when it was listed, in this transaction.
    fn remove_listed(
        &mut self,
        shape: &Shape,
        range: &Listed,
        wanted: &HashSet<&RowHash>,
        hashes: &[u8],
    ) -> Result<HashSet<RowHash>, AgentError> {
        let (hashes, _) = hashes.as_chunks();
        let (here, doomed): (Vec<_>, Vec<_>) = hashes.iter().enumerate().partition(|(_, hash)| wanted.contains(hash));
        let places: Vec<usize> = doomed.into_iter().map(|(place, _)| place).collect();
        if !places.is_empty() {
            let (start, end) = (range.start.as_ref(), range.range.end.as_ref());
            let mut row = Vec::new();
            for key in shape.keys_at(&self.conn, start, end, &places)? {
                row.clear();
                shape.row(&self.conn, &key, &mut row)?;
                self.remove(shape, &key, &row)?;
            }
        }
        Ok(here.into_iter().map(|(_, hash)| *hash).collect())
    }

    /// A range that is cut otherwise here, and may hold any number of rows.
    fn remove_found(
        &mut self,
        shape: &Shape,
        range: &Listed,
        wanted: &HashSet<&RowHash>,
    ) -> Result<HashSet<RowHash>, AgentError> {
        let (mut here, mut start) = (HashSet::new(), range.start.clone());
        loop {
            let (mut doomed, mut bytes, mut last) = (Vec::new(), 0, Vec::new());
            shape.scan(&self.conn, start.as_ref(), range.range.end.as_ref(), |key, row| {
                let hash = row_hash(row);
                if wanted.contains(&hash) {
                    here.insert(hash);
                } else {
                    bytes += key.len() + row.len();
                    doomed.push((key.to_vec(), row.to_vec()));
                }
                if bytes >= DOOMED_AT_ONCE {
                    last = key.to_vec();
                }
                Ok(bytes < DOOMED_AT_ONCE)
            })?;
            doomed.iter().try_for_each(|(key, row)| self.remove(shape, key, row))?;
            if bytes < DOOMED_AT_ONCE {
                return Ok(here);
            }
            start = Some(Hex(last));
        }
    }

    fn remove(&mut self, shape: &Shape, key: &[u8], row: &[u8]) -> Result<(), AgentError> {
        self.lost.row(shape, row)?;
        self.deleted += shape.delete(&self.conn, key)? as u64;
        Ok(())
    }

    /// Keeps fetched rows until all deletes of their table are done: swapped unique values would clash otherwise.
    pub(super) fn keep(&mut self, rows: &[&[u8]]) -> Result<(), AgentError> {
        self.spool.keep(rows)
    }

    /// Puts the missing rows of a table in place, and proves the ranges that differed: what stayed has a hash of the
    /// snapshot's, what came is read back and hashed, and there is nothing else.
    pub(super) fn insert_and_check(&mut self, table: &str) -> Result<(), AgentError> {
        let (shape, mut back) = (Shape::read(&self.conn, table)?, Vec::new());
        let differs =
            |what: String| AgentError::Snapshot { reason: format!("table {table} is still another one {what}") };
        self.inserted += self.spool.take_wanted(|row| {
            let key = shape.key_of(row).map_err(|error| AgentError::Malformed { reason: error.to_string() })?;
            shape.insert(&self.conn, row)?;
            back.clear();
            if shape.row(&self.conn, &key, &mut back)? && back == row {
                return Ok(());
            }
            Err(differs("in a row that was put in place".to_owned()))
        })?;
        let mut from = 0;
        loop {
            let ranges = self.differing(table, from, CHECKED_AT_ONCE)?;
            let Some(last) = ranges.last() else { break };
            from = last.at + 1;
            for Listed { at, start, range } in &ranges {
                if shape.count(&self.conn, start.as_ref(), range.end.as_ref())? != range.rows {
                    return Err(differs(format!("in range {at}")));
                }
            }
        }
        fault::point("converge:table");
        Ok(())
    }

    /// Makes the log the snapshot's and commits. Entries after version `agreed` are lost.
    pub(super) fn finish(self, overview: &Overview, agreed: u64) -> Result<Report, AgentError> {
        let Self { conn, spool, list, mut lost, kept, deleted, inserted, fetched_bytes, .. } = self;
        drop(list);
        let mut after = agreed;
        loop {
            let entries = changelog::read_after(&conn, after, ENTRIES_AT_ONCE)?;
            let Some(last) = entries.last() else { break };
            after = last.version;
            entries.iter().try_for_each(|entry| lost.entry(entry))?;
        }
        changelog::replace(&conn, overview)?;
        let lost = lost.finish()?;
        fault::point("converge:before-commit");
        conn.execute_batch("COMMIT")?;
        fault::point("converge:after-commit");
        spool.remove()?;
        // The write-ahead log holds every page that changed; readers decide how far it can be emptied now.
        conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        Ok(Report { position: overview.position, kept, deleted, inserted, fetched_bytes, lost })
    }
}

/// How far the snapshot's ranges of a table were noted.
#[derive(Default)]
pub(super) struct Noted {
    pub(super) hasher: RangesHasher,
    /// Where the last one ends; `None` before the first and after the last one.
    pub(super) end: Option<Hex>,
}

/// A table as it is here, in the list of ranges.
fn here(table: &str) -> String {
    format!("here {table}")
}
