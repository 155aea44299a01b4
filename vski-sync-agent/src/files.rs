//! Uploaded files of one database: what its rows name and the disk lacks is fetched, what no row names is removed.
//!
//! Needs no journal: rows come with their records through the log, the directory tells what is here. A file appears
//! under its name only once it was verified by size and BLAKE3 and fsynced; a fetch that was cut off goes on where its
//! part ends. The database is followed meanwhile, and an error here does not stop it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::select;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use vski_replication::connection;
use vski_replication::files::{self, FileRow, Needed, Sweeper};
use vski_replication::position::Position;

use crate::agent::Context;
use crate::backoff::{Backoff, Complaints};
use crate::blocking;
use crate::error::{self, AgentError, ErrorKind};

/// One file, over HTTP onto the disk.
mod fetch;

/// Files that the master has lost, from here.
mod give;

/// Which files rows name, found step by step.
mod scan;

use scan::Scan;

/// Small files under way at once: the way there and back is what they take.
const PARALLEL: u32 = 16;

/// A file of more bytes counts as several: a few of these fill the network, which the database's entries need, too.
const SMALL: u64 = 256 << 10;

/// As how many.
const LARGE_COUNTS: u32 = 4;

/// Files that are fetched before the rows are looked at again.
const PASS: usize = 256;

/// Files that are known to be missing at once: more are found when these are here.
const MAX_WAITING: usize = 4_096;

/// How often everything is compared anew, whether rows changed or not: somebody may have lost files.
const COMPARE_EVERY: Duration = Duration::from_secs(10 * 60);

/// The shortest time between two looks at the rows, while many transactions are applied.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// The longest time between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(10 * 60);

/// How long until the master is asked again which files it has lost, where it did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// How often a file may not be there before somebody is told: its row may be about to go, or its parent about to have it.
const TOLD_AFTER: u32 = 5;

/// How far the files of a database are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The change of its rows after which they were last looked at.
    pub(crate) position: Option<Position>,
    /// Files that are missing.
    pub(crate) waiting: u64,
    /// Why the last attempt left some.
    pub(crate) error: Option<String>,
}

