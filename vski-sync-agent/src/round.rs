//! Requests to sync now, and their answers.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};
use vski_replication::node::DatabaseState;

/// How a requested sync ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", content = "reason", rename_all = "snake_case")]
pub enum Outcome {
    /// The copy holds what the master held when it was asked.
    AtHead,
    /// It did not work this time.
    Failed(String),
    /// It will not work until somebody acts.
    Stopped(String),
}

/// How a requested sync of all databases ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncReport {
    /// All databases afterwards.
    pub dbs: Vec<DatabaseState>,
    /// The worst outcome among them.
    pub outcome: Outcome,
}

impl Outcome {
    /// The worse of two: a stop, which only somebody can end, outweighs a failure, which the next try may.
    #[must_use]
    pub fn or_worse(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Stopped(_), _) | (_, Self::AtHead) => self,
            (_, Self::Stopped(_)) | (Self::AtHead, _) => other,
            (Self::Failed(_), Self::Failed(_)) => self,
        }
    }
}

/// Who waits for a database to be at the master's head.
pub(crate) type Waiting = oneshot::Sender<Outcome>;

/// Requests for one database. It outlives the task that serves it.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Vec<Waiting>>,
    arrived: Notify,
}

impl Inbox {
    /// Asks for a sync now; the receiver learns how it ended, and sees an error if the task ended before it.
    pub(crate) fn request(&self) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        self.arrived.notify_one();
        receiver
    }

    /// All requests that nobody has taken.
    pub(crate) fn take(&self) -> Vec<Waiting> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns when there is a request. One task waits here; it then takes.
    pub(crate) async fn arrived(&self) {
        // A permit may be left from requests that were taken already, so the list decides.
        while self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.arrived.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_outweighs_a_failure_and_a_failure_outweighs_success() {
        let (failed, stopped) = (Outcome::Failed("f".into()), Outcome::Stopped("s".into()));
        for outcomes in [[failed.clone(), stopped.clone()], [stopped.clone(), failed.clone()]] {
            assert_eq!(outcomes.into_iter().fold(Outcome::AtHead, Outcome::or_worse), stopped);
        }
        assert_eq!(failed.clone().or_worse(Outcome::AtHead), failed);
    }

    #[test]
    fn a_report_survives_its_json_form() {
        let report = SyncReport { dbs: vec![DatabaseState::new("a", "follow")], outcome: Outcome::Failed("x".into()) };
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains(r#""outcome":{"result":"failed","reason":"x"}"#), "{json}");
        assert_eq!(serde_json::from_str::<SyncReport>(&json).unwrap(), report);
    }
}
