use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::store::collections::Seen;
use crate::store::error::StoreError;

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
        Self { conn, seen: Seen::of_reader() }
    }

    /// A read transaction: all statements of one request see the same state.
    pub fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Self { conn, seen } = self;
        let _transaction = Transaction::begin(conn)?;
        seen.refresh(conn)?;
        seen.during(conn, || work(conn))
    }
}

/// Ends when it is dropped. Its two statements stay compiled, other than rusqlite's.
struct Transaction<'conn>(&'conn Connection);

impl<'conn> Transaction<'conn> {
    fn begin(conn: &'conn Connection) -> Result<Self, StoreError> {
        conn.prepare_cached("BEGIN")?.execute([])?;
        Ok(Self(conn))
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // Nothing was changed: where it fails the transaction has ended by itself.
        let _ = self.0.prepare_cached("ROLLBACK").and_then(|mut statement| statement.execute([]));
    }
}
