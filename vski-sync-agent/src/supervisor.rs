//! One supervisor: follows the master's set of databases, runs one task for each, answers requests to sync now.
//!
//! It owns the directory's lock and the writing of node.db for as long as it runs. A database that the master lists
//! gets a task; one that is only here keeps its task and is served on; one that is omitted is forgotten, and its
//! file stays. A panic in a task is logged and the task started anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::select;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vski_replication::changelog::Retention;
use vski_replication::datadir::{DataDir, DataDirError, DirLock};
use vski_replication::names;
use vski_replication::node::{DatabaseState, NodeDb};

use crate::agent::{Agent, Context, Listing};
use crate::backoff::{Backoff, Complaints};
use crate::blocking;
use crate::board::Board;
use crate::config::{ConfigError, NodeConfig, Schedule, SyncConfig};
use crate::error::{self, ErrorKind};
use crate::files;
use crate::fs;
use crate::metrics::AgentMetrics;
use crate::node_writer::NodeWriter;
use crate::round::Inbox;
use crate::source::{Identity, List, Listed, Source, SourceError};

mod handle;

pub use crate::round::{Ask, Outcome, SyncReport, Verified};

/// What is asked of all databases, and by whom.
type Request = (Ask, oneshot::Sender<SyncReport>);
pub use handle::AgentHandle;
pub(crate) use handle::SYNC_PATIENCE;

/// How long the master waits for another set of databases while streaming.
const STREAM_STATUS_WAIT: Duration = Duration::from_secs(20);

/// The shortest time between two lists while streaming, for a master that does not wait.
const STREAM_STATUS_PAUSE: Duration = Duration::from_secs(1);

/// Requests to sync that may queue up.
const MAX_REQUESTS: usize = 16;

/// What a supervisor needs.
pub struct AgentConfig {
    /// The data directory.
    pub dir: DataDir,
    /// Its lock.
    pub lock: DirLock,
    /// Its node.db.
    pub node: NodeDb,
    /// This node's id.
    pub node_id: String,
    /// The node's settings.
    pub node_config: NodeConfig,
    /// The replica's settings.
    pub sync_config: SyncConfig,
    /// How much history to keep.
    pub retention: Retention,
    /// How long an uploaded file stays that no row names any more.
    pub file_grace: Duration,
    /// Where to count.
    pub metrics: AgentMetrics,
}

