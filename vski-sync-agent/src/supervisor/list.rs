//! The master's set of databases: asked for when it is due, compared with the tasks that run.
//!
//! What travels through: names and heads of the databases listed, names of those that a master above will list, names
//! of those deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use vski_replication::names;
use vski_replication::node::DatabaseState;

use super::Supervisor;
use crate::agent::Listing;
use crate::config::Schedule;
use crate::error;
use crate::source::{List, Listed, SourceError};

/// How long the master waits for another set of databases while streaming.
const STREAM_STATUS_WAIT: Duration = Duration::from_secs(20);

/// The shortest time between two lists while streaming, for a master that does not wait.
const STREAM_STATUS_PAUSE: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Waits until the list is due and asks for it. Dropped half-way, it is simply asked again.
    pub(super) async fn next_list(&self) -> Result<List, SourceError> {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
        let known = self.known.as_deref().filter(|_| self.context.schedule == Schedule::Stream);
        self.context.source.status(known, STREAM_STATUS_WAIT).await
    }

    /// Takes over an answer, and says when the next one is due.
    pub(super) fn heard(&mut self, listed: Result<List, SourceError>) {
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
}
