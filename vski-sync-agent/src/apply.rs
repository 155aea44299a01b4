//! The local copy of one database: entries are applied here, on a blocking thread.
//!
//! Invariants: an entry and what it does are committed by one transaction, so the head of the local log is the truth
//! about the copy. A changeset runs only on the schema it was captured on. A conflict aborts and is never skipped.
//! Callers hand in entries that `crate::verify` has passed.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use vski_replication::changelog::{self, Cut, Head, LogSize, Pruned, Retention};
use vski_replication::datadir::DataDir;
use vski_replication::entry::{Entry, EpochReason, Kind};
use vski_replication::lease::{self, LEASE_FACTOR};
use vski_replication::position::{DatabaseId, Position, SchemaHash};
use vski_replication::schema::diff::{self, MigrateError};
use vski_replication::schema::keep::{self, Kept};
use vski_replication::schema::{self, Object};
use vski_replication::session::{self, ApplyError};
use vski_replication::trace::Trace;
use vski_replication::{connection, fault};

use self::spans::ApplySpans;
use crate::error::AgentError;
use crate::verify::VerifyError;

mod spans;

/// A database of this directory, open for applying.
pub struct LocalCopy {
    /// For log lines.
    db: String,
    conn: Connection,
    database_id: DatabaseId,
    /// Where the log ends; changed only after a commit.
    head: Head,
    /// The schema's hash and the `PRAGMA schema_version` it was computed at; changed only after a commit, because a
    /// rollback takes the pragma's number back, and another schema may use it next.
    schema: (i64, SchemaHash),
    /// How much history there is.
    size: LogSize,
}

/// Steps of pruning between two batches: the next batch must not wait long.
const PRUNE_STEPS: usize = 8;

/// How far a batch got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// All of it.
    All,
    /// Up to an entry that was captured on another schema than the one here.
    SchemaNeeded {
        /// The entry.
        version: u64,
        /// The schema here.
        local: SchemaHash,
        /// The schema it needs.
        master: SchemaHash,
    },
}

impl LocalCopy {
    /// Opens a database that is there. One that is not ours is neither changed nor replaced.
    pub fn open(db: &str, path: &Path) -> Result<Self, AgentError> {
        // Only reading at first: a writer would create a missing file and switch a stranger's one to WAL.
        changelog::database_id(&connection::reader(path)?)?;
        let conn = connection::applier(path)?;
        changelog::upgrade(&conn)?;
        let (database_id, head) = (changelog::database_id(&conn)?, changelog::head(&conn)?);
        let schema = (schema_cookie(&conn)?, schema::hash(&conn)?);
        Ok(Self { db: db.to_owned(), conn, database_id, head, schema, size: LogSize::default() })
    }

    /// Whose copy this is.
    pub(crate) fn database_id(&self) -> DatabaseId {
        self.database_id
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        self.head.position
    }

    /// Applies entries that follow the head, in one transaction if that works. If it does not, one by one: what is
    /// good before the first bad entry is kept, and the error is about that entry.
    pub fn apply(&mut self, entries: &[Entry]) -> Result<Applied, AgentError> {
        self.apply_pulled(entries, None)
    }

    /// Applies entries that the request whose span is `pulled` brought.
    pub(crate) fn apply_pulled(&mut self, entries: &[Entry], pulled: Option<Trace>) -> Result<Applied, AgentError> {
        match self.transaction(entries, pulled) {
            Ok(Applied::All) => Ok(Applied::All),
            Err(error @ (AgentError::Meddled | AgentError::Database(_))) => Err(error),
            outcome if entries.len() <= 1 => outcome,
            _ => {
                for entry in entries {
                    match self.transaction(std::slice::from_ref(entry), pulled)? {
                        Applied::All => {}
                        needed @ Applied::SchemaNeeded { .. } => return Ok(needed),
                    }
                }
                Ok(Applied::All)
            }
        }
    }

    /// Makes the schema that of the master before entry `version`, by the schema diff, in a transaction of its own.
    pub(crate) fn migrate(&mut self, version: u64, target: &[Object]) -> Result<(), AgentError> {
        let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        fault::sql("migrate:begin")?;
        diff::migrate(&transaction, target).map_err(|source| AgentError::schema(version, source))?;
        let schema = (schema_cookie(&transaction)?, schema::hash(&transaction)?);
        fault::sql("migrate:before-commit")?;
        transaction.commit()?;
        fault::sql("migrate:after-commit")?;
        self.schema = schema;
        Ok(())
    }

