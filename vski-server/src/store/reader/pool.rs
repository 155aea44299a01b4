use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::store::collections::Seen;
use crate::store::error::StoreError;

/// Steps of a read that is run where it was asked for, and how many looks it takes to count them: some ten microseconds.
const QUICK_STEPS: i32 = 500;
const QUICK_LOOKS: u32 = 4;

/// SQLite's counter of commits by others.
const DATA_VERSION: &str = "PRAGMA data_version";

/// Connections of one kind, and the right to use them.
pub struct Pool {
    /// Those that nobody uses now. The last one to come back is the first to be lent: its cache is warm.
    idle: Mutex<Vec<Pooled>>,
    /// One for each that may be in use.
    pub permits: Arc<Semaphore>,
    /// How many that are.
    pub size: usize,
}

/// A connection, and what it knows of its file.
pub struct Pooled {
    pub conn: Connection,
    seen: Seen,
    /// How often SQLite has looked whether a quick look-up takes too long; of a connection that is for those.
    looks: Arc<AtomicU32>,
}

impl Pool {
    /// A pool of at most `size` connections, none of them open yet.
    pub fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), permits: Arc::new(Semaphore::new(size)), size })
    }

    /// One that is idle.
    pub fn take(&self) -> Option<Pooled> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Brings one back.
    pub fn give_back(&self, pooled: Pooled) {
        // Not one whose transaction could not be ended.
        if !pooled.conn.is_autocommit() {
            return;
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(pooled);
    }
}

impl Pooled {
    /// A connection that only reads.
    pub fn new(conn: Connection) -> Self {
        Self { conn, seen: Seen::of_reader(), looks: Arc::default() }
    }

    /// The same for look-ups by key, which wait for no lock and are stopped when they take too many steps.
    pub fn quick(conn: Connection) -> rusqlite::Result<Self> {
        conn.busy_timeout(Duration::ZERO)?;
        let mut pooled = Self::new(conn);
        let looks = Arc::clone(&pooled.looks);
        let too_many = move || looks.fetch_add(1, Ordering::Relaxed) >= QUICK_LOOKS;
        pooled.conn.progress_handler(QUICK_STEPS, Some(too_many))?;
        Ok(pooled)
    }

    /// A read transaction: all statements of one request see the same state. It lasts as long as its first statement, which
    /// is not stepped to its end before `work` is done: BEGIN and ROLLBACK would be two statements more.
    pub fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Self { conn, seen, looks } = self;
        looks.store(0, Ordering::Relaxed);
        let mut statement = conn.prepare_cached(DATA_VERSION)?;
        let mut rows = statement.query([])?;
        let version = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?.get(0)?;
        seen.refresh(version);
        seen.during(conn, || work(conn))
    }

    /// Begins a read transaction for several pieces of work.
    pub fn begin(&mut self) -> Result<(), StoreError> {
        let Self { conn, seen, looks } = self;
        looks.store(0, Ordering::Relaxed);
        conn.prepare_cached("BEGIN")?.execute([])?;
        let version = conn.prepare_cached(DATA_VERSION)?.query_row([], |row| row.get(0));
        seen.refresh(version?);
        Ok(())
    }

    /// One of them.
    pub fn within<T>(&mut self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let Self { conn, seen, looks } = self;
        looks.store(0, Ordering::Relaxed);
        seen.during(conn, || work(conn))
    }

    /// Ends it.
    pub fn end(&mut self) -> rusqlite::Result<()> {
        self.conn.prepare_cached("ROLLBACK")?.execute([]).map(drop)
    }
}
