//! Reads: a few read-only connections per database, shared by all requests.
//!
//! There are two lanes, each with permits and connections of its own, so that a few costly filters hold up neither
//! replication nor logins: `Lane::Data` for what callers ask of records, whose cost is theirs to choose, and
//! `Lane::System` for all else, which is cheap by design. Look-ups by key, of either lane, have connections beside these:
//! they wait behind no filter.

/// Connections that are lent.
mod pool;

/// Transactions of several look-ups.
mod shared;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::OwnedSemaphorePermit;
use vski_replication::changelog::LogSize;
use vski_replication::connection;
use vski_replication::datadir::OpenLock;

use self::pool::{Pool, Pooled};
use super::error::StoreError;

/// The server's own reads that run at once on one database; more wait.
const SYSTEM_CONNECTIONS: usize = 8;

/// Reads of data that run at once on one database, for each core: each keeps one busy, and a cache.
const DATA_CONNECTIONS_PER_CORE: usize = 2;

/// Bounds of that, on any machine.
const DATA_CONNECTIONS: [usize; 2] = [4, 16];

/// Pages of the file that a connection for data keeps, KiB.
const DATA_CACHE_KIB: i64 = 4096;

/// How long one read of the server's own may take, so that no reader keeps the WAL from being checkpointed.
const SYSTEM_LIMIT: Duration = Duration::from_secs(30);

/// How long a read of data waits for its turn before it is refused.
const DATA_WAIT: Duration = Duration::from_secs(5);

/// Largest value that a read of data may make, bytes: what a request may store is smaller.
const MAX_DATA_VALUE: i32 = 128 << 20;

/// Steps of SQLite's machine between two looks at whether a read was stopped.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// Whose read it is.
#[derive(Clone, Copy, Debug)]
pub enum Lane {
    /// The server's own, what replicas ask, logins and tokens.
    System,
    /// A caller's, of records, which may take this long.
    Data(Duration),
}

/// Hands out read-only connections to one database. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
    lane: Lane,
}

struct Shared {
    name: String,
    path: PathBuf,
    system: Arc<Pool>,
    data: Arc<Pool>,
    /// For look-ups by key, of both lanes.
    keys: Arc<Pool>,
    /// Commits to this file, where this process alone makes them.
    commits: Option<Arc<AtomicU64>>,
    /// How much history there is; counted on from where it was left.
    log_size: Mutex<LogSize>,
    /// Says that the file is open here: nobody replaces it meanwhile.
    _open: OpenLock,
}

