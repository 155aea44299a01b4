//! The one transaction of a converge: open from the schema to the log, rolled back whenever it is dropped before.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{Connection, InterruptHandle};
use vski_replication::datadir::DataDir;
use vski_replication::ranges::{Hex, Listed, Overview, RangeList, RowHash, Shape, TableDigest, row_hash};
use vski_replication::schema::{Object, diff};
use vski_replication::{changelog, connection, fault, schema};

use super::Report;
use super::lost::Lost;
use super::spool::Spool;
use crate::error::{AgentError, chain};

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
        fault::sql("converge:begin")?;
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

    /// Makes the schema the snapshot's, but for indexes that are not here: the rows as they are may be such that they
    /// cannot be made. What was listed of another schema is listed anew.
    pub(super) fn migrate(&mut self, target: &Overview) -> Result<(), AgentError> {
        if schema::hash(&self.conn)? != target.schema_hash {
            self.migrate_tables(target)?;
            self.list()?;
        }
        Ok(fault::sql("converge:schema")?)
    }

    fn migrate_tables(&mut self, target: &Overview) -> Result<(), AgentError> {
        let version = target.position.version;
        let here: HashSet<Object> = schema::objects(&self.conn)?.into_iter().collect();
        let early = |object: &&Object| object.kind != "index" || here.contains(*object);
        let early: Vec<Object> = target.objects.iter().filter(early).cloned().collect();
        self.kept = diff::migrate_keeping(&self.conn, &early, version)
            .map_err(|source| AgentError::unreachable(version, source))?;
        Ok(())
    }

    /// Whether a table is the snapshot's already.
    pub(super) fn is_equal(&self, table: &TableDigest) -> bool {
        self.tables.get(&table.name).is_some_and(|found| found.hash == table.hash)
    }

    /// Notes ranges of the snapshot's table, the first of which comes first.
    pub(super) fn note(&mut self, ranges: &[Listed]) -> Result<(), AgentError> {
        if ranges.first().is_some_and(|first| first.at == 0) {
            self.list.forget(THERE)?;
        }
        ranges.iter().try_for_each(|listed| Ok(self.list.put(THERE, listed, None)?))
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
        fault::sql("converge:delete")?;
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
        fault::sql("converge:insert")?;
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
        Ok(fault::sql("converge:table")?)
    }

    /// Makes the missing indexes and the log the snapshot's, and commits. Entries after version `agreed` are lost.
    pub(super) fn finish(self, overview: &Overview, agreed: u64) -> Result<Report, AgentError> {
        let Self { conn, spool, list, mut lost, kept, deleted, inserted, fetched_bytes, .. } = self;
        drop(list);
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

/// A table as it is here, in the list of ranges.
fn here(table: &str) -> String {
    format!("here {table}")
}
