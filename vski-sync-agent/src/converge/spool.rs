//! Rows that were fetched and are not in place yet, under their hash. Whatever snapshot a later attempt compares with,
//! a row that it wants and that is here need not be fetched again.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use vski_replication::datadir::DataDir;
use vski_replication::fault;
use vski_replication::ranges::{RangeList, RowHash, row_hash};

use crate::error::AgentError;

/// A database of its own in `.vski/incoming`. It is only a cache: no fsync, and a damaged one is made anew.
pub(super) struct Spool {
    conn: Connection,
    folder: PathBuf,
}

impl Spool {
    pub(super) fn open(dir: &DataDir, db: &str) -> Result<Self, AgentError> {
        let folder = dir.incoming().join(format!("{db}.converge"));
        let io_error = |source| AgentError::Io { action: "make", path: folder.clone(), source };
        fault::io("converge:spool").and_then(|()| std::fs::create_dir_all(&folder)).map_err(io_error)?;
        let path = folder.join("rows");
        let conn = match connect(&path) {
            Ok(conn) => conn,
            Err(_) => {
                std::fs::remove_dir_all(&folder).and_then(|()| std::fs::create_dir_all(&folder)).map_err(io_error)?;
                connect(&path)?
            }
        };
        // What is wanted is found anew; what was fetched stays.
        conn.execute_batch("DELETE FROM wanted; BEGIN")?;
        Ok(Self { conn, folder })
    }

    pub(super) fn has(&self, hash: &RowHash) -> Result<bool, AgentError> {
        Ok(self.conn.prepare_cached("SELECT 1 FROM rows WHERE hash = ?1")?.exists([hash])?)
    }

    /// A list of ranges beside the rows.
    pub(super) fn ranges(&self) -> Result<RangeList, AgentError> {
        Ok(RangeList::create(&self.folder.join("ranges"))?)
    }

    /// Keeps fetched rows. Committed at once, so that they survive the end of this process.
    pub(super) fn keep(&self, rows: &[&[u8]]) -> Result<(), AgentError> {
        for row in rows {
            let mut insert = self.conn.prepare_cached("INSERT OR REPLACE INTO rows (hash, row) VALUES (?1, ?2)")?;
            insert.execute((row_hash(row), row))?;
        }
        Ok(self.conn.execute_batch("COMMIT; BEGIN")?)
    }

    /// Notes that a row is to be put in place.
    pub(super) fn want(&self, hash: &RowHash) -> Result<(), AgentError> {
        self.conn.prepare_cached("INSERT INTO wanted (hash) VALUES (?1)")?.execute([hash])?;
        Ok(())
    }

    /// Hands out the wanted rows one by one, in the order in which they were noted.
    pub(super) fn take_wanted(&self, mut put: impl FnMut(&[u8]) -> Result<(), AgentError>) -> Result<u64, AgentError> {
        let mut statement = self.conn.prepare_cached("SELECT hash FROM wanted ORDER BY n")?;
        let mut rows = statement.query([])?;
        let mut count = 0;
        while let Some(wanted) = rows.next()? {
            let hash: RowHash = wanted.get(0)?;
            let mut read = self.conn.prepare_cached("SELECT row FROM rows WHERE hash = ?1")?;
            let mut found = read.query([hash])?;
            // A cache may have been damaged on the disk: what does not hash right is fetched again by the next attempt.
            let damaged = || AgentError::Snapshot { reason: "a fetched row was damaged on this disk".to_owned() };
            let row = found.next()?.ok_or_else(damaged)?;
            let row = row.get_ref(0)?.as_blob().map_err(|_| damaged())?;
            if row_hash(row) != hash {
                return Err(damaged());
            }
            put(row)?;
            count += 1;
        }
        drop(rows);
        drop(statement);
        self.conn.execute_batch("DELETE FROM wanted")?;
        Ok(count)
    }

    /// Forgets everything, now that it is in place.
    pub(super) fn remove(self) -> Result<(), AgentError> {
        let Self { conn, folder } = self;
        drop(conn);
        let removed = fault::io("converge:spool-remove").and_then(|()| std::fs::remove_dir_all(&folder));
        removed.map_err(|source| AgentError::Io { action: "remove", path: folder, source })
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(path)?;
    conn.execute_batch(
        "PRAGMA synchronous = OFF;
         CREATE TABLE IF NOT EXISTS rows (hash BLOB PRIMARY KEY, row BLOB NOT NULL);
         CREATE TABLE IF NOT EXISTS wanted (n INTEGER PRIMARY KEY, hash BLOB NOT NULL);",
    )?;
    Ok(conn)
}