/// Why a supervisor does not start; one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// node.db cannot be used.
    #[error("cannot use node.db: {0}; if the file is damaged, move it away: it holds no user data")]
    NodeDb(#[from] rusqlite::Error),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// One database's task.
struct Task {
    inbox: Arc<Inbox>,
    listing: watch::Sender<Listing>,
    shutdown: CancellationToken,
    handle: JoinHandle<()>,
    /// Its uploaded files.
    files: JoinHandle<()>,
}

/// Runs in a task of its own; an [`AgentHandle`] talks to it.
pub struct Supervisor {
    context: Arc<Context>,
    omit: BTreeSet<String>,
    shutdown: CancellationToken,
    lock: Arc<Mutex<Option<DirLock>>>,
    tasks: BTreeMap<String, Task>,
    /// The names that the master listed last, sorted.
    known: Option<Vec<String>>,
    /// Databases that the master has deleted: not followed, not served, their files stay.
    deleted: BTreeSet<String>,
    /// Tasks of theirs that finish what they began.
    ending: Vec<JoinHandle<()>>,
    /// When to ask for the list; `None`: on request only.
    due: Option<Instant>,
    backoff: Backoff,
    complaints: Complaints,
}

impl Supervisor {
    /// Starts it on the current tokio runtime. The databases that are here are opened at once, without the master.
    pub fn start(config: AgentConfig) -> Result<AgentHandle, StartError> {
        let AgentConfig { dir, lock, node, node_id, node_config, sync_config, retention, file_grace, metrics } = config;
        let identity = Identity::new(node_config.secrets, node_id, node_config.public_url);
        let source = Source::new(&sync_config, identity)?;
        let (rows, files, deleted) = (node.databases()?, dir.databases()?, node.deleted()?);
        let board = Board::new(NodeWriter::start(node)?, metrics);
        let context = Arc::new(Context { source, dir, board, schedule: sync_config.schedule, retention, file_grace });
        let (shutdown, done) = (CancellationToken::new(), CancellationToken::new());
        let (sender, requests) = mpsc::channel(MAX_REQUESTS);
        let lock = Arc::new(Mutex::new(Some(lock)));
        let mut supervisor = Self {
            context: Arc::clone(&context),
            omit: sync_config.omit,
            shutdown: shutdown.clone(),
            lock: Arc::clone(&lock),
            tasks: BTreeMap::new(),
            known: None,
            deleted,
            ending: Vec::new(),
            due: Some(Instant::now()),
            backoff: Backoff::default(),
            complaints: Complaints::default(),
        };
        supervisor.begin(rows, files);
        let finished = done.clone().drop_guard();
        tokio::spawn(async move {
            supervisor.run(requests).await;
            drop(finished);
        });
        Ok(AgentHandle::new(context, sender, shutdown, done, lock))
    }

    /// Registers what is known without the master, so that readiness counts it, and starts the databases with a file.
    fn begin(&mut self, rows: Vec<DatabaseState>, files: Vec<String>) {
        let board = &self.context.board;
        let mut rows: BTreeMap<String, DatabaseState> = rows.into_iter().map(|row| (row.name.clone(), row)).collect();
        for name in self.omit.iter().chain(&self.deleted) {
            if rows.remove(name).is_some() {
                board.forget(name);
            }
        }
        let files: Vec<String> =
            files.into_iter().filter(|name| !self.omit.contains(name) && !self.deleted.contains(name)).collect();
        for name in &files {
            let row = rows.remove(name).unwrap_or_else(|| DatabaseState::new(name, ""));
            board.register(DatabaseState { state: "catch_up".to_owned(), detail: None, ..row });
        }
        for (name, row) in rows {
            board.register(DatabaseState { last_error: row.last_error, ..DatabaseState::new(&name, "bootstrap") });
        }
        board.register(DatabaseState::new(names::DEFAULT_DATABASE, "bootstrap"));
        for name in &files {
            fs::clear_leftovers(&self.context.dir, name);
            self.spawn(name, Listing::Unknown);
        }
    }

    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            select! {
                biased;
                () = self.shutdown.cancelled() => break,
                Some((ask, reply)) = requests.recv() => self.ask_all(ask, reply).await,
                listed = self.next_list() => self.heard(listed),
            }
        }
        for (_, task) in std::mem::take(&mut self.tasks) {
            task.shutdown.cancel();
            // A task that panicked was logged where it was watched.
            let _ = tokio::join!(task.handle, task.files);
        }
        for ending in std::mem::take(&mut self.ending) {
            let _ = ending.await;
        }
        let (context, lock) = (Arc::clone(&self.context), Arc::clone(&self.lock));
        blocking::run(move || {
            context.board.close();
            drop(lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        })
        .await;
    }

    /// Waits until the list is due and asks for it. Dropped half-way, it is simply asked again.
    async fn next_list(&self) -> Result<List, SourceError> {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
        let known = self.known.as_deref().filter(|_| self.context.schedule == Schedule::Stream);
        self.context.source.status(known, STREAM_STATUS_WAIT).await
    }

    fn heard(&mut self, listed: Result<List, SourceError>) {
        match listed {
            Ok(listed) => {
                self.backoff.reset();
                self.complaints.clear();
                self.observe(listed);
                self.due = match self.context.schedule {
                    Schedule::Manual => None,
                    Schedule::Every(interval) => Some(Instant::now() + interval),
                    Schedule::Stream => Some(Instant::now() + STREAM_STATUS_PAUSE),
                };
            }
            Err(error) => {
                let pause = self.backoff.next(error.retry_after());
                self.due = Some(Instant::now() + pause);
                self.complain(&error, pause);
            }
        }
    }

    fn complain(&mut self, error: &SourceError, pause: Duration) {
        let (kind, detail) = (error.kind(), error::chain(error));
        if self.complaints.worth_logging(&detail, std::time::Instant::now()) {
            let (error_name, remedy) = (kind.name(), kind.remedy());
            tracing::error!(db = "*", error_name, error = detail, remedy, retry_in = ?pause, "sync failed");
        }
        // Databases without a task wait for the list: nobody else tells why they do not come.
        for state in self.context.board.states().iter().filter(|state| !self.tasks.contains_key(&state.name)) {
            self.context.board.failed(&state.name, kind, &detail);
        }
    }

    /// Takes over a new list: new databases start, missing ones are told.
    fn observe(&mut self, List { dbs: listed, awaited, deleted }: List) {
        self.note_deleted(deleted);
        // A list that was made while one was deleted or restored may tell both of it: the next one tells which.
        let listed: Vec<Listed> = listed.into_iter().filter(|listed| !self.deleted.contains(&listed.name)).collect();
        let mut known: Vec<String> = listed.iter().map(|listed| listed.name.clone()).collect();
        known.sort();
        self.known = Some(known);
        let followed: BTreeMap<String, Listed> = listed
            .into_iter()
            .filter(|listed| !self.omit.contains(&listed.name) && names::is_database_name(&listed.name))
            .map(|listed| (listed.name.clone(), listed))
            .collect();
        let is_offered = |name: &String| !self.omit.contains(name) && names::is_database_name(name);
        let awaited: BTreeSet<String> = awaited.into_iter().filter(is_offered).collect();
        let board = &self.context.board;
        // All of them before any task runs: ready means that all are there, not the first one.
        let all = followed.keys().chain(&awaited);
        all.for_each(|name| board.register(DatabaseState::new(name, "bootstrap")));
        let missing = |name: &String| !followed.contains_key(name) && !awaited.contains(name);
        for name in self.tasks.keys().filter(|name| missing(name)).cloned().collect::<Vec<_>>() {
            self.missing(&name);
        }
        for state in self.context.board.states() {
            let waits = !self.tasks.contains_key(&state.name) && state.name != names::DEFAULT_DATABASE;
            if waits && missing(&state.name) {
                self.context.board.forget(&state.name);
            }
        }
        for (name, listed) in followed {
            match self.tasks.get(&name) {
                Some(task) => drop(task.listing.send_replace(Listing::Present(listed))),
                None => self.spawn(&name, Listing::Present(listed)),
            }
        }
    }

    /// Databases that the master has deleted end here; those that it has restored are listed again.
    fn note_deleted(&mut self, listed: Vec<String>) {
        let default = names::DEFAULT_DATABASE;
        let deleted: BTreeSet<String> =
            listed.into_iter().filter(|name| names::is_database_name(name) && name != default).collect();
        for name in &deleted {
            let Some(task) = self.tasks.remove(name) else { continue };
            tracing::info!(db = name, "the master has deleted this database: its file stays and is not served");
            task.shutdown.cancel();
            self.ending.extend([task.handle, task.files]);
            self.context.board.forget(name);
        }
        if deleted != self.deleted {
            self.context.board.deleted(&deleted);
            self.deleted = deleted;
        }
    }

    /// A database that the master does not list: kept and served if it is here, forgotten if it never was.
    fn missing(&mut self, name: &str) {
        let here = self.context.dir.database(name).exists() || name == names::DEFAULT_DATABASE;
        if here {
            if let Some(task) = self.tasks.get(name) {
                task.listing.send_replace(Listing::Missing);
            }
        } else if let Some(task) = self.tasks.remove(name) {
            task.shutdown.cancel();
            self.context.board.forget(name);
        }
    }

    fn spawn(&mut self, name: &str, listing: Listing) {
        let (listing, receiver) = watch::channel(listing);
        let (inbox, shutdown) = (Arc::new(Inbox::default()), self.shutdown.child_token());
        let running =
            keep_running(name.to_owned(), Arc::clone(&self.context), shutdown.clone(), Arc::clone(&inbox), receiver);
        let files = tokio::spawn(files::keep_running(name.to_owned(), Arc::clone(&self.context), shutdown.clone()));
        let task = Task { inbox, listing, shutdown, handle: tokio::spawn(running), files };
        self.tasks.insert(name.to_owned(), task);
    }

    /// Fetches the list, asks every database for the master's head, and answers when all have ended their round.
    async fn ask_all(&mut self, ask: Ask, reply: oneshot::Sender<SyncReport>) {
        let listed = select! {
            () = self.shutdown.cancelled() => return,
            listed = self.context.source.status(None, Duration::ZERO) => listed,
        };
        let failure = listed.as_ref().err().map(|error| Outcome::Failed(error::chain(error)));
        self.heard(listed);
        let context = Arc::clone(&self.context);
        if let Some(outcome) = failure {
            // Whoever asked may have gone, here and below.
            let _ = reply.send(SyncReport { dbs: context.board.states(), outcome, verified: Vec::new() });
            return;
        }
        let rounds: Vec<_> = self.tasks.values().map(|task| task.inbox.request(ask)).collect();
        tokio::spawn(async move {
            let (mut outcome, mut verified) = (Outcome::AtHead, Vec::new());
            for round in rounds {
                match round.await {
                    Ok(answered) => {
                        outcome = outcome.or_worse(answered.outcome);
                        verified.extend(answered.verified);
                    }
                    Err(_) => {
                        let ended = "the agent stopped before the sync was done".to_owned();
                        outcome = outcome.or_worse(Outcome::Failed(ended));
                    }
                }
            }
            // Whoever asked looks at `status` next.
            let board = Arc::clone(&context);
            blocking::run(move || board.board.flush()).await;
            let _ = reply.send(SyncReport { dbs: context.board.states(), outcome, verified });
        });
    }
}

