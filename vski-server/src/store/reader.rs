//! Reads: a few read-only connections per database, shared by all requests.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::Semaphore;
use vski_replication::changelog::LogSize;
use vski_replication::connection;
use vski_replication::datadir::OpenLock;

use super::error::StoreError;

/// Reads that run at once on one database; more wait.
const MAX_CONNECTIONS: usize = 8;

/// How long one read may take, so that no reader keeps the WAL from being checkpointed.
pub const READ_LIMIT: Duration = Duration::from_secs(30);

/// Hands out read-only connections to one database. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    path: PathBuf,
    /// Connections that nobody uses now.
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    /// How much history there is; counted on from where it was left.
    log_size: Mutex<LogSize>,
    /// Says that the file is open here: nobody replaces it meanwhile.
    _open: OpenLock,
}

impl Reader {
    /// A reader of the file at `path`, which stays claimed by `open`.
    #[must_use]
    pub fn new(name: &str, path: &Path, open: OpenLock) -> Self {
        let shared = Shared {
            name: name.to_owned(),
            path: path.to_owned(),
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(MAX_CONNECTIONS),
            log_size: Mutex::default(),
            _open: open,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether both are of one file, opened once.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The database's file, for its size on disk; it is opened through SQLite only.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Runs `work` on a connection, on a thread that may block, inside one read transaction.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let _permit = self.shared.permits.acquire().await.map_err(|_| StoreError::ShuttingDown)?;
        let conn = self.connection()?;
        let interrupt = conn.get_interrupt_handle();
        let shared = Arc::clone(&self.shared);
        let mut task = tokio::task::spawn_blocking(move || {
            let result = in_transaction(&conn, work);
            shared.give_back(conn);
            result
        });
        let joined = tokio::select! {
            joined = &mut task => joined,
            () = tokio::time::sleep(READ_LIMIT) => {
                interrupt.interrupt();
                task.await
            }
        };
        match joined {
            Ok(Err(StoreError::Sqlite(error)))
                if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) =>
            {
                Err(StoreError::ReadTimeout(READ_LIMIT.as_secs()))
            }
            Ok(result) => result,
            Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
            Err(_) => Err(StoreError::ShuttingDown),
        }
    }

    /// Payload bytes of the entries in the log.
    pub fn log_bytes(&self, conn: &Connection) -> Result<u64, StoreError> {
        Ok(self.shared.log_size.lock().unwrap_or_else(PoisonError::into_inner).refresh(conn)?)
    }

    /// A connection of one's own, for work of unbounded length such as a snapshot.
    pub fn dedicated(&self) -> Result<Connection, StoreError> {
        Ok(connection::reader(&self.shared.path)?)
    }

    fn connection(&self) -> Result<Connection, StoreError> {
        let idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| self.dedicated(), Ok)
    }
}

impl Shared {
    fn give_back(&self, conn: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
    }
}

/// A read transaction: all statements of one request see the same state.
fn in_transaction<T>(
    conn: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let transaction = conn.unchecked_transaction()?;
    work(&transaction)
}