/// Runs one database's files until it is told to end, and starts anew after a panic.
pub(crate) async fn keep_running(db: String, context: Arc<Context>, shutdown: CancellationToken) {
    let mut backoff = Backoff::default();
    loop {
        let files = Files::new(&db, Arc::clone(&context), shutdown.clone());
        let Err(panic) = tokio::spawn(files.run()).await else { return };
        let pause = backoff.next(None);
        let (error_name, remedy) = (ErrorKind::Panicked.name(), ErrorKind::Panicked.remedy());
        tracing::error!(db, error_name, error = %panic, remedy, retry_in = ?pause, "the fetching of files panicked, starting it anew");
        context.board.file_failed(&db, ErrorKind::Panicked, "the fetching of files panicked: see the log");
        select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One database's task.
struct Files {
    db: String,
    context: Arc<Context>,
    shutdown: CancellationToken,
    moved: watch::Receiver<()>,
    scan: Scan,
    compared: Option<Instant>,
    /// Files that are missing, those that failed before last.
    waiting: VecDeque<Missing>,
    sweeper: Sweeper,
    swept: Option<Instant>,
    /// When the master is next asked which files it has lost.
    give_due: Instant,
    backoff: Backoff,
    complaints: Complaints,
}

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Missing {
    row: FileRow,
    /// How often the node at MASTER_URL did not have it.
    absent: u32,
}

impl Files {
    fn new(db: &str, context: Arc<Context>, shutdown: CancellationToken) -> Self {
        let moved = context.board.moved();
        Self {
            db: db.to_owned(),
            context,
            shutdown,
            moved,
            scan: Scan::default(),
            compared: None,
            waiting: VecDeque::new(),
            sweeper: Sweeper::default(),
            swept: None,
            give_due: Instant::now(),
            backoff: Backoff::default(),
            complaints: Complaints::default(),
        }
    }

    async fn run(mut self) {
        while !self.shutdown.is_cancelled() {
            let pause = match self.turn().await {
                // All that was tried came.
                Ok(true) => Duration::ZERO,
                Ok(false) => {
                    self.backoff.reset();
                    self.until_due().await;
                    LOOK_PAUSE
                }
                Err(error) => self.failed(&error),
            };
            select! {
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One look at the rows, and some fetches. `true`: there is more to do at once.
    async fn turn(&mut self) -> Result<bool, AgentError> {
        self.moved.borrow_and_update();
        let position = self.context.board.file_rows(&self.db);
        self.sweep_if_due().await?;
        let more = self.look().await?;
        let failed = self.fetch_some().await?;
        let waiting = self.waiting.len() as u64;
        let error = failed.as_ref().map(|error| error::chain(error));
        // A comparison that was asked for meanwhile is still to come.
        let position = position.filter(|_| !self.context.board.is_recheck_asked(&self.db, false));
        if waiting + more == 0 && !self.shutdown.is_cancelled() {
            self.context.board.files_well(&self.db);
        }
        self.tell(Progress { position, waiting: waiting + more, error });
        self.give_if_due().await;
        match failed {
            Some(error) => Err(error),
            None => Ok(waiting + more > 0),
        }
    }

    fn tell(&self, progress: Progress) {
        self.context.board.files(&self.db, progress);
    }

    /// Waits until rows may have changed, or it is time to compare or to sweep.
    async fn until_due(&mut self) {
        let due = COMPARE_EVERY.min(self.sweep_pause()).min(self.give_due.saturating_duration_since(Instant::now()));
        select! {
            () = self.shutdown.cancelled() => {}
            _ = self.moved.changed() => {}
            () = tokio::time::sleep(due) => {}
        }
    }

    /// Finds what is missing. Returns how many files of the rows were not looked at.
    async fn look(&mut self) -> Result<u64, AgentError> {
        let asked = self.context.board.is_recheck_asked(&self.db, true);
        if asked || self.compared.is_none_or(|at| at.elapsed() >= COMPARE_EVERY) {
            self.scan = Scan::default();
            self.waiting.clear();
            self.compared = Some(Instant::now());
            self.give_due = Instant::now();
        }
        let room = MAX_WAITING.saturating_sub(self.waiting.len());
        let (db, dir, mut scan) = (self.db.clone(), self.context.dir.clone(), self.scan.clone());
        // What was missing may have been deleted meanwhile.
        let before: Vec<String> = self.waiting.iter().take(PASS).map(|missing| missing.row.name.clone()).collect();
        let looked = blocking::run(move || {
            // A file that is being replaced has no rows now, and another copy is on its way.
            let _open = if dir.database(&db).exists() { dir.share_database(&db)? } else { None };
            if _open.is_none() {
                return Ok::<_, AgentError>(None);
            }
            let conn = connection::reader(&dir.database(&db))?;
            let read = conn.unchecked_transaction()?;
            let found = scan.next(&read, room, |row| dir.has_file(&db, row))?;
            let mut gone = HashSet::new();
            for name in before {
                if files::find(&read, &name)?.is_none() {
                    gone.insert(name);
                }
            }
            let left = files::count_after(&read, scan.last())?;
            Ok(Some((scan, found, gone, left)))
        })
        .await?;
        let Some((scan, found, gone, left)) = looked else { return Ok(0) };
        if scan.began_anew() {
            self.waiting.clear();
        }
        self.scan = scan;
        self.waiting.retain(|missing| !gone.contains(&missing.row.name));
        self.waiting.extend(found.into_iter().map(|row| Missing { row, absent: 0 }));
        self.tell(Progress { position: None, waiting: self.waiting.len() as u64 + left, error: None });
        Ok(left)
    }

    /// Fetches the next files. Those that fail wait behind the others; `Some` is why one of them did.
    async fn fetch_some(&mut self) -> Result<Option<AgentError>, AgentError> {
        let count = self.waiting.len().min(PASS);
        let batch: Vec<Missing> = self.waiting.drain(..count).collect();
        let (context, db, lanes) = (&*self.context, self.db.as_str(), &Semaphore::new(PARALLEL as usize));
        let fetches = batch.into_iter().map(|missing| async move {
            let taken = if missing.row.size > SMALL { LARGE_COUNTS } else { 1 };
            let _lane = lanes.acquire_many(taken).await;
            let fetched = fetch::file(context, db, &missing.row).await;
            (missing, fetched)
        });
        let mut fetches = futures_util::stream::iter(fetches).buffer_unordered(PARALLEL as usize);
        let mut failed = None;
        let (mut left, mut ended) = (Vec::new(), false);
        while let Some((mut missing, fetched)) = select! {
            () = self.shutdown.cancelled() => { ended = true; None }
            next = fetches.next() => next
        } {
            let Err(error) = fetched else { continue };
            missing.absent += u32::from(matches!(error, AgentError::FileAwaited { .. } | AgentError::FileLost { .. }));
            let passing = (1..TOLD_AFTER).contains(&missing.absent);
            left.push(missing);
            // One that is worth telling comes before one that may pass.
            if failed.is_none() || !passing {
                failed = Some(error);
            }
        }
        drop(fetches);
        self.waiting.extend(left);
        // What was not begun is found again by the next start.
        Ok(failed.filter(|_| !ended))
    }

    /// Logs and counts a failure, unless it may pass by itself. Returns how long to wait.
    fn failed(&mut self, error: &AgentError) -> Duration {
        let asked = if let AgentError::Source(error) = error { error.retry_after() } else { None };
        let pause = self.backoff.next(asked);
        if matches!(error, AgentError::Database(_) | AgentError::Malformed { .. } | AgentError::DataDir(_)) {
            // The database's own task meets the same, and tells it.
            tracing::debug!(db = self.db, error = error::chain(error), "cannot look for uploaded files now");
            return pause;
        }
        let absent = matches!(error, AgentError::FileAwaited { .. } | AgentError::FileLost { .. });
        if absent && self.waiting.iter().all(|missing| missing.absent < TOLD_AFTER) {
            return pause;
        }
        let (db, detail) = (self.db.as_str(), error::chain(error));
        self.context.board.file_failed(db, error.kind(), &detail);
        if self.complaints.worth_logging(&detail, Instant::now()) {
            let (error_name, remedy, files) = (error.name(), error.remedy(), self.waiting.len());
            tracing::error!(db, error_name, error = detail, remedy, files, retry_in = ?pause, "uploaded files are missing here");
        }
        pause
    }

    /// Gives the master what it has lost and is here.
    async fn give_if_due(&mut self) {
        if self.give_due > Instant::now() {
            return;
        }
        let given = select! {
            () = self.shutdown.cancelled() => return,
            given = give::back(&self.context, &self.db) => given,
        };
        self.give_due = Instant::now() + if given.is_ok() { COMPARE_EVERY } else { ASK_AGAIN };
        if let Err(error) = given {
            // That the master cannot be reached is told by whoever needs something of it.
            tracing::debug!(db = self.db, error = error::chain(&error), "cannot tell which files the master has lost");
        }
    }

    fn sweep_pause(&self) -> Duration {
        (self.context.file_grace / 2).clamp(Duration::from_millis(500), SWEEP_EVERY)
    }

    /// Removes files that no row has named for a while.
    async fn sweep_if_due(&mut self) -> Result<(), AgentError> {
        if self.swept.is_some_and(|at| at.elapsed() < self.sweep_pause()) {
            return Ok(());
        }
        self.swept = Some(Instant::now());
        let (db, dir, grace) = (self.db.clone(), self.context.dir.clone(), self.context.file_grace);
        let mut sweeper = std::mem::take(&mut self.sweeper);
        let (sweeper, removed) = blocking::run(move || {
            let removed = sweep(&mut sweeper, &dir, &db, grace);
            (sweeper, removed)
        })
        .await;
        self.sweeper = sweeper;
        let removed = removed?;
        if removed > 0 {
            tracing::info!(db = self.db, files = removed, "removed uploaded files that no record names");
        }
        Ok(())
    }
}

fn sweep(
    sweeper: &mut Sweeper,
    dir: &vski_replication::datadir::DataDir,
    db: &str,
    grace: Duration,
) -> Result<usize, AgentError> {
    let open = if dir.database(db).exists() { dir.share_database(db)? } else { None };
    // Without its rows nothing can be told of a file.
    let Some(_open) = open else { return Ok(0) };
    let conn = connection::reader(&dir.database(db))?;
    // Between two batches: nothing is being fetched now.
    sweeper.sweep(dir, db, grace, Instant::now(), |names| {
        let read = conn.unchecked_transaction()?;
        let mut needed = Needed::default();
        for name in names {
            if files::find(&read, name)?.is_some() {
                needed.named.insert(name.clone());
            }
        }
        Ok(needed)
    })
}