/// Brings the databases to where the master stands now, and ends: the directory's lock is let go. Settings that do not
/// poll (`Schedule::Manual`) are meant for it.
pub async fn sync_once(config: AgentConfig) -> Result<SyncReport, StartError> {
    ask_once(config, Ask::Sync).await
}

/// Does what is asked once, with an agent of its own.
pub(crate) async fn ask_once(config: AgentConfig, ask: Ask) -> Result<SyncReport, StartError> {
    let agent = Supervisor::start(config)?;
    let mut report = agent.ask(ask).await;
    if report.outcome == Outcome::AtHead {
        // Nobody fetches them once this has ended.
        if let Some(error) = agent.files_settled().await {
            report.outcome = Outcome::Failed(error);
        }
    }
    agent.shutdown().await;
    Ok(report)
}

/// Runs one database's task until it is told to end, and starts it anew when it panics.
async fn keep_running(
    db: String,
    context: Arc<Context>,
    shutdown: CancellationToken,
    inbox: Arc<Inbox>,
    listing: watch::Receiver<Listing>,
) {
    let mut backoff = Backoff::default();
    loop {
        let agent = Agent::new(&db, Arc::clone(&context), shutdown.clone(), Arc::clone(&inbox), listing.clone());
        let Err(panic) = tokio::spawn(agent.run()).await else { return };
        let pause = backoff.next(None);
        let (error_name, remedy) = (ErrorKind::Panicked.name(), ErrorKind::Panicked.remedy());
        tracing::error!(db, error_name, error = %panic, remedy, retry_in = ?pause, "a database's task panicked, starting it anew");
        context.board.failed(&db, ErrorKind::Panicked, "its task panicked: see the log");
        select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests;
