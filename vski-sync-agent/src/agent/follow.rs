//! Following: ask for what comes after the local head, verify it, apply it, and migrate where the schema is another.

use std::time::{Duration, Instant};

use tokio::select;
use vski_replication::changelog::Pruned;
use vski_replication::entry::{Entry, Kind};
use vski_replication::position::{DatabaseId, Position, SchemaHash};
use vski_replication::trace::Trace;
use vski_replication::{clock, files};

use super::relayed::Seen;
use super::{Agent, Event, ahead};
use crate::apply::{Applied, LocalCopy};
use crate::error::AgentError;
use crate::round::Outcome;
use crate::source::{Changes, SourceError};
use crate::verify::VerifyError;
use crate::{blocking, lineage, verify};

/// How often the local log is looked at for entries that are too old. One that grows too large is cut at once.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// A batch of up to so many bytes is short, if it changes rows only and the last one took no longer than this: it is applied where its
/// answer came.
const SHORT_BYTES: usize = 64 << 10;
const SHORT: Duration = Duration::from_millis(5);

/// The largest batch that is searched for rows of uploaded files.
const SEARCHED_BYTES: usize = 256 << 10;

impl Agent {
    /// Asks for what follows the local head, and applies it.
    pub(super) async fn ask(&mut self, wait: Duration) -> Result<Event, AgentError> {
        self.answering.append(&mut self.inbox.take());
        self.check_listed()?;
        let (database_id, position) = self.open().await?;
        let held = self.held(position);
        let ahead = self.ahead.take();
        let next = async {
            match ahead::answer(ahead, position).await {
                Some(answer) => Ok(answer),
                None => self.context.source.changeset(&self.db, position, held, wait).await,
            }
        };
        let answer = select! {
            biased;
            () = self.shutdown.cancelled() => return Ok(Event::Retry),
            () = self.inbox.arrived(), if !wait.is_zero() => return Ok(Event::Due),
            answer = next => answer,
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
            Changes::AtHead | Changes::ParentBehind => {
                if self.is_prune_due() {
                    self.prune().await?;
                }
                position
            }
            Changes::Entries(frames) => {
                self.ask_ahead(&frames, answer.head);
                self.apply(frames, u64::MAX, answer.pulled).await?
            }
            Changes::Diverged { common } => return Err(AgentError::Lost { common }),
            Changes::BelowBase { base } => return Err(AgentError::Pruned { base }),
        };
        self.backoff.reset();
        self.complaints.clear();
        self.stop = None;
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
                // The first batch counts how much history there is.
                self.was_short = false;
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
        let (due, retention, dir) = (self.is_prune_due(), self.context.retention, self.context.dir.clone());
        let may_be_short = !due && frames.len() <= SHORT_BYTES && self.was_short;
        let own_thread = self.context.own_thread.as_ref().filter(|_| may_be_short);
        let verified = own_thread.map(|_| verify::entries(copy.position(), &frames));
        let is_short = matches!(&verified, Some(Ok(entries)) if changes_rows_only(entries));
        let is_here = is_short && own_thread.is_some_and(|own| own.take(&self.db));
        // All of it at once: for a small entry, going to another thread and back costs more than the work there.
        let work = move || {
            let started = Instant::now();
            let verified = verified.unwrap_or_else(|| verify::entries(copy.position(), &frames));
            let batch = Batch::apply(&mut copy, verified, frames.len(), last, pulled, started);
            let applied = matches!(batch.applied, Ok(Applied::All));
            let pruned = applied.then(|| copy.prune(retention, due, clock::now_ms(), &dir));
            (copy, Batch { pruned, ..batch }, started.elapsed() <= SHORT)
        };
        let (copy, batch, was_short) = if is_here { work() } else { blocking::run(work).await };
        self.was_short = was_short;
        let position = copy.position();
        self.copy = Some(copy);
        if batch.entries > 0 {
            self.context.board.metrics.applied(&self.db, batch.entries, batch.bytes, batch.took);
            self.context.board.applied(&self.db, position, batch.file_rows);
        }
        if let Applied::SchemaNeeded { version, local, master } = batch.applied? {
            self.migrate(version, local, master).await?;
        }
        if let Some(pruned) = batch.pruned {
            self.note_pruned(due, pruned?);
        }
        Ok(position)
    }

    fn is_prune_due(&self) -> bool {
        self.pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY)
    }

    /// Cuts the local log from below, with nothing to apply.
    async fn prune(&mut self) -> Result<(), AgentError> {
        let mut copy = self.copy.take().expect("the log is cut after an answer, with the copy open");
        let (retention, dir) = (self.context.retention, self.context.dir.clone());
        let (copy, pruned) = blocking::run(move || {
            let pruned = copy.prune(retention, true, clock::now_ms(), &dir);
            (copy, pruned)
        })
        .await;
        self.copy = Some(copy);
        self.note_pruned(true, pruned?);
        Ok(())
    }

    fn note_pruned(&mut self, due: bool, pruned: Pruned) {
        if due {
            self.pruned = Some(Instant::now());
        }
        if pruned.entries > 0 {
            tracing::info!(db = self.db, entries = pruned.entries, bytes = pruned.bytes, "log pruned");
        }
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

/// Whether entries take about as long as their bytes say. A statement of another schema may take minutes.
fn changes_rows_only(entries: &[Entry]) -> bool {
    entries.iter().all(|entry| entry.kind == Kind::Changes)
}

/// What became of a batch.
struct Batch {
    applied: Result<Applied, AgentError>,
    /// How many of its entries were applied.
    entries: u64,
    /// Their payloads.
    bytes: u64,
    /// Whether they may have changed rows of uploaded files.
    file_rows: bool,
    took: Duration,
    /// What the log had too much of then; `None` where not all was applied.
    pruned: Option<Result<Pruned, AgentError>>,
}

impl Batch {
    /// Applies what was verified since `started`, out of frames of so many bytes.
    fn apply(
        copy: &mut LocalCopy,
        verified: Result<Vec<Entry>, VerifyError>,
        frame_bytes: usize,
        last: u64,
        pulled: Option<Trace>,
        started: Instant,
    ) -> Self {
        let (applied, entries) = match verified {
            Ok(mut entries) => {
                entries.retain(|entry| entry.version <= last);
                (copy.apply_pulled(&entries, pulled), entries)
            }
            Err(error) => (Err(error.into()), Vec::new()),
        };
        let took = started.elapsed();
        let done = entries.iter().filter(|entry| entry.version <= copy.position().version);
        let (count, bytes) = done.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.payload.len() as u64));
        // Looking at the rows costs less than searching many bytes for them.
        let file_rows = frame_bytes > SEARCHED_BYTES || entries.iter().any(files::may_change);
        Self { applied, entries: count, bytes, file_rows, took, pruned: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Master;

    #[test]
    fn an_entry_of_another_schema_is_not_short() {
        let mut master = Master::new();
        let start = master.position().version;
        let migrated = master.schema(&["CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL)"]).version;
        master.changes("INSERT INTO t VALUES ('a')");
        assert!(changes_rows_only(&master.entries_after(migrated)));
        assert!(!changes_rows_only(&master.entries_after(start)));
    }
}
