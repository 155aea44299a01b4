//! One writer thread per database, with one connection: group commit.
//!
//! The thread takes what is queued, never waiting for more, and commits it together: under load many requests share
//! one fsync, alone a request pays for its own. A full queue refuses at once. Answers go out only after COMMIT; then
//! the new head is announced on a watch channel, which only wakes: the log is the truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::watch;
use vski_replication::changelog::Head;

use super::error::StoreError;
use super::migration::{Done, Plan};
use super::request::{Answer, Form, Migration, Request, Rows, Schema, Written};
use super::transaction::{Outcome, WriteConnection};
use crate::metrics::WriterMetrics;

/// Requests that may wait, unless WRITE_QUEUE says otherwise.
pub const QUEUE_LIMIT: u32 = 4096;

/// Bytes of requests that may wait.
const QUEUE_BYTES: usize = 64 << 20;

/// Requests that share a transaction at most.
const BATCH_REQUESTS: usize = 512;

/// Bytes of requests that share a transaction at most.
const BATCH_BYTES: usize = 4 << 20;

/// How long requests are collected at most while more keep coming.
const BATCH_TIME: Duration = Duration::from_millis(5);

/// A commit of one request in a transaction of its own.
type CommitAlone = fn(&mut WriteConnection, &mut dyn Request) -> Result<(), StoreError>;

/// A request that was committed, or not, with others.
type Answered = (Box<dyn Request>, Outcome);

/// The right to write one database. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    queue: SyncSender<Box<dyn Request>>,
    queued: Arc<Queued>,
    /// Whether requests are refused: see [`Writer::close`].
    closed: Arc<AtomicBool>,
    head: watch::Receiver<Head>,
    problems: watch::Receiver<Option<String>>,
}

/// What waits in the queue now.
#[derive(Default)]
struct Queued {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl Queued {
    /// Counts a request in, unless its bytes are too many.
    fn enter(&self, bytes: usize) -> bool {
        self.requests.fetch_add(1, Ordering::AcqRel);
        let fits = self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes <= QUEUE_BYTES;
        if !fits {
            self.leave(bytes);
        }
        fits
    }

    fn leave(&self, bytes: usize) {
        self.requests.fetch_sub(1, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Writer {
    /// Starts the thread. It ends when the last `Writer` is dropped and the queue is empty.
    pub fn start(database: &str, conn: WriteConnection, metrics: WriterMetrics) -> (Self, JoinHandle<()>) {
        Self::start_with(database, conn, metrics, QUEUE_LIMIT)
    }

    /// The same, where `limit` requests may wait.
    pub fn start_with(
        database: &str,
        conn: WriteConnection,
        metrics: WriterMetrics,
        limit: u32,
    ) -> (Self, JoinHandle<()>) {
        let (queue, requests) = sync_channel(usize::try_from(limit).unwrap_or(usize::MAX));
        let (queued, closed) = (Arc::new(Queued::default()), Arc::new(AtomicBool::new(false)));
        let (announce, head) = watch::channel(conn.head());
        let problems = conn.problems();
        let mut thread = WriterThread {
            database: database.to_owned(),
            fullness: Fullness::default(),
            conn,
            requests,
            queued: Arc::clone(&queued),
            closed: Arc::clone(&closed),
            carried: Vec::new(),
            announce,
            metrics,
        };
        let join = std::thread::Builder::new()
            .name(format!("write-{database}"))
            .spawn(move || while thread.turn() {})
            .expect("the system can start a thread");
        (Self { queue, queued, closed, head, problems }, join)
    }

    /// Changes rows. `bytes` is what the closure holds of the caller's data.
    pub async fn rows<T, F>(&self, bytes: usize, work: F) -> Result<Written<T>, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (request, answer) = Rows::new(bytes, work);
        self.submit(Box::new(request), answer).await
    }

    /// Changes the schema: runs what `plan` returns, then `rows` for the catalogue.
    pub async fn schema<T, P, F>(&self, plan: P, rows: F) -> Result<Written<T>, StoreError>
    where
        T: Send + 'static,
        P: FnMut(&Connection) -> Result<Vec<String>, StoreError> + Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (request, answer) = Schema::new(plan, rows);
        self.submit(Box::new(request), answer).await
    }

    /// Runs a manual migration whose text has `bytes`.
    pub async fn migrate(&self, bytes: usize, plan: Plan) -> Result<Done, StoreError> {
        let (request, answer) = Migration::new(bytes, plan);
        Ok(self.submit(Box::new(request), answer).await?.value)
    }

    /// Changes our own bookkeeping between two batches: not captured, no entry.
    pub async fn upkeep<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (request, answer) = Rows::upkeep(work);
        Ok(self.submit(Box::new(request), answer).await?.value)
    }

