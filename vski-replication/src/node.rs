//! `.vski/node.db`: what is true of this node only. Never replicated.
//!
//! The lock holder writes it, at most once a second per database but at once when a state changes; the server beside
//! a separate agent reads it. That is how a replica's server knows its role, lag and readiness without asking. This file
//! opens node.db and makes its tables; each module below reads and writes those of one subject.

use std::path::PathBuf;

use rusqlite::{Connection, Row};

use crate::connection;
use crate::datadir::DataDir;
use crate::position::Position;

/// Master or replica.
mod role;

/// From the one to the other.
mod promotion;

/// A master's databases and their files.
mod known;

/// The replicas that a node has seen.
mod replicas;

/// A replica's databases.
mod state;

/// What a replica was told from above.
mod upstream;

pub use promotion::{Promotion, was_promoted};
pub use replicas::ReplicaSeen;
pub use role::{ClaimError, Role, check_role, claim};
pub use state::{DatabaseState, LastError, MISSING_ON_MASTER, SET_ASIDE};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS node (one INTEGER PRIMARY KEY CHECK (one = 1), role TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS databases (
        name TEXT PRIMARY KEY NOT NULL,
        state TEXT NOT NULL,
        detail TEXT,
        position TEXT,
        head TEXT,
        last_contact_ms INTEGER,
        at_head_ms INTEGER,
        bootstrapped INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        head_ms INTEGER,
        files_waiting INTEGER
    );
    -- Tables of their own, so that programs of before and after them can use each other's files.
    CREATE TABLE IF NOT EXISTS errors (
        db TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL,
        text TEXT NOT NULL,
        remedy TEXT NOT NULL,
        at_ms INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS replicas (
        replica TEXT NOT NULL,
        db TEXT NOT NULL,
        position TEXT NOT NULL,
        last_contact_ms INTEGER NOT NULL,
        public_url TEXT,
        boot_id TEXT,
        version TEXT,
        PRIMARY KEY (replica, db)
    );
    CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), skew_ms INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS upstream (one INTEGER PRIMARY KEY CHECK (one = 1), path TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS fingerprints (name TEXT PRIMARY KEY NOT NULL, fingerprint TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS deleted (name TEXT PRIMARY KEY NOT NULL);
    CREATE TABLE IF NOT EXISTS known (name TEXT PRIMARY KEY NOT NULL, made INTEGER NOT NULL);";

/// node.db, opened for reading or writing.
pub struct NodeDb {
    conn: Connection,
}

/// Pages of node.db's write-ahead log after which it is used again from its beginning. Few, so that this was done long
/// before the volume is full: what is written in place needs no room, and so node.db can tell that there is none, and a
/// node can be started again.
const LOG_PAGES: i64 = 32;

impl NodeDb {
    /// Opens it for writing, which only the lock holder does.
    pub fn open(dir: &DataDir) -> rusqlite::Result<Self> {
        let conn = connection::writer(&path(dir))?;
        conn.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        conn.execute_batch(TABLES)?;
        conn.execute_batch(promotion::TABLES)?;
        if !has_column(&conn, "replicas", "version")? {
            // A file from before replicas told their version.
            conn.execute_batch("ALTER TABLE replicas ADD COLUMN version TEXT")?;
        }
        if !has_column(&conn, "databases", "head_ms")? {
            // A file from before replicas served others.
            conn.execute_batch("ALTER TABLE databases ADD COLUMN head_ms INTEGER")?;
        }
        if !has_column(&conn, "databases", "files_waiting")? {
            // A file from before uploaded files were told of.
            conn.execute_batch("ALTER TABLE databases ADD COLUMN files_waiting INTEGER")?;
        }
        // The file has all its pages from now on. Where there is no room for them, the log keeps them.
        let _ = conn.query_row("PRAGMA wal_checkpoint", [], |_| Ok(()));
        Ok(Self { conn })
    }

    /// Opens it for reading; `None` before any lock holder made it.
    pub fn read(dir: &DataDir) -> rusqlite::Result<Option<Self>> {
        let path = path(dir);
        if !path.exists() {
            return Ok(None);
        }
        let conn = connection::reader(&path)?;
        // A maker that was killed in between leaves an empty file; the next one fills it.
        let tables: i64 =
            conn.query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table'", [], |row| row.get(0))?;
        Ok((tables >= 3).then_some(Self { conn }))
    }

    /// Opens it to look at, leaving nothing behind; `None` before any lock holder made it.
    pub fn observe(dir: &DataDir) -> rusqlite::Result<Option<Self>> {
        let path = path(dir);
        // A path that may not be looked at is not one that is missing.
        if path.try_exists().is_ok_and(|there| !there) {
            return Ok(None);
        }
        Ok(Some(Self { conn: connection::observer(&path)? }))
    }

    /// Whether the file has a table that programs of before it do not make.
    fn has_table(&self, name: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1)";
        self.conn.prepare_cached(sql)?.query_row([name], |row| row.get(0))
    }
}

fn path(dir: &DataDir) -> PathBuf {
    dir.private().join("node.db")
}

fn has_column(conn: &Connection, table: &str, column: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)";
    conn.prepare_cached(sql)?.query_row([table, column], |row| row.get(0))
}

fn parsed(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Position>> {
    let text: Option<String> = row.get(column)?;
    let parse = |text: String| {
        text.parse().map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
        })
    };
    text.map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_its_size_from_the_start_and_its_log_is_used_again_before_it_is_large() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let writer = NodeDb::open(&dir).unwrap();
        let log = || connection::wal_bytes(&path(&dir));
        let file = || std::fs::metadata(path(&dir)).unwrap().len();
        let made = file();
        let write = |times: i64| (0..times).for_each(|skew_ms| writer.set_clock_skew_ms(skew_ms).unwrap());
        write(100);
        let settled = log();
        write(1_000);
        assert_eq!((log(), file()), (settled, made));
    }

    #[test]
    fn a_file_of_an_older_program_gets_what_it_lacks_when_it_is_next_written() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let older = NodeDb::open(&dir).unwrap();
        older.conn.execute_batch("DROP TABLE clock; DROP TABLE upstream").unwrap();
        let mut state = DatabaseState::new("default", "follow");
        older.set_database(&state).unwrap();
        for column in ["head_ms", "files_waiting"] {
            older.conn.execute_batch(&format!("ALTER TABLE databases DROP COLUMN {column}")).unwrap();
        }
        let reader = NodeDb::read(&dir).unwrap().expect("it exists");
        assert_eq!(reader.clock_skew_ms().unwrap(), None);
        assert_eq!((reader.databases().unwrap(), reader.upstream().unwrap()), (vec![state.clone()], String::new()));
        let writer = NodeDb::open(&dir).unwrap();
        assert_eq!(reader.clock_skew_ms().unwrap(), None);
        writer.set_clock_skew_ms(5).unwrap();
        writer.set_clock_skew_ms(-7).unwrap();
        assert_eq!(reader.clock_skew_ms().unwrap(), Some(-7));
        (state.head_ms, state.files_waiting) = (Some(3), Some(4));
        writer.set_database(&state).unwrap();
        writer.set_upstream("b,c").unwrap();
        assert_eq!((reader.databases().unwrap(), reader.upstream().unwrap()), (vec![state], "b,c".to_owned()));
    }
}
