//! One supervisor: follows the master's set of databases, runs one task for each, answers requests to sync now.
//!
//! It owns the directory's lock and the writing of node.db for as long as it runs. A database that the master lists
//! gets a task; one that is only here keeps its task and is served on; one that is omitted is forgotten, and its
//! file stays. A panic in a task is logged and the task started anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::select;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vski_replication::changelog::Retention;
use vski_replication::datadir::{DataDir, DataDirError, DirLock};
use vski_replication::names;
use vski_replication::node::{DatabaseState, NodeDb};

use crate::agent::{Context, Listing};
use crate::backoff::{Backoff, Complaints};
use crate::blocking::{self, OwnThread};
use crate::board::Board;
use crate::config::{ConfigError, NodeConfig, SyncConfig};
use crate::fs;
use crate::metrics::AgentMetrics;
use crate::node_writer::NodeWriter;
use crate::source::{Identity, Source};

/// The master's set of databases.
mod list;

/// One database's task.
mod task;

/// What is asked of all of them at once.
mod requests;

/// How others talk to it.
mod handle;

pub use crate::round::{Ask, Outcome, SyncReport, Verified};
pub use handle::AgentHandle;
pub(crate) use handle::SYNC_PATIENCE;
use requests::Request;
pub(crate) use requests::ask_once;
pub use requests::sync_once;
use task::Task;

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
        Self::start_with(config, None)
    }

    /// The same on a runtime that is there for it alone: short transactions may run on its thread.
    pub fn start_alone(config: AgentConfig) -> Result<AgentHandle, StartError> {
        Self::start_with(config, Some(OwnThread::default()))
    }

    fn start_with(config: AgentConfig, own_thread: Option<OwnThread>) -> Result<AgentHandle, StartError> {
        let AgentConfig { dir, lock, node, node_id, node_config, sync_config, retention, file_grace, metrics } = config;
        let identity = Identity::new(node_config.secrets, node_id, node_config.public_url);
        let source = Source::new(&sync_config, identity)?;
        let (rows, files, deleted) = (node.databases()?, dir.databases()?, node.deleted()?);
        let (board, schedule) = (Board::new(NodeWriter::start(node)?, metrics), sync_config.schedule);
        let context = Arc::new(Context { source, dir, board, schedule, retention, file_grace, own_thread });
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
}

#[cfg(test)]
mod tests;
