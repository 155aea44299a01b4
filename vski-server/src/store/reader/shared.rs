//! Look-ups that are ready at the same time share a read transaction: to begin and to end one costs as much as a look-up.
//!
//! It is held by a thread with a runtime of its own, for the requests that are ready there now, and ended by a task that runs after them.
//! A look-up takes part in it only if this process has committed nothing since it began, so that whatever was answered
//! before is seen. What another process commits may be seen some microseconds later.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::OwnedSemaphorePermit;

use super::pool::{Pool, Pooled};
use crate::store::error::StoreError;

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
    /// Whether a task is on its way that ends it.
    static ENDING: Cell<bool> = const { Cell::new(false) };
}

/// A transaction that is held.
struct Held {
    pooled: Pooled,
    pool: Arc<Pool>,
    /// The commits of this process when it began.
    commits: u64,
    _permit: OwnedSemaphorePermit,
}

impl Held {
    /// `None` where all connections are in use.
    fn begin(
        pool: &Arc<Pool>,
        commits: u64,
        connect: impl FnOnce() -> Result<Pooled, StoreError>,
    ) -> Result<Option<Self>, StoreError> {
        let Ok(permit) = Arc::clone(&pool.permits).try_acquire_owned() else { return Ok(None) };
        let pooled = pool.take().map_or_else(connect, Ok)?;
        let mut held = Self { pooled, pool: Arc::clone(pool), commits, _permit: permit };
        match held.pooled.begin() {
            Ok(()) => Ok(Some(held)),
            Err(error) => {
                held.end();
                Err(error)
            }
        }
    }

    fn end(self) {
        let Self { mut pooled, pool, .. } = self;
        // A connection whose transaction cannot be ended is closed.
        if pooled.end().is_ok() {
            pool.give_back(pooled);
        }
    }
}

/// Whether this thread may hold a transaction: its tasks are its own.
pub fn is_possible() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread)
}

/// Runs `work` in the transaction that is held, or in a new one. `None` where all connections are in use.
pub fn look_up<T>(
    pool: &Arc<Pool>,
    commits: &AtomicU64,
    connect: impl FnOnce() -> Result<Pooled, StoreError>,
    work: impl FnOnce(&Connection) -> Result<Option<T>, StoreError>,
) -> Result<Option<T>, StoreError> {
    let commits = commits.load(Ordering::Acquire);
    // Taken out: a panic closes it.
    let held = match HELD.take() {
        Some(held) if held.commits == commits && Arc::ptr_eq(&held.pool, pool) => Some(held),
        other => {
            other.into_iter().for_each(Held::end);
            Held::begin(pool, commits, connect)?
        }
    };
    let Some(mut held) = held else { return Ok(None) };
    let result = held.pooled.within(work);
    if result.is_err() {
        held.end();
        return result;
    }
    HELD.set(Some(held));
    if !ENDING.replace(true) {
        tokio::spawn(async {
            ENDING.set(false);
            HELD.take().into_iter().for_each(Held::end);
        });
    }
    result
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use vski_replication::connection;
    use vski_replication::datadir::DataDir;

    use super::super::Reader;
    use super::*;

    struct World {
        _temporary: TempDir,
        writer: Connection,
        commits: Arc<AtomicU64>,
        reader: Reader,
    }

    impl World {
        fn new() -> Self {
            let temporary = tempfile::tempdir().unwrap();
            let dir = DataDir::open(temporary.path()).unwrap();
            let (path, commits) = (dir.database("a"), Arc::default());
            let writer = connection::writer(&path).unwrap();
            writer.execute_batch("CREATE TABLE t (a)").unwrap();
            let reader = Reader::of_own("a", &path, dir.share_database("a").unwrap().unwrap(), Arc::clone(&commits));
            Self { _temporary: temporary, writer, commits, reader }
        }

        fn insert(&self) {
            self.writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        }

        fn count(&self) -> Option<i64> {
            let count = |conn: &Connection| Ok(Some(conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?));
            self.reader.now(count).unwrap()
        }

        fn permits(&self) -> usize {
            self.reader.shared.keys.permits.available_permits()
        }
    }

    #[tokio::test]
    async fn look_ups_share_a_transaction_until_this_process_commits_or_others_have_their_turn() {
        let world = World::new();
        let permits = world.permits();
        assert_eq!((world.count(), world.permits()), (Some(0), permits - 1));
        world.insert();
        assert_eq!(world.count(), Some(0), "the same transaction: nobody has been told of the commit yet");
        world.commits.fetch_add(1, Ordering::Release);
        assert_eq!((world.count(), world.permits()), (Some(1), permits - 1));
        tokio::task::yield_now().await;
        assert_eq!(world.permits(), permits, "it has ended");
        world.insert();
        assert_eq!(world.count(), Some(2), "another process may have committed");
    }

    #[tokio::test]
    async fn a_look_up_that_fails_ends_the_transaction_and_the_next_one_begins_another() {
        let world = World::new();
        let permits = world.permits();
        let failed = world.reader.now(|conn| Ok(conn.query_row("SELECT * FROM missing", [], |_| Ok(Some(())))?));
        assert!(failed.is_err());
        assert_eq!(world.permits(), permits);
        world.insert();
        assert_eq!(world.count(), Some(1));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_tasks_move_between_threads_nothing_is_held() {
        let world = World::new();
        let permits = world.permits();
        assert_eq!((world.count(), world.permits()), (Some(0), permits));
    }
}