    /// Removes what the log has too much of, in bounded steps, as many as one pause between batches may hold.
    /// Without `by_age` only once the log is a tenth larger than it may be. What follows a snapshot that a server on
    /// `dir` has given out stays, up to a bound.
    pub(crate) fn prune(
        &mut self,
        retention: Retention,
        by_age: bool,
        now_ms: i64,
        dir: &DataDir,
    ) -> Result<Pruned, AgentError> {
        let mut total = Pruned::default();
        for _ in 0..PRUNE_STEPS {
            // Nobody else appends or removes: what was counted and noted since is what there is.
            let bytes = match self.size.at(self.head.position) {
                Some(bytes) => bytes,
                None => self.size.refresh(&self.conn)?,
            };
            if !by_age && bytes <= retention.max_bytes.saturating_add(retention.max_bytes / 10) {
                break;
            }
            let up_to = self.needed(dir, retention, bytes)?;
            let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
            fault::sql("prune:begin")?;
            let step = changelog::prune(&transaction, Cut { up_to, ..Cut::of(retention, bytes, now_ms) })?;
            fault::sql("prune:before-commit")?;
            transaction.commit()?;
            fault::sql("prune:after-commit")?;
            self.size.refresh(&self.conn)?;
            (total.entries, total.bytes, total.more) =
                (total.entries + step.entries, total.bytes + step.bytes, step.more);
            if !step.more {
                break;
            }
        }
        Ok(total)
    }

    /// The version after which entries stay for the sake of a leased snapshot.
    fn needed(&self, dir: &DataDir, retention: Retention, log_bytes: u64) -> Result<u64, AgentError> {
        let failed = |source| AgentError::Io { action: "look at the leases in", path: dir.snapshots(), source };
        if log_bytes > retention.max_bytes.saturating_mul(LEASE_FACTOR) {
            let broken = lease::break_all(dir, &self.db).map_err(failed)?;
            if broken > 0 {
                tracing::warn!(
                    db = self.db,
                    version = self.head.position.version,
                    log_bytes,
                    "snapshot lease broken: the log grew too large meanwhile"
                );
            }
        }
        Ok(lease::oldest_needed(dir, &self.db).map_err(failed)?.unwrap_or(u64::MAX))
    }

    fn transaction(&mut self, entries: &[Entry], pulled: Option<Trace>) -> Result<Applied, AgentError> {
        // Dropping the transaction, as every early return does, rolls it back.
        let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        fault::sql("apply:begin")?;
        let mut spans = ApplySpans::new(pulled);
        let mut head = changelog::head(&transaction)?;
        if head.position != self.head.position {
            return Err(AgentError::Meddled);
        }
        let mut local = match schema_cookie(&transaction)? {
            cookie if cookie == self.schema.0 => self.schema.1,
            _ => schema::hash(&transaction)?,
        };
        fault::sql("apply:schema")?;
        for entry in entries {
            if entry.kind == Kind::Changes && local != entry.schema_hash {
                return Ok(Applied::SchemaNeeded { version: entry.version, local, master: entry.schema_hash });
            }
            spans.begin(&self.db, entry);
            self.execute(&transaction, entry, local)?;
            if entry.kind == Kind::Schema {
                local = entry.schema_hash;
            }
            fault::sql("apply:before-append")?;
            changelog::append(&transaction, entry)?;
            head = Head::after(entry);
        }
        let cookie = schema_cookie(&transaction)?;
        fault::sql("apply:before-commit")?;
        transaction.commit()?;
        fault::sql("apply:after-commit")?;
        spans.committed();
        self.size.appended(head.position, entries.iter().map(|entry| entry.payload.len() as u64).sum());
        (self.head, self.schema) = (head, (cookie, local));
        Ok(Applied::All)
    }

    fn execute(&self, conn: &Connection, entry: &Entry, local: SchemaHash) -> Result<(), AgentError> {
        let payload = |error| AgentError::Verify(VerifyError::Decode(error));
        match entry.kind {
            Kind::Changes => apply_changeset(conn, entry.version, &entry.payload),
            Kind::Schema => {
                let (change, changeset) = entry.schema_change().map_err(payload)?;
                let failed = |source| AgentError::schema(entry.version, source);
                if local == change.before {
                    let kept = keep::run_keeping(conn, &change.statements, entry.version).map_err(failed)?;
                    for Kept { table, name } in kept {
                        tracing::info!(
                            db = self.db,
                            version = entry.version,
                            table,
                            kept_as = name,
                            "a table that the master dropped is kept"
                        );
                    }
                } else if local != entry.schema_hash {
                    tracing::info!(db = self.db, %local, master = %change.before, "schema mismatch");
                    diff::migrate(conn, &change.objects).map_err(failed)?;
                }
                let found = schema::hash(conn)?;
                if found != entry.schema_hash {
                    return Err(failed(MigrateError::NotReached { expected: entry.schema_hash, found }));
                }
                apply_changeset(conn, entry.version, changeset)
            }
            Kind::Epoch => match entry.epoch_change().map_err(payload)?.reason {
                EpochReason::Promoted => Ok(()),
                EpochReason::ForeignEdit | EpochReason::Uncaptured => {
                    Err(AgentError::Uncaptured { version: entry.version })
                }
            },
        }
    }
}

fn apply_changeset(conn: &Connection, version: u64, changeset: &[u8]) -> Result<(), AgentError> {
    session::apply(conn, changeset).map_err(|error| match error {
        ApplyError::Conflict(conflict) => AgentError::Conflict { version, conflict },
        ApplyError::Sqlite(error) => error.into(),
    })
}

fn schema_cookie(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))
}

#[cfg(test)]
mod tests;
