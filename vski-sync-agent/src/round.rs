//! Requests to sync or verify now, and their answers.

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
    /// What was compared, if that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<Verified>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To be at the master's head.
    Sync,
    /// To be compared with the master, too.
    Verify {
        /// Whether to converge where they differ.
        repair: bool,
    },
}

/// A copy compared with its master at one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// The database.
    pub db: String,
    /// The version at which both were compared.
    pub version: u64,
    /// Tables that were compared.
    pub tables: usize,
    /// Rows that the master has in them.
    pub rows: u64,
    /// Where they differ; empty is good.
    pub differences: Vec<TableDifference>,
    /// Uploaded files that were compared with their rows: all of them, unless rows differ.
    #[serde(default)]
    pub files: u64,
    /// How many of them are missing here, or are not what their rows say.
    #[serde(default)]
    pub files_differing: u64,
    /// The first of these, and what is wrong with each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub file_differences: Vec<String>,
}

/// A table whose rows are not the master's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableDifference {
    /// Its name.
    pub table: String,
    /// Ranges that differ, by number, of the master's: the first thousand at most.
    pub ranges: Vec<usize>,
    /// How many differ.
    pub differing: usize,
    /// How many ranges the master has.
    pub of: usize,
    /// Rows here.
    pub rows_here: u64,
    /// Rows on the master.
    pub rows_on_master: u64,
}

impl Verified {
    /// Whether rows and files are the master's.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty() && self.files_differing == 0
    }

    /// The differences in one line.
    #[must_use]
    pub fn told(&self) -> String {
        let told = self.differences.iter().map(|difference| {
            let TableDifference { table, ranges, differing, of, rows_here, rows_on_master } = difference;
            let some: Vec<String> = ranges.iter().take(8).map(ToString::to_string).collect();
            let more = if *differing > some.len() { ", ..." } else { "" };
            let numbers = some.join(", ");
            format!("table {table} differs in {differing} of {of} ranges ({numbers}{more}), {rows_here} rows here, {rows_on_master} there")
        });
        let files = (self.files_differing > 0).then(|| {
            let (differing, files) = (self.files_differing, self.files);
            let some: Vec<&str> = self.file_differences.iter().take(8).map(String::as_str).collect();
            let more = if differing > some.len() as u64 { ", ..." } else { "" };
            format!("{differing} of {files} uploaded files differ: {}{more}", some.join(", "))
        });
        told.chain(files).collect::<Vec<_>>().join("; ")
    }
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

/// How one database's part of a request ended.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) outcome: Outcome,
    pub(crate) verified: Option<Verified>,
}

/// Who waits for a database, and for what.
pub(crate) struct Waiting {
    pub(crate) ask: Ask,
    pub(crate) reply: oneshot::Sender<Answered>,
}

/// Requests for one database. It outlives the task that serves it.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Vec<Waiting>>,
    arrived: Notify,
}

impl Inbox {
    /// Asks for something now; the receiver learns how it ended, and sees an error if the task ended before it.
    pub(crate) fn request(&self, ask: Ask) -> oneshot::Receiver<Answered> {
        let (reply, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Waiting { ask, reply });
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
        let report = SyncReport {
            dbs: vec![DatabaseState::new("a", "follow")],
            outcome: Outcome::Failed("x".into()),
            verified: vec![],
        };
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains(r#""outcome":{"result":"failed","reason":"x"}"#), "{json}");
        assert_eq!(serde_json::from_str::<SyncReport>(&json).unwrap(), report);
    }
}
