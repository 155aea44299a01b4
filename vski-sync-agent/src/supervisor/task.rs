//! One database's task: begun, watched, and begun anew when it panics.

use std::sync::Arc;

use tokio::select;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Supervisor;
use crate::agent::{Agent, Context, Listing};
use crate::backoff::Backoff;
use crate::error::ErrorKind;
use crate::files;
use crate::round::Inbox;

/// One database's task.
pub(super) struct Task {
    pub(super) inbox: Arc<Inbox>,
    pub(super) listing: watch::Sender<Listing>,
    pub(super) shutdown: CancellationToken,
    pub(super) handle: JoinHandle<()>,
    /// Its uploaded files.
    pub(super) files: JoinHandle<()>,
}

impl Supervisor {
    /// Begins the task of a database that has none.
    pub(super) fn spawn(&mut self, name: &str, listing: Listing) {
        let (listing, receiver) = watch::channel(listing);
        let (inbox, shutdown) = (Arc::new(Inbox::default()), self.shutdown.child_token());
        let running =
            keep_running(name.to_owned(), Arc::clone(&self.context), shutdown.clone(), Arc::clone(&inbox), receiver);
        let files = tokio::spawn(files::keep_running(name.to_owned(), Arc::clone(&self.context), shutdown.clone()));
        let task = Task { inbox, listing, shutdown, handle: tokio::spawn(running), files };
        self.tasks.insert(name.to_owned(), task);
    }
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
