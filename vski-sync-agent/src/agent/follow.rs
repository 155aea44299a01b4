//! Following: ask for what comes after the local head, verify it, apply it, and migrate where the schema is another.

use std::time::{Duration, Instant};

use tokio::select;
use vski_replication::clock;
use vski_replication::position::{DatabaseId, Position, SchemaHash};
use vski_replication::trace::Trace;

use super::relayed::Seen;
use super::{Agent, Event};
use crate::apply::{Applied, LocalCopy};
use crate::error::AgentError;
use crate::round::Outcome;
use crate::source::{Changes, SourceError};
use crate::{blocking, lineage, verify};

/// How often the local log is looked at for entries that are too old. One that grows too large is cut at once.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

impl Agent {
    /// Asks for what follows the local head, and applies it.
    pub(super) async fn ask(&mut self, wait: Duration) -> Result<Event, AgentError> {
        self.answering.append(&mut self.inbox.take());
        self.check_listed()?;
        let (database_id, position) = self.open().await?;
        let held = self.held(position);
        let answer = select! {
            biased;
            () = self.shutdown.cancelled() => return Ok(Event::Retry),
            () = self.inbox.arrived(), if !wait.is_zero() => return Ok(Event::Due),
            answer = self.context.source.changeset(&self.db, position, held, wait) => answer,
        };
        let answer = answer.map_err(|error| match error {
            SourceError::NotFound { .. } => AgentError::MissingOnMaster,
            error => error.into(),
        })?;
        self.publish(|state| state.last_contact_ms = Some(answer.answered_ms));
        if let Some(skew_ms) = self.context.source.clock_skew_ms() {
            self.context.board.clock_skew(skew_ms);
        }
        if let Some(path) = self.context.source.upstream() {
            self.context.board.upstream(&path);
        }
        if matches!(answer.changes, Changes::ParentBehind) {
            return self.wait_for_parent((database_id, position), &answer);
        }
        lineage::check((database_id, position), (answer.database_id, answer.head))?;
        self.source_head = Some(answer.head);
        let seen = Seen::of(&answer, wait);
        self.publish(|state| seen.note_head(state));
        let position = match answer.changes {
            Changes::AtHead | Changes::ParentBehind => position,
            Changes::Entries(frames) => self.apply(frames, u64::MAX, answer.pulled).await?,
            Changes::Diverged { common } => return Err(AgentError::Lost { common }),
            Changes::BelowBase { base } => return Err(AgentError::Pruned { base }),
        };
        self.backoff.reset();
        self.complaints.clear();
        self.stop = None;
        self.prune().await?;
        if position.version < answer.head.version {
            self.publish(|state| (state.state, state.detail) = ("catch_up".to_owned(), None));
            return Ok(Event::Behind);
        }
        self.publish(|state| {
            (state.state, state.detail) = ("follow".to_owned(), seen.trouble());
            state.at_head_ms = state.at_head_ms.max(seen.at_head_ms);
            // Entries may have been committed between the head that the answer names and the answer.
            if state.head.is_none_or(|head| position.version > head.version) {
                state.head = Some(position);
            }
        });
        self.verify_if_asked().await?;
        self.answer(&Outcome::AtHead);
        Ok(Event::AtHead)
    }

    /// The local copy, opened if it is not open.
    pub(super) async fn open(&mut self) -> Result<(DatabaseId, Position), AgentError> {
        let copy = match self.copy.take() {
            Some(copy) => copy,
            None => {
                let (db, path) = (self.db.clone(), self.context.dir.database(&self.db));
                let copy = blocking::run(move || LocalCopy::open(&db, &path)).await?;
                self.publish(|state| {
                    if state.state == "bootstrap" {
                        "catch_up".clone_into(&mut state.state);
                    }
                    (state.bootstrapped, state.position) = (true, Some(copy.position()));
                });
                copy
            }
        };
        let standing = (copy.database_id(), copy.position());
        self.copy = Some(copy);
        Ok(standing)
    }

    /// Verifies a batch, which the request `pulled` brought, and applies it up to version `last`; returns where the copy
    /// stands then.
    pub(super) async fn apply(
        &mut self,
        frames: Vec<u8>,
        last: u64,
        pulled: Option<Trace>,
    ) -> Result<Position, AgentError> {
        let mut copy = self.copy.take().expect("a batch is asked for with the copy open");
        let (copy, applied, counts, took) = blocking::run(move || {
            let started = Instant::now();
            let mut entries = match verify::entries(copy.position(), &frames) {
                Ok(entries) => entries,
                Err(error) => return (copy, Err(error.into()), (0, 0), started.elapsed()),
            };
            entries.retain(|entry| entry.version <= last);
            let applied = copy.apply_pulled(&entries, pulled);
            let done = entries.iter().filter(|entry| entry.version <= copy.position().version);
            let counts = done.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.payload.len() as u64));
            (copy, applied, counts, started.elapsed())
        })
        .await;
        let position = copy.position();
        self.copy = Some(copy);
        if counts.0 > 0 {
            self.context.board.metrics.applied(&self.db, counts.0, counts.1, took);
            self.publish(|state| state.position = Some(position));
        }
        if let Applied::SchemaNeeded { version, local, master } = applied? {
            self.migrate(version, local, master).await?;
        }
        Ok(position)
    }

    /// Cuts the local log from below, when it is time to.
    async fn prune(&mut self) -> Result<(), AgentError> {
        let (due, retention) = (self.pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY), self.context.retention);
        let mut copy = self.copy.take().expect("the log is cut after a batch, with the copy open");
        let dir = self.context.dir.clone();
        let (copy, pruned) = blocking::run(move || {
            let pruned = copy.prune(retention, due, clock::now_ms(), &dir);
            (copy, pruned)
        })
        .await;
        self.copy = Some(copy);
        let pruned = pruned?;
        if due {
            self.pruned = Some(Instant::now());
        }
        if pruned.entries > 0 {
            tracing::info!(db = self.db, entries = pruned.entries, bytes = pruned.bytes, "log pruned");
        }
        Ok(())
    }

    /// Brings the local schema to the master's before entry `version`.
    async fn migrate(&mut self, version: u64, local: SchemaHash, master: SchemaHash) -> Result<(), AgentError> {
        tracing::info!(db = self.db, %local, %master, "schema mismatch");
        let target = match self.context.source.schema(&self.db, version).await {
            Err(SourceError::NotFound { .. }) => return Err(AgentError::SchemaForgotten { version }),
            target => target?,
        };
        if !target.is(master) {
            let reason = format!("its schema at version {version} has not the hash {master} of that entry");
            return Err(SourceError::Malformed { call: "schema-sync", reason }.into());
        }
        let mut copy = self.copy.take().expect("a schema is asked for with the copy open");
        let (copy, migrated) = blocking::run(move || {
            let migrated = copy.migrate(version, &target.objects);
            (copy, migrated)
        })
        .await;
        self.copy = Some(copy);
        migrated
    }
}
