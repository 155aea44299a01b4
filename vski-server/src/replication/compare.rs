//! What a leased snapshot holds, for replicas that compare their copy with it. The snapshot never changes, so what was
//! computed once stays right: each table is read once, for its ranges and their rows' hashes, which are kept in a file,
//! and then only the rows that somebody asks for.
//!
//! Every answer is bounded and begins with what was asked for first: whoever gets less than that asks for the rest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use vski_replication::ranges::{Hex, Listed, Overview, RangeList, RangesPage, Shape, TableDigest, frame, frame_with};
use vski_replication::{changelog, connection, schema};

use super::snapshot::Snapshots;
use crate::store::error::StoreError;

/// Bytes of hashes or rows after which an answer ends.
const ANSWER_BYTES: usize = 2 << 20;

/// The snapshots that are being compared.
pub struct Compare {
    snapshots: Arc<Snapshots>,
    open: Mutex<HashMap<String, Arc<Opened>>>,
}

/// A snapshot with a connection to it.
struct Opened {
    content: Mutex<Content>,
    tables: Mutex<HashMap<String, Arc<Table>>>,
}

struct Content {
    conn: Connection,
    /// The ranges of the tables that were read, by table.
    ranges: RangeList,
}

struct Table {
    shape: Shape,
    digest: TableDigest,
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
            let conn = &opened.lock().conn;
            let objects = schema::objects(conn)?;
            (changelog::head(conn)?, objects, changelog::database_id(conn)?, changelog::schema_version(conn)?)
        };
        let mut tables = Vec::new();
        for object in objects.iter().filter(|object| object.kind == "table") {
            tables.push(opened.table(&object.name)?.digest.clone());
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

    /// Ranges of one table, from number `from` on.
    pub fn ranges(&self, id: &str, table: &str, from: usize) -> Result<RangesPage, StoreError> {
        let opened = self.opened(id)?;
        opened.table(table)?;
        let page = opened.lock().ranges.page(table, from)?;
        if page.ranges.is_empty() { Err(no_range(from)) } else { Ok(page) }
    }

    /// For each range from `first` to `last`: a frame of its rows' hashes, in key order.
    pub fn row_hashes(&self, id: &str, table: &str, first: usize, last: usize) -> Result<Vec<u8>, StoreError> {
        let (opened, mut out) = (self.opened(id)?, Vec::new());
        opened.table(table)?;
        for at in first..=last {
            let hashes = opened.lock().ranges.hashes(table, at)?.ok_or_else(|| no_range(at))?;
            frame(&hashes, &mut out);
            if out.len() >= ANSWER_BYTES {
                break;
            }
        }
        Ok(out)
    }

    /// Rows of some ranges, a frame each: of each range those at the given places, which are sorted.
    pub fn rows(&self, id: &str, table: &str, wanted: &[(usize, Vec<usize>)]) -> Result<Vec<u8>, StoreError> {
        let (opened, mut out) = (self.opened(id)?, Vec::new());
        let table = opened.table(table)?;
        for (at, places) in wanted {
            let content = opened.lock();
            let Listed { start, range, .. } =
                content.ranges.get(table.shape.table(), *at)?.ok_or_else(|| no_range(*at))?;
            for key in table.shape.keys_at(&content.conn, start.as_ref(), range.end.as_ref(), places)? {
                frame_with(&mut out, |out| table.shape.row(&content.conn, &key, out))?;
                if out.len() >= ANSWER_BYTES {
                    return Ok(out);
                }
            }
        }
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
        let ranges = RangeList::create(&path.with_extension("ranges"))?;
        let opened = Arc::new(Opened { content: Mutex::new(Content { conn, ranges }), tables: Mutex::default() });
        open.insert(id.to_owned(), Arc::clone(&opened));
        Ok(opened)
    }
}

impl Opened {
    fn lock(&self) -> std::sync::MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A table, whose ranges are listed from then on. Several who ask at once wait for the first.
    fn table(&self, name: &str) -> Result<Arc<Table>, StoreError> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(name) {
            return Ok(Arc::clone(table));
        }
        let Content { conn, ranges } = &*self.lock();
        let known = schema::objects(conn)?.into_iter().any(|object| object.kind == "table" && object.name == name);
        if !known {
            return Err(StoreError::NotFound(format!("the snapshot has no table {name:?}")));
        }
        let shape = Shape::read(conn, name)?;
        let digest = ranges.cut(name, &shape, conn, true)?;
        let table = Arc::new(Table { shape, digest });
        tables.insert(name.to_owned(), Arc::clone(&table));
        Ok(table)
    }
}

fn no_range(at: usize) -> StoreError {
    StoreError::Invalid(format!("the table has no range {at}"))
}
