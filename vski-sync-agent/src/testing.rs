//! A master for unit tests: a database in memory whose every change is captured as the real one captures it.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use vski_replication::changelog::{self, Head};
use vski_replication::entry::{Entry, EpochChange, EpochReason, Kind, SchemaChange, schema_payload};
use vski_replication::position::{DatabaseId, Epoch, EpochId, Position};
use vski_replication::schema;
use vski_replication::session::Session;
use vski_replication::snapshot::{CHUNK_BYTES, Manifest};

mod server;

pub(crate) use server::{FakeMaster, SECRET, eventually};

pub(crate) struct Master {
    pub(crate) conn: Connection,
    pub(crate) id: DatabaseId,
    head: Head,
}

impl Master {
    pub(crate) fn new() -> Self {
        let conn = Connection::open_in_memory().unwrap();
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true).unwrap();
        let id = DatabaseId::random();
        let head = changelog::create(&conn, id).unwrap();
        Self { conn, id, head }
    }

    /// Another master with the same history.
    pub(crate) fn fork_of(other: &Self) -> Self {
        let file = tempfile::tempdir().unwrap();
        other.copy_to(&file.path().join("copy"));
        let conn = Connection::open(file.path().join("copy")).unwrap();
        let mut memory = Connection::open_in_memory().unwrap();
        rusqlite::backup::Backup::new(&conn, &mut memory).unwrap().step(-1).unwrap();
        Self { conn: memory, id: other.id, head: other.head }
    }

    /// One with a table `t (id, n)` and a row `a`.
    pub(crate) fn with_a_row() -> Self {
        let mut master = Self::new();
        master.schema(&["CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, n INTEGER)"]);
        master.changes("INSERT INTO t VALUES ('a', 1)");
        master
    }

    pub(crate) fn position(&self) -> Position {
        self.head.position
    }

    pub(crate) fn changes(&mut self, sql: &str) -> Entry {
        self.conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        let session = Session::start(&self.conn).unwrap();
        self.conn.execute_batch(sql).unwrap();
        let changeset = session.changeset().unwrap();
        drop(session);
        self.commit(Kind::Changes, self.head.position.epoch, changeset)
    }

    pub(crate) fn schema(&mut self, statements: &[&str]) -> Entry {
        self.schema_with_rows(statements, "")
    }

    pub(crate) fn schema_with_rows(&mut self, statements: &[&str], rows: &str) -> Entry {
        let before = schema::hash(&self.conn).unwrap();
        self.conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        let statements: Vec<String> = statements.iter().map(|&statement| statement.to_owned()).collect();
        schema::diff::run(&self.conn, &statements).unwrap();
        let session = Session::start(&self.conn).unwrap();
        self.conn.execute_batch(rows).unwrap();
        let changeset = session.changeset().unwrap();
        drop(session);
        let change = SchemaChange { before, statements, objects: schema::objects(&self.conn).unwrap() };
        self.commit(Kind::Schema, self.head.position.epoch, schema_payload(&change, &changeset))
    }

    pub(crate) fn epoch(&mut self, reason: EpochReason) -> Entry {
        self.conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        let epoch = Epoch { generation: self.head.position.epoch.generation + 1, id: EpochId::random() };
        self.commit(Kind::Epoch, epoch, serde_json::to_vec(&EpochChange { reason }).unwrap())
    }

    pub(crate) fn entries_after(&self, version: u64) -> Vec<Entry> {
        changelog::read_after(&self.conn, version, usize::MAX).unwrap()
    }

    /// A finished copy of it.
    pub(crate) fn copy_to(&self, path: &Path) {
        self.conn.execute("VACUUM INTO ?1", [path.to_str().unwrap()]).unwrap();
    }

    /// The manifest of a copy of it.
    pub(crate) fn manifest(&self, db: &str, bytes: &[u8]) -> Manifest {
        Manifest {
            id: "snapshot-1".into(),
            db: db.into(),
            database_id: self.id,
            position: self.position(),
            size: bytes.len() as u64,
            chunks: bytes.chunks(CHUNK_BYTES as usize).map(|chunk| blake3::hash(chunk).to_hex().to_string()).collect(),
            blake3: blake3::hash(bytes).to_hex().to_string(),
            sha256: String::new(),
        }
        .sealed()
    }

    fn commit(&mut self, kind: Kind, epoch: Epoch, payload: Vec<u8>) -> Entry {
        let entry = self.head.next(kind, epoch, schema::hash(&self.conn).unwrap(), payload);
        changelog::append(&self.conn, &entry).unwrap();
        self.conn.execute_batch("COMMIT").unwrap();
        self.head = Head::after(&entry);
        entry
    }
}

/// The rows of `t`.
pub(crate) fn rows(conn: &Connection) -> Vec<(String, Option<i64>)> {
    let mut statement = conn.prepare("SELECT id, n FROM t ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}
