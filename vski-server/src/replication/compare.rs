//! What a leased snapshot holds, for replicas that compare their copy with it. The snapshot never changes, so what was
//! computed once stays right: each table is read once, for its ranges, and then only where somebody asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use vski_replication::ranges::{Hex, Overview, Shape, TableDigest, TableRanges, frame, row_hash};
use vski_replication::{changelog, connection, schema};

use super::snapshot::Snapshots;
use crate::store::error::StoreError;

/// Ranges whose rows' hashes one answer may hold.
pub const MAX_RANGES: usize = 64;

/// The snapshots that are being compared.
pub struct Compare {
    snapshots: Arc<Snapshots>,
    open: Mutex<HashMap<String, Arc<Opened>>>,
}

/// A snapshot with a connection to it.
struct Opened {
    conn: Mutex<Connection>,
    tables: Mutex<HashMap<String, Arc<Table>>>,
}

struct Table {
    shape: Shape,
    ranges: TableRanges,
}

impl Compare {
    /// Nothing is compared yet.
    pub fn new(snapshots: &Arc<Snapshots>) -> Self {
        Self { snapshots: Arc::clone(snapshots), open: Mutex::default() }
    }

    /// Where the snapshot stands, its schema, and the digest of every table. Reads all of it the first time.
    pub fn overview(&self, id: &str) -> Result<Overview, StoreError> {
        let opened = self.opened(id)?;
        let (head, objects, database_id, schema_version) = {
            let conn = opened.lock();
            let objects = schema::objects(&conn)?;
            (changelog::head(&conn)?, objects, changelog::database_id(&conn)?, changelog::schema_version(&conn)?)
        };
        let mut tables = Vec::new();
        for object in objects.iter().filter(|object| object.kind == "table") {
            let table = opened.table(&object.name)?;
            tables.push(TableDigest {
                name: object.name.clone(),
                rows: table.ranges.rows,
                hash: table.ranges.hash.clone(),
            });
        }
        let overview = Overview {
            database_id,
            position: head.position,
            schema_version,
            schema_hash: head.schema_hash,
            committed_ms: head.committed_ms,
            objects,
            tables,
            digest: Hex(Vec::new()),
        };
        Ok(overview.sealed())
    }

    /// The ranges of one table.
    pub fn ranges(&self, id: &str, table: &str) -> Result<TableRanges, StoreError> {
        Ok(self.opened(id)?.table(table)?.ranges.clone())
    }

    /// For each range from `first` to `last`: a frame of its rows' hashes, in key order.
    pub fn row_hashes(&self, id: &str, table: &str, first: usize, last: usize) -> Result<Vec<u8>, StoreError> {
        let (opened, mut out) = (self.opened(id)?, Vec::new());
        let table = opened.table(table)?;
        check_range(&table.ranges, first, last)?;
        for at in first..=last {
            let mut hashes = Vec::new();
            opened.scan(&table, at, |_, row| hashes.extend(row_hash(row)))?;
            frame(&hashes, &mut out);
        }
        Ok(out)
    }

    /// The rows of one range, a frame each: all, or those whose places in it are `wanted` (sorted).
    pub fn rows(&self, id: &str, table: &str, at: usize, wanted: Option<&[usize]>) -> Result<Vec<u8>, StoreError> {
        let (opened, mut out) = (self.opened(id)?, Vec::new());
        let table = opened.table(table)?;
        check_range(&table.ranges, at, at)?;
        opened.scan(&table, at, |place, row| {
            if wanted.is_none_or(|wanted| wanted.binary_search(&place).is_ok()) {
                frame(row, &mut out);
            }
        })?;
        Ok(out)
    }

    fn opened(&self, id: &str) -> Result<Arc<Opened>, StoreError> {
        let gone = || StoreError::NotFound("this snapshot's lease has ended: ask for a new one".to_owned());
        let path = self.snapshots.renew(id).ok_or_else(gone)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|id, _| self.snapshots.is_leased(id));
        if let Some(opened) = open.get(id) {
            return Ok(Arc::clone(opened));
        }
        let conn = connection::finished_copy(&path)?;
        let opened = Arc::new(Opened { conn: Mutex::new(conn), tables: Mutex::default() });
        open.insert(id.to_owned(), Arc::clone(&opened));
        Ok(opened)
    }
}

impl Opened {
    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A table's ranges. Several who ask at once wait for the first.
    fn table(&self, name: &str) -> Result<Arc<Table>, StoreError> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(name) {
            return Ok(Arc::clone(table));
        }
        let conn = self.lock();
        let known = schema::objects(&conn)?.into_iter().any(|object| object.kind == "table" && object.name == name);
        if !known {
            return Err(StoreError::NotFound(format!("the snapshot has no table {name:?}")));
        }
        let shape = Shape::read(&conn, name)?;
        let table = Arc::new(Table { ranges: shape.ranges(&conn)?, shape });
        tables.insert(name.to_owned(), Arc::clone(&table));
        Ok(table)
    }

    /// Visits the rows of range `at` with their places in it.
    fn scan(&self, table: &Table, at: usize, mut visit: impl FnMut(usize, &[u8])) -> Result<(), StoreError> {
        let (start, end) = (table.ranges.start(at), table.ranges.ranges[at].end.as_ref());
        let mut place = 0;
        table.shape.scan(&self.lock(), start, end, |_, row| {
            visit(place, row);
            place += 1;
        })?;
        Ok(())
    }
}

fn check_range(ranges: &TableRanges, first: usize, last: usize) -> Result<(), StoreError> {
    if first <= last && last < ranges.ranges.len() && last - first < MAX_RANGES {
        return Ok(());
    }
    let count = ranges.ranges.len();
    Err(StoreError::Invalid(format!("the table has {count} ranges, and at most {MAX_RANGES} are answered at once")))
}
