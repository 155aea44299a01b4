//! Ranges on the disk: there is one for about 1,000 rows, so that their number grows with the database, and memory must
//! not.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Hex, Range, RangesPage, Shape, TableDigest};

/// Bytes of a page of ranges, about: ends may be long.
const PAGE_BYTES: usize = 1 << 20;

/// Ranges of ?1 that ?2 has not alike.
const DIFFERING: &str = "FROM ranges AS their WHERE owner = ?1 AND NOT EXISTS (
    SELECT 1 FROM ranges AS our WHERE our.owner = ?2 AND our.end IS their.end AND our.start IS their.start
    AND our.hash = their.hash AND our.rows = their.rows)";

/// Ranges of tables, in a file without a name: it is gone with this value, however its process ends.
pub struct RangeList {
    conn: Connection,
}

/// One range in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number among its owner's, from 0.
    pub at: usize,
    /// Where it begins: after this key.
    pub start: Option<Hex>,
    /// What it holds.
    pub range: Range,
}

impl RangeList {
    /// An empty list in a file that is made at `path` and loses its name at once.
    pub fn create(path: &Path) -> rusqlite::Result<Self> {
        remove(path)?;
        let conn = Connection::open(path)?;
        // One transaction that never ends: nothing is to survive, and what does not fit into the cache goes to the file.
        conn.execute_batch(
            "PRAGMA journal_mode = OFF;
             PRAGMA synchronous = OFF;
             PRAGMA locking_mode = EXCLUSIVE;
             CREATE TABLE ranges (
                 owner TEXT NOT NULL, at INTEGER NOT NULL, start BLOB, end BLOB, rows INTEGER NOT NULL,
                 hash BLOB NOT NULL, hashes BLOB, PRIMARY KEY (owner, at)
             );
             CREATE INDEX by_end ON ranges (owner, end);
             BEGIN",
        )?;
        remove(path)?;
        Ok(Self { conn })
    }

    /// Cuts a table into ranges and keeps them for `owner`; with `hashes` the hashes of their rows too.
    pub fn cut(&self, owner: &str, shape: &Shape, conn: &Connection, hashes: bool) -> rusqlite::Result<TableDigest> {
        let (mut at, mut start) = (0, None);
        self.forget(owner)?;
        shape.cut(conn, |range, rows| {
            let listed = Listed { at, start: start.take(), range: range.clone() };
            self.put(owner, &listed, hashes.then_some(rows))?;
            (at, start) = (at + 1, listed.range.end);
            Ok(())
        })
    }

    /// Keeps a range.
    pub fn put(&self, owner: &str, listed: &Listed, hashes: Option<&[u8]>) -> rusqlite::Result<()> {
        let Listed { at, start, range: Range { end, rows, hash } } = listed;
        let bytes = |key: &Option<Hex>| key.as_ref().map(|key| key.0.clone());
        self.conn.prepare_cached("INSERT INTO ranges VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(params![
            owner,
            signed(*at),
            bytes(start),
            bytes(end),
            signed(*rows),
            hash.0,
            hashes
        ])?;
        Ok(())
    }

    /// Forgets the ranges of an owner.
    pub fn forget(&self, owner: &str) -> rusqlite::Result<()> {
        self.conn.execute("DELETE FROM ranges WHERE owner = ?1", [owner]).map(drop)
    }

    /// How many ranges an owner has.
    pub fn count(&self, owner: &str) -> rusqlite::Result<usize> {
        let mut statement = self.conn.prepare_cached("SELECT count(*) FROM ranges WHERE owner = ?1")?;
        statement.query_row([owner], |row| number(row, 0))
    }

    /// One range.
    pub fn get(&self, owner: &str, at: usize) -> rusqlite::Result<Option<Listed>> {
        let sql = "SELECT at, start, end, rows, hash FROM ranges WHERE owner = ?1 AND at = ?2";
        self.conn.prepare_cached(sql)?.query_row(params![owner, signed(at)], listed).optional()
    }

    /// The hashes of a range's rows, if they were kept.
    pub fn hashes(&self, owner: &str, at: usize) -> rusqlite::Result<Option<Vec<u8>>> {
        let sql = "SELECT hashes FROM ranges WHERE owner = ?1 AND at = ?2";
        Ok(self.conn.prepare_cached(sql)?.query_row(params![owner, signed(at)], |row| row.get(0)).optional()?.flatten())
    }

    /// The hashes of the rows of the range that begins and ends as `twin` does, if there is one.
    pub fn hashes_between(&self, owner: &str, twin: &Listed) -> rusqlite::Result<Option<Vec<u8>>> {
        let bytes = |key: &Option<Hex>| key.as_ref().map(|key| key.0.clone());
        let sql = "SELECT hashes FROM ranges WHERE owner = ?1 AND end IS ?2 AND start IS ?3";
        let bounds = params![owner, bytes(&twin.range.end), bytes(&twin.start)];
        Ok(self.conn.prepare_cached(sql)?.query_row(bounds, |row| row.get(0)).optional()?.flatten())
    }

    /// Neighbouring ranges from number `from` on: some thousand at most, at least one if there is one.
    pub fn page(&self, owner: &str, from: usize) -> rusqlite::Result<RangesPage> {
        let sql = "SELECT at, start, end, rows, hash FROM ranges WHERE owner = ?1 AND at >= ?2 ORDER BY at";
        let mut statement = self.conn.prepare_cached(sql)?;
        let (mut rows, mut ranges, mut bytes) = (statement.query(params![owner, signed(from)])?, Vec::new(), 0);
        while bytes < PAGE_BYTES
            && let Some(row) = rows.next()?
        {
            let range = listed(row)?.range;
            bytes += range.end.as_ref().map_or(0, |end| 2 * end.0.len()) + 128;
            ranges.push(range);
        }
        Ok(RangesPage { ranges })
    }

    /// The ranges of `theirs` from number `from` on that `ours` has not alike: at most `most`, at least one if there is
    /// one. Every difference lies in one of these.
    pub fn differing(&self, theirs: &str, ours: &str, from: usize, most: usize) -> rusqlite::Result<Vec<Listed>> {
        let sql = format!("SELECT at, start, end, rows, hash {DIFFERING} AND at >= ?3 ORDER BY at LIMIT ?4");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params![theirs, ours, signed(from), signed(most)])?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while bytes < PAGE_BYTES
            && let Some(row) = rows.next()?
        {
            let range = listed(row)?;
            bytes += range.range.end.as_ref().map_or(0, |end| end.0.len());
            found.push(range);
        }
        Ok(found)
    }

    /// How many ranges of `theirs` `ours` has not alike.
    pub fn count_differing(&self, theirs: &str, ours: &str) -> rusqlite::Result<usize> {
        let sql = format!("SELECT count(*) {DIFFERING}");
        self.conn.prepare_cached(&sql)?.query_row([theirs, ours], |row| number(row, 0))
    }
}

fn remove(path: &Path) -> rusqlite::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
        }
        _ => Ok(()),
    }
}

fn listed(row: &Row<'_>) -> rusqlite::Result<Listed> {
    let key = |at: usize| -> rusqlite::Result<Option<Hex>> { Ok(row.get::<_, Option<Vec<u8>>>(at)?.map(Hex)) };
    let range = Range { end: key(2)?, rows: number(row, 3)? as u64, hash: Hex(row.get(4)?) };
    Ok(Listed { at: number(row, 0)?, start: key(1)?, range })
}

fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn number(row: &Row<'_>, at: usize) -> rusqlite::Result<usize> {
    let number: i64 = row.get(at)?;
    Ok(usize::try_from(number).unwrap_or(0))
}