    /// Refuses all requests from now on but upkeep. Once this has returned the head does not move any more: the thread
    /// itself refuses, and what it took before is committed.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.closed.store(true, Ordering::Release);
        self.upkeep(|_| Ok(())).await
    }

    /// Takes requests again.
    pub fn reopen(&self) {
        self.closed.store(false, Ordering::Release);
    }

    /// The head, and a wake-up for each new one.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Head> {
        self.head.clone()
    }

    /// What keeps this database from being replicated, if another program made such a thing.
    #[must_use]
    pub fn problems(&self) -> Option<String> {
        self.problems.borrow().clone()
    }

    async fn submit<T>(&self, request: Box<dyn Request>, answer: Answer<T>) -> Result<Written<T>, StoreError> {
        let bytes = request.bytes();
        if !self.queued.enter(bytes) {
            return Err(StoreError::Overloaded);
        }
        if let Err(refused) = self.queue.try_send(request) {
            self.queued.leave(bytes);
            return Err(match refused {
                TrySendError::Full(_) => StoreError::Overloaded,
                TrySendError::Disconnected(_) => StoreError::ShuttingDown,
            });
        }
        answer.await.map_err(|_| StoreError::ShuttingDown)?
    }
}

/// Whether writes find the volume full, told when that begins and ends.
#[derive(Default)]
struct Fullness {
    /// The head's version when it began.
    since: Option<u64>,
}

impl Fullness {
    /// Hears how a request ended, with the head afterwards. Only a write that is stored ends it. `Some` is news.
    fn hear(&mut self, outcome: &Result<(), StoreError>, head: u64) -> Option<bool> {
        match (outcome, self.since) {
            (Err(StoreError::DiskFull), None) => {
                self.since = Some(head);
                Some(true)
            }
            (Ok(()), Some(since)) if head > since => {
                self.since = None;
                Some(false)
            }
            _ => None,
        }
    }
}

struct WriterThread {
    database: String,
    fullness: Fullness,
    conn: WriteConnection,
    requests: Receiver<Box<dyn Request>>,
    queued: Arc<Queued>,
    closed: Arc<AtomicBool>,
    /// Taken from the queue but cut off the last batch, in order; they come first.
    carried: Vec<Box<dyn Request>>,
    announce: watch::Sender<Head>,
    metrics: WriterMetrics,
}

impl WriterThread {
    /// One batch. False once nobody can send any more.
    fn turn(&mut self) -> bool {
        let Some(batch) = self.collect() else { return false };
        self.metrics.queue_requests.observe(self.queued.requests.load(Ordering::Acquire) as f64);
        self.metrics.batch_requests.observe(batch.len() as f64);
        match batch.first().map(|request| request.form()) {
            Some(form) if form != Form::Upkeep && self.closed.load(Ordering::Acquire) => {
                batch.into_iter().for_each(|request| request.answer(Err(StoreError::HandedOver)));
            }
            Some(Form::Schema) => self.run_alone(batch, WriteConnection::commit_schema),
            Some(Form::Upkeep) => self.run_alone(batch, WriteConnection::commit_upkeep),
            Some(Form::Migration) => self.run_alone(batch, |conn, request| request.migrate(conn)),
            _ => self.run_rows(batch),
        }
        self.announce.send_if_modified(|head| {
            let new = self.conn.head();
            std::mem::replace(head, new) != new
        });
        true
    }

