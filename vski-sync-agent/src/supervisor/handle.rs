//! How the rest of the process talks to a running supervisor.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vski_replication::datadir::{DataDirError, DirLock};
use vski_replication::node::DatabaseState;

use super::{Ask, Outcome, Request, SyncReport};
use crate::agent::Context;

/// How long a requested sync is waited for.
pub(crate) const SYNC_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// A running supervisor. Clones talk to the same one; dropping them all does not stop it.
#[derive(Clone)]
pub struct AgentHandle {
    context: Arc<Context>,
    requests: mpsc::Sender<Request>,
    shutdown: CancellationToken,
    done: CancellationToken,
    /// `None` once the supervisor has ended and let the directory go.
    lock: Arc<Mutex<Option<DirLock>>>,
    /// Set once, by [`AgentHandle::release`]: the end was asked for, and the process stays.
    released: CancellationToken,
}

impl AgentHandle {
    pub(super) fn new(
        context: Arc<Context>,
        requests: mpsc::Sender<Request>,
        shutdown: CancellationToken,
        done: CancellationToken,
        lock: Arc<Mutex<Option<DirLock>>>,
    ) -> Self {
        Self { context, requests, shutdown, done, lock, released: CancellationToken::new() }
    }

    /// Fetches the list of databases and brings each to where the master stands now. Waits at most ten minutes.
    pub async fn sync_now(&self) -> SyncReport {
        self.ask(Ask::Sync).await
    }

    /// The same, and compares each database with the master; with `repair`, those that differ converge.
    pub async fn verify_now(&self, repair: bool) -> SyncReport {
        self.ask(Ask::Verify { repair }).await
    }

    /// Does what is asked with every database.
    pub(crate) async fn ask(&self, ask: Ask) -> SyncReport {
        let failed =
            |reason: String| SyncReport { dbs: self.states(), outcome: Outcome::Failed(reason), verified: Vec::new() };
        let (reply, report) = oneshot::channel();
        if self.requests.send((ask, reply)).await.is_err() {
            let reason =
                if self.is_released() { "the agent has let the directory go" } else { "the agent is stopping" };
            return failed(reason.to_owned());
        }
        match timeout(SYNC_PATIENCE, report).await {
            Ok(Ok(report)) => report,
            Ok(Err(_)) => failed("the agent is stopping".to_owned()),
            Err(_) => failed(format!("not at the master's head after {} s", SYNC_PATIENCE.as_secs())),
        }
    }

    /// Waits until all uploaded files are here, within reason; `Some` is why they are not.
    pub(crate) async fn files_settled(&self) -> Option<String> {
        let late = || Some(format!("uploaded files are missing after {} s", SYNC_PATIENCE.as_secs()));
        timeout(SYNC_PATIENCE, self.context.board.files_settled(None)).await.unwrap_or_else(|_| late())
    }

    /// How every database is doing, by name.
    #[must_use]
    pub fn states(&self) -> Vec<DatabaseState> {
        self.context.board.states()
    }

    /// Whether a whole copy of every offered database was ever here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.states().iter().any(DatabaseState::is_awaited)
    }

    /// Records where commands reach this process. Nothing happens after the end.
    pub fn set_admin(&self, url: String) -> Result<(), DataDirError> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.as_mut().map_or(Ok(()), |lock| lock.set_admin(url))
    }

    /// Ends everything: transactions under way are finished, node.db is written, the directory's lock is let go.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        self.finished().await;
    }

    /// Ends the supervisor, so that a command on this machine can take the directory, while the process stays.
    pub async fn release(&self) {
        self.released.cancel();
        tracing::info!("letting the directory go, as a command asks: nothing is synced until the next start");
        self.shutdown().await;
    }

    /// Whether the end was asked for by [`Self::release`].
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.released.is_cancelled()
    }

    /// Returns when the supervisor has ended, for whatever reason.
    pub async fn finished(&self) {
        self.done.cancelled().await;
    }
}
