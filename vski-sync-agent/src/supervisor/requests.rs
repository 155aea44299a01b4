//! Requests to sync or verify now: passed to every database's task, answered once all have ended their round.

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::oneshot;

use super::{AgentConfig, Ask, Outcome, StartError, Supervisor, SyncReport};
use crate::blocking;
use crate::error;

/// What is asked of all databases, and by whom.
pub(super) type Request = (Ask, oneshot::Sender<SyncReport>);

impl Supervisor {
    /// Fetches the list, asks every database for the master's head, and answers when all have ended their round.
    pub(super) async fn ask_all(&mut self, ask: Ask, reply: oneshot::Sender<SyncReport>) {
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
    let agent = Supervisor::start_alone(config)?;
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