    /// A request that needs a transaction of its own, or row requests up to the next such one.
    fn collect(&mut self) -> Option<Vec<Box<dyn Request>>> {
        let mut pending = std::mem::take(&mut self.carried).into_iter();
        let first = match pending.next() {
            Some(first) => first,
            None => self.receive()?,
        };
        let started = Instant::now();
        let (alone, mut bytes, mut batch) = (first.form() != Form::Rows, first.bytes(), vec![first]);
        while !alone && batch.len() < BATCH_REQUESTS && bytes < BATCH_BYTES && started.elapsed() < BATCH_TIME {
            let Some(next) = pending.next().or_else(|| self.try_receive()) else { break };
            if next.form() != Form::Rows {
                self.carried.push(next);
                break;
            }
            bytes += next.bytes();
            batch.push(next);
        }
        self.carried.extend(pending);
        Some(batch)
    }

    fn receive(&self) -> Option<Box<dyn Request>> {
        let request = self.requests.recv().ok()?;
        self.queued.leave(request.bytes());
        Some(request)
    }

    fn try_receive(&self) -> Option<Box<dyn Request>> {
        let request = self.requests.try_recv().ok()?;
        self.queued.leave(request.bytes());
        Some(request)
    }

    fn run_alone(&mut self, batch: Vec<Box<dyn Request>>, commit: CommitAlone) {
        for mut request in batch {
            let outcome = commit(&mut self.conn, request.as_mut());
            self.note(&outcome);
            request.answer(outcome.map(|()| self.conn.head()));
        }
    }

    /// Logs when the volume becomes full, and when a write is stored again.
    fn note(&mut self, outcome: &Result<(), StoreError>) {
        let db = &self.database;
        match self.fullness.hear(outcome, self.conn.head().position.version) {
            Some(true) => tracing::error!(
                db,
                remedy = "make room on DATA_DIR's file system",
                "the data volume is full: writes are refused with 507"
            ),
            Some(false) => tracing::info!(db, "the data volume has room again: writes are stored"),
            None => {}
        }
    }

    /// Answers requests that were committed together, each on the runtime that waits for it: there, waking the tasks costs no
    /// system call for each.
    fn answer(&self, batch: Vec<Box<dyn Request>>, outcomes: Vec<Outcome>) {
        let head = self.conn.head();
        let mut shares: Vec<(Option<Handle>, Vec<Answered>)> = Vec::new();
        for answered in batch.into_iter().zip(outcomes) {
            let runtime = answered.0.runtime();
            let is_of = |share: &(Option<Handle>, _)| share.0.as_ref().map(Handle::id) == runtime.map(Handle::id);
            match shares.iter_mut().find(|share| is_of(share)) {
                Some((_, share)) => share.push(answered),
                None => shares.push((runtime.cloned(), vec![answered])),
            }
        }
        for (runtime, share) in shares {
            let answer = move || {
                share.into_iter().for_each(|(request, outcome)| request.answer(outcome.map(|()| head)));
            };
            match runtime {
                Some(runtime) => _ = runtime.spawn(async { answer() }),
                None => answer(),
            }
        }
    }

    fn run_rows(&mut self, mut batch: Vec<Box<dyn Request>>) {
        match self.conn.commit_rows(&mut batch) {
            Ok(committed) => {
                let cut = batch.split_off(committed.outcomes.len());
                self.carried.splice(0..0, cut);
                committed.outcomes.iter().for_each(|outcome| self.note(outcome));
                self.answer(batch, committed.outcomes);
            }
            Err(error) if batch.len() == 1 => {
                let outcome = Err(error);
                self.note(&outcome);
                if let Some(request) = batch.pop() {
                    request.answer(outcome.map(|()| self.conn.head()));
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = error.describe(),
                    requests = batch.len(),
                    "a whole batch failed; each request is tried alone"
                );
                batch.into_iter().for_each(|request| self.run_rows(vec![request]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_volume_is_news_once_until_a_write_is_stored_again() {
        let mut fullness = Fullness::default();
        let full = || Err(StoreError::DiskFull);
        assert_eq!(fullness.hear(&Ok(()), 7), None);
        assert_eq!(fullness.hear(&full(), 7), Some(true));
        assert_eq!(fullness.hear(&full(), 7), None);
        assert_eq!(fullness.hear(&Err(StoreError::Busy), 7), None);
        assert_eq!(fullness.hear(&Ok(()), 7), None, "nothing was stored: upkeep, or no change");
        assert_eq!(fullness.hear(&Ok(()), 8), Some(false));
        assert_eq!(fullness.hear(&full(), 8), Some(true));
    }
}