/// Stops a read when nobody waits for it any more, as when its client has gone.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Reader {
    /// A reader of the file at `path`, which stays claimed by `open`; for the server's own reads.
    #[must_use]
    pub fn new(name: &str, path: &Path, open: OpenLock) -> Self {
        Self::with(name, path, open, None)
    }

    /// The same of a file that this process writes, which counts its commits.
    #[must_use]
    pub fn of_own(name: &str, path: &Path, open: OpenLock, commits: Arc<AtomicU64>) -> Self {
        Self::with(name, path, open, Some(commits))
    }

    fn with(name: &str, path: &Path, open: OpenLock, commits: Option<Arc<AtomicU64>>) -> Self {
        let shared = Shared {
            name: name.to_owned(),
            path: path.to_owned(),
            system: Pool::new(SYSTEM_CONNECTIONS),
            data: Pool::new((DATA_CONNECTIONS_PER_CORE * cores()).clamp(DATA_CONNECTIONS[0], DATA_CONNECTIONS[1])),
            keys: Pool::new(cores()),
            commits,
            log_size: Mutex::default(),
            _open: open,
        };
        Self { shared: Arc::new(shared), lane: Lane::System }
    }

    /// The same, for what callers ask of records; a read may take `limit`.
    #[must_use]
    pub fn data(&self, limit: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), lane: Lane::Data(limit) }
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
        let (pool, limit) = self.pool();
        let pool = Arc::clone(pool);
        let permit = self.permit(&pool).await?;
        let mut pooled = pool.take().map_or_else(|| self.connect(), Ok)?;
        let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop.0);
        let mut task = tokio::task::spawn_blocking(move || {
            // Held for as long as the connection is used, also when nobody waits for the answer.
            let _permit = permit;
            pooled.conn.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || stopped.load(Ordering::Relaxed)))?;
            let result = pooled.in_transaction(work);
            pooled.conn.progress_handler(0, None::<fn() -> bool>)?;
            pool.give_back(pooled);
            result
        });
        let joined = tokio::select! {
            joined = &mut task => joined,
            () = tokio::time::sleep(limit) => {
                drop(stop);
                task.await
            }
        };
        match joined {
            Ok(Err(error)) if is_interrupted(&error) => Err(StoreError::ReadTimeout(limit)),
            Ok(result) => result,
            Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
            Err(_) => Err(StoreError::ShuttingDown),
        }
    }

    /// Runs `work` here and now, for a read that takes but a few steps, as looking up a record by its key: going to
    /// another thread and back would cost more than the read. `None` means that it is to be run by [`Self::read`]: `work`
    /// says so, it took too many steps, or a connection or a lock would have to be waited for. SQLite counts steps, not
    /// time: `work` must not do with a single one what may take long, as counting a table does.
    pub fn now<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let pool = &self.shared.keys;
        let connect = || Ok(Pooled::quick(self.of_data()?)?);
        let result = match &self.shared.commits {
            Some(commits) if shared::is_possible() => shared::look_up(pool, commits, connect, work),
            _ => {
                let Ok(_permit) = pool.permits.try_acquire() else { return Ok(None) };
                let mut pooled = pool.take().map_or_else(connect, Ok::<_, StoreError>)?;
                let result = pooled.in_transaction(work);
                pool.give_back(pooled);
                result
            }
        };
        match result {
            Err(StoreError::Busy) => Ok(None),
            Err(error) if is_interrupted(&error) => Ok(None),
            result => result,
        }
    }

    /// Runs `work`, which looks something up by its key, with [`Self::now`] if that will do, else with [`Self::read`].
    pub async fn look_up<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        match self.now(|conn| work(conn).map(Some))? {
            Some(found) => Ok(found),
            None => self.read(work).await,
        }
    }

    /// The lane's connections, and how long a read may take.
    fn pool(&self) -> (&Arc<Pool>, Duration) {
        match self.lane {
            Lane::System => (&self.shared.system, SYSTEM_LIMIT),
            Lane::Data(limit) => (&self.shared.data, limit),
        }
    }

    async fn permit(&self, pool: &Pool) -> Result<OwnedSemaphorePermit, StoreError> {
        let permit = Arc::clone(&pool.permits).acquire_owned();
        let permit = match self.lane {
            Lane::System => permit.await,
            Lane::Data(_) => {
                tokio::time::timeout(DATA_WAIT, permit).await.map_err(|_| StoreError::ReadsBusy(pool.size))?
            }
        };
        permit.map_err(|_| StoreError::ShuttingDown)
    }

    /// Payload bytes of the entries in the log.
    pub fn log_bytes(&self, conn: &Connection) -> Result<u64, StoreError> {
        Ok(self.shared.log_size.lock().unwrap_or_else(PoisonError::into_inner).refresh(conn)?)
    }

    /// A connection of one's own, for work of unbounded length such as a snapshot.
    pub fn dedicated(&self) -> Result<Connection, StoreError> {
        Ok(connection::reader(&self.shared.path)?)
    }

    /// One more connection for this lane.
    fn connect(&self) -> Result<Pooled, StoreError> {
        Ok(Pooled::new(match self.lane {
            Lane::System => self.dedicated()?,
            Lane::Data(_) => self.of_data()?,
        }))
    }

    /// A connection for what callers ask of records.
    fn of_data(&self) -> Result<Connection, StoreError> {
        let conn = self.dedicated()?;
        conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_DATA_VALUE)?;
        conn.pragma_update(None, "cache_size", -DATA_CACHE_KIB)?;
        Ok(conn)
    }
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

fn is_interrupted(error: &StoreError) -> bool {
    matches!(error, StoreError::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted))
}
