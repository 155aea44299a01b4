//! One transaction of the write path: requests, each in its own savepoint, captured by one session, and their log
//! entry, committed together or not at all.
//!
//! After **every** error the connection is asked whether the transaction still lives. An error may have ended it
//! (disk full, I/O, `ON CONFLICT ROLLBACK`); what ran afterwards would then commit by itself, without an entry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::watch;
use vski_replication::changelog::{self, Head};
use vski_replication::entry::{Entry, EpochChange, EpochReason, Kind, SchemaChange, schema_payload};
use vski_replication::fault;
use vski_replication::position::{Epoch, EpochId};
use vski_replication::schema::{self, diff};
use vski_replication::session::Session;
use vski_replication::trace::Trace;

use super::collections::Seen;
use super::commit_span::CommitSpan;
use super::error::{NOT_UNIQUE, StoreError};
use super::replicable::{self, Verdict};
use super::request::Request;
use crate::metrics::WriterMetrics;

/// The most changes one request may make, bytes of changeset (upper bound as SQLite counts it).
pub const CAPTURE_CAP: usize = 64 << 20;

/// A batch is cut before its changes exceed this, bytes of changeset.
pub const BATCH_CAP: usize = 8 << 20;

/// Fault labels around each kind of commit.
const ROWS_LABELS: [&str; 2] = ["rows:before-commit", "rows:after-commit"];
const SCHEMA_LABELS: [&str; 2] = ["schema:before-commit", "schema:after-commit"];
const UPKEEP_LABELS: [&str; 2] = ["upkeep:before-commit", "upkeep:after-commit"];
const MIGRATION_LABELS: [&str; 2] = ["migration:before-commit", "migration:after-commit"];
const EPOCH_LABELS: [&str; 2] = ["epoch:before-commit", "epoch:after-commit"];

/// One request's outcome inside a transaction that went on.
pub type Outcome = Result<(), StoreError>;

/// What became of a batch.
pub struct Committed {
    /// One per request that ran; requests beyond were cut off and run next.
    pub outcomes: Vec<Outcome>,
}

/// The writer's connection and what it knows of the file.
pub struct WriteConnection {
    conn: Connection,
    /// How often it has committed.
    commits: Arc<AtomicU64>,
    /// The log's end as of the last own commit.
    head: Head,
    /// SQLite's counter of foreign commits at that time.
    data_version: i64,
    database: String,
    /// On its schema as of the last change of it.
    verdict: Verdict,
    /// Of the transaction under way.
    span: CommitSpan,
    /// Of the catalogue, as of the last change of it: requests that share a transaction never change it.
    seen: Seen,
    metrics: WriterMetrics,
}

impl WriteConnection {
    /// Wraps an open database whose log exists.
    pub fn new(database: &str, conn: Connection, metrics: WriterMetrics) -> Result<Self, StoreError> {
        let head = changelog::head(&conn)?;
        let data_version = data_version(&conn)?;
        let (verdict, span) = (Verdict::good(database), CommitSpan::default());
        let (database, seen) = (database.to_owned(), Seen::default());
        let commits = Arc::default();
        Ok(Self { conn, commits, head, data_version, database, verdict, span, seen, metrics })
    }

    /// The log's end.
    pub fn head(&self) -> Head {
        self.head
    }

