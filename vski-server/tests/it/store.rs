//! A master's store in a temporary directory, and a copy of it that only entries change.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;
use vski_replication::datadir::DataDir;
use vski_replication::entry::Entry;
use vski_replication::{changelog, connection};
use vski_server::metrics::Metrics;
use vski_server::store::error::StoreError;
use vski_server::store::master::Master;
use vski_server::store::writer::Writer;
use vski_sync_agent::apply::LocalCopy;

/// An open store.
pub struct Store {
    temporary: TempDir,
    pub master: Master,
    pub writer: Writer,
}

impl Store {
    pub fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let master = Master::open(&dir, &Arc::new(Metrics::new().unwrap())).unwrap();
        let writer = master.database("default").unwrap().writer;
        Self { temporary, master, writer }
    }

    /// Closes it and opens it anew, as a restart does.
    pub fn reopen(self) -> Self {
        let Self { temporary, master, writer } = self;
        drop(writer);
        master.close();
        let master = Master::open(master.dir(), &Arc::new(Metrics::new().unwrap())).unwrap();
        let writer = master.database("default").unwrap().writer;
        Self { temporary, master, writer }
    }

    pub fn file(&self) -> PathBuf {
        self.master.dir().database("default")
    }

    /// Runs SQL as one request.
    pub async fn sql(&self, sql: &str) -> Result<(), StoreError> {
        let sql = sql.to_owned();
        self.writer.rows(sql.len(), move |conn| Ok(conn.execute_batch(&sql)?)).await.map(|done| done.value)
    }

    /// Runs one DDL statement as a schema change.
    pub async fn ddl(&self, statement: &str) -> Result<(), StoreError> {
        let statements = vec![statement.to_owned()];
        self.writer.schema(move |_| Ok(statements.clone()), |_| Ok(())).await.map(|done| done.value)
    }

    pub fn entries_after(&self, version: u64) -> Vec<Entry> {
        changelog::read_after(&connection::reader(&self.file()).unwrap(), version, usize::MAX).unwrap()
    }

    /// A second file with the same content, as a bootstrap would make it.
    pub fn copy(&self) -> Copy {
        let file = self.temporary.path().join("copy").join("default.db");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let source = connection::reader(&self.file()).unwrap();
        let mut target = Connection::open(&file).unwrap();
        rusqlite::backup::Backup::new(&source, &mut target).unwrap().step(-1).unwrap();
        target.close().unwrap();
        Copy { local: LocalCopy::open("default", &file).unwrap(), file }
    }
}

/// A copy that the agent's code keeps.
pub struct Copy {
    pub file: PathBuf,
    pub local: LocalCopy,
}

impl Copy {
    /// Applies what the store has logged since, and compares every table, the schema and the position.
    pub fn follow_and_compare(&mut self, store: &Store) {
        let entries = store.entries_after(self.local.position().version);
        self.local.apply(&entries).unwrap();
        let (here, there) = (e2e::content::read(&self.file).unwrap(), e2e::content::read(&store.file()).unwrap());
        assert_eq!(here, there);
    }
}