    /// How often it has committed: counted before anybody is answered.
    pub fn commits(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.commits)
    }

    /// What keeps the database from being replicated, now and later.
    pub fn problems(&self) -> watch::Receiver<Option<String>> {
        self.verdict.subscribe()
    }

    /// Runs requests that change rows only, as one transaction with one `changes` entry.
    /// An error concerns the whole transaction: nothing of it is stored.
    pub fn commit_rows(&mut self, batch: &mut [Box<dyn Request>]) -> Result<Committed, StoreError> {
        self.begin()?;
        self.span = CommitSpan::begin(&self.database);
        let result = self.rows(batch);
        self.end(result, ROWS_LABELS)
    }

    /// Runs one request that may change the schema, as one transaction with one `schema` entry.
    pub fn commit_schema(&mut self, request: &mut dyn Request) -> Result<(), StoreError> {
        self.begin()?;
        self.caused_by(request.trace());
        let result = self.schema(request);
        let done = self.end(result, SCHEMA_LABELS);
        self.look_again();
        done
    }

    /// Runs one request that changes our own bookkeeping only, as one transaction without an entry.
    pub fn commit_upkeep(&mut self, request: &mut dyn Request) -> Result<(), StoreError> {
        self.begin()?;
        let result = request.run(&self.conn).map(|()| ((), self.head));
        self.end(result, UPKEEP_LABELS)
    }

    /// Runs a manual migration, of a request in `trace`, as one transaction with one entry. `work` returns the head that it appended.
    pub fn commit_migration<T>(
        &mut self,
        trace: Option<Trace>,
        work: impl FnOnce(&Self) -> Result<(T, Head), StoreError>,
    ) -> Result<T, StoreError> {
        self.begin()?;
        self.caused_by(trace);
        let result = work(self);
        let done = self.end(result, MIGRATION_LABELS);
        self.look_again();
        done
    }

    /// The connection, inside [`Self::commit_migration`] for statements, and outside for settings.
    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// The connection, for what is set on it between transactions.
    pub(super) fn conn_mut(&mut self) -> &mut Connection {
        &mut self.conn
    }

    /// Finds edits behind our back in a file that was just opened; `edited` if it looks otherwise than it was left.
    pub fn notice_offline_edit(&mut self, edited: bool) -> Result<(), StoreError> {
        if !edited && schema::hash(&self.conn)? == self.head.schema_hash {
            return Ok(());
        }
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        let result = self.append_foreign_edit();
        self.end(result, EPOCH_LABELS)
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let found = match data_version(&self.conn) {
            Ok(found) => found,
            Err(error) => return self.end(Err(error.into()), EPOCH_LABELS),
        };
        if found == self.data_version {
            return Ok(());
        }
        let noted = self.append_foreign_edit();
        self.end(noted, EPOCH_LABELS)?;
        self.verdict.look(&self.conn);
        self.data_version = data_version(&self.conn)?;
        Ok(self.conn.execute_batch("BEGIN IMMEDIATE")?)
    }

    /// After a change of the schema that may have removed what stood in the way.
    fn look_again(&self) {
        if self.verdict.is_bad() {
            self.verdict.look(&self.conn);
        }
    }

    /// Begins the span of a transaction with one request.
    fn caused_by(&mut self, trace: Option<Trace>) {
        self.span = CommitSpan::begin(&self.database);
        self.span.caused_by(std::iter::once(trace));
    }

    /// Commits what `work` did, or rolls back. `work` returns the head it wrote.
    fn end<T>(&mut self, work: Result<(T, Head), StoreError>, labels: [&str; 2]) -> Result<T, StoreError> {
        let committed = work.and_then(|(value, head)| {
            fault::sql(labels[0])?;
            let started = Instant::now();
            self.conn.prepare_cached("COMMIT")?.execute([])?;
            self.commits.fetch_add(1, Ordering::Release);
            self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
            fault::point(labels[1]);
            self.head = head;
            Ok(value)
        });
        if committed.is_err() && !self.conn.is_autocommit() {
            // The journal rolls back at the next open if even this fails; the error to report is the first one.
            let _ = self.conn.execute_batch("ROLLBACK");
        }
        if labels != ROWS_LABELS {
            self.seen.forget();
        }
        let version = committed.is_ok().then_some(self.head.position.version);
        std::mem::take(&mut self.span).end(version);
        committed
    }

    fn rows(&mut self, batch: &mut [Box<dyn Request>]) -> Result<(Committed, Head), StoreError> {
        let session = Session::start(&self.conn)?;
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut accepted = 0;
        for request in batch.iter_mut() {
            let before = session.changeset_size();
            self.conn.prepare_cached("SAVEPOINT request")?.execute([])?;
            let mut outcome = self.seen.during(&self.conn, || request.run(&self.conn));
            if self.conn.is_autocommit() {
                return Err(outcome.err().unwrap_or_else(|| StoreError::Invalid("the transaction was ended".into())));
            }
            let size = session.changeset_size().saturating_sub(before);
            if outcome.is_ok() && size > CAPTURE_CAP {
                outcome = Err(StoreError::TooLarge { limit_bytes: CAPTURE_CAP });
            }
            let cut = outcome.is_ok() && accepted > 0 && accepted + size > BATCH_CAP;
            if cut || outcome.is_err() {
                self.conn.prepare_cached("ROLLBACK TO request")?.execute([])?;
            } else {
                accepted += size;
            }
            self.conn.prepare_cached("RELEASE request")?.execute([])?;
            if cut {
                break;
            }
            outcomes.push(outcome);
        }
        fault::sql("rows:after-requests")?;
        let changeset = self.captured(&session)?;
        drop(session);
        let ran = batch.iter().zip(&outcomes);
        self.span.caused_by(ran.filter(|(_, outcome)| outcome.is_ok()).map(|(request, _)| request.trace()));
        let head = self.append_changes(changeset)?;
        Ok((Committed { outcomes }, head))
    }

    fn schema(&self, request: &mut dyn Request) -> Result<((), Head), StoreError> {
        fault::sql("schema:before-ddl")?;
        let statements = request.statements(&self.conn)?;
        diff::run(&self.conn, &statements).map_err(|error| match error {
            diff::MigrateError::Statement { statement, source } if source.sqlite_error_code().is_some() => {
                tracing::debug!(%statement, error = %source, "schema statement refused");
                refused(&statement, source)
            }
            other => StoreError::Invalid(other.to_string()),
        })?;
        fault::sql("schema:after-ddl")?;
        let session = Session::start(&self.conn)?;
        request.run(&self.conn)?;
        fault::sql("schema:after-rows")?;
        let changeset = self.captured(&session)?;
        drop(session);
        if statements.is_empty() {
            return Ok(((), self.append_changes(changeset)?));
        }
        self.check_gate()?;
        Ok(((), self.append_schema(statements, &changeset)?))
    }

    /// Refuses a schema that cannot be replicated.
    pub(super) fn check_gate(&self) -> Result<(), StoreError> {
        let Some(problems) = replicable::problems(&self.conn)? else { return Ok(()) };
        Err(StoreError::Invalid(format!("this schema cannot be replicated: {problems}")))
    }

    /// The entry of a schema change that has run.
    pub(super) fn append_schema(&self, statements: Vec<String>, changeset: &[u8]) -> Result<Head, StoreError> {
        let objects = schema::objects(&self.conn)?;
        let after = schema::hash_objects(&objects);
        let change = SchemaChange { before: self.head.schema_hash, statements, objects };
        let payload = schema_payload(&change, changeset);
        let entry = self.append(self.head.next(Kind::Schema, self.head.position.epoch, after, payload))?;
        fault::sql("schema:after-append")?;
        Ok(Head::after(&entry))
    }

    fn captured(&self, session: &Session<'_>) -> Result<Vec<u8>, StoreError> {
        let started = Instant::now();
        let changeset = session.changeset()?;
        self.metrics.capture_seconds.observe(started.elapsed().as_secs_f64());
        self.metrics.changeset_bytes.observe(changeset.len() as f64);
        Ok(changeset)
    }

    /// Nothing changed, nothing logged.
    pub(super) fn append_changes(&self, changeset: Vec<u8>) -> Result<Head, StoreError> {
        if changeset.is_empty() {
            return Ok(self.head);
        }
        let entry = self.head.next(Kind::Changes, self.head.position.epoch, self.head.schema_hash, changeset);
        let entry = self.append(entry)?;
        fault::sql("rows:after-append")?;
        Ok(Head::after(&entry))
    }

    /// Another connection changed the file: the log cannot say what, so a new epoch begins and replicas must compare.
    fn append_foreign_edit(&self) -> Result<((), Head), StoreError> {
        let head = self.append_epoch(EpochReason::ForeignEdit)?;
        tracing::warn!(
            db = self.database,
            version = head.position.version,
            generation = head.position.epoch.generation,
            "the database file was changed by another program; replicas must be compared with it"
        );
        Ok(((), head))
    }

    /// Begins a new epoch: what was changed before this entry is not in the log.
    pub(super) fn append_epoch(&self, reason: EpochReason) -> Result<Head, StoreError> {
        let head = changelog::head(&self.conn)?;
        let epoch = Epoch { generation: head.position.epoch.generation + 1, id: EpochId::random() };
        let payload = serde_json::to_vec(&EpochChange { reason }).expect("a unit enum always serialises");
        let entry = self.append(head.next(Kind::Epoch, epoch, schema::hash(&self.conn)?, payload))?;
        fault::sql("epoch:after-append")?;
        Ok(Head::after(&entry))
    }

    fn append(&self, entry: Entry) -> Result<Entry, StoreError> {
        let entry = Entry { trace: self.span.trace(), ..entry };
        changelog::append(&self.conn, &entry)?;
        Ok(entry)
    }
}

/// What a statement of a schema change that did not run means to whoever asked for it.
fn refused(statement: &str, source: rusqlite::Error) -> StoreError {
    match source.sqlite_error_code() {
        // Only a unique index looks at what is stored already.
        Some(ErrorCode::ConstraintViolation) => StoreError::field(
            "indexes",
            NOT_UNIQUE,
            format!("cannot be made unique, because there are records with equal values ({source}): {statement}"),
        ),
        Some(ErrorCode::Unknown) => StoreError::Invalid(format!("SQLite refuses this ({source}): {statement}")),
        _ => source.into(),
    }
}

fn data_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}
