//! The local copy of one database: entries are applied here, on a blocking thread.
//!
//! Invariants: an entry and what it does are committed by one transaction, so the head of the local log is the truth
//! about the copy. A changeset runs only on the schema it was captured on. A conflict aborts and is never skipped.
//! Callers hand in entries that `crate::verify` has passed.

use std::path::Path;

use rusqlite::Connection;
use vski_replication::changelog::{self, Head, LogError, LogSize};
use vski_replication::entry::{DecodeError, Entry, EpochReason, Kind};
use vski_replication::position::{DatabaseId, Position, SchemaHash};
use vski_replication::schema::diff::{self, MigrateError};
use vski_replication::schema::keep::{self, Kept};
use vski_replication::schema::{self, Object};
use vski_replication::session::{self, Applier, ApplyError};
use vski_replication::trace::Trace;
use vski_replication::{connection, fault};

use self::spans::ApplySpans;
use self::transaction::Immediate;
use crate::error::AgentError;
use crate::verify::VerifyError;

mod prune;
mod spans;
mod transaction;

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
    /// Applies what is as expected.
    applier: Applier,
}

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
        Ok(Self {
            db: db.to_owned(),
            conn,
            database_id,
            head,
            schema,
            size: LogSize::default(),
            applier: Applier::default(),
        })
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
        let transaction = Immediate::begin(&self.conn)?;
        fault::sql("migrate:begin")?;
        diff::migrate(&transaction, target).map_err(|source| AgentError::schema(version, source))?;
        let schema = (schema_cookie(&transaction)?, schema::hash(&transaction)?);
        fault::sql("migrate:before-commit")?;
        transaction.commit()?;
        fault::sql("migrate:after-commit")?;
        self.schema = schema;
        Ok(())
    }

    /// All entries in one transaction, or none of them: by statements that stay compiled where all is as they expect, else by
    /// SQLite's own function, which is right in all cases, or says what is wrong.
    fn transaction(&mut self, entries: &[Entry], pulled: Option<Trace>) -> Result<Applied, AgentError> {
        let (mut applier, mut spans) = (std::mem::take(&mut self.applier), ApplySpans::new(pulled));
        let tried = self.attempt(entries, &mut spans, |conn, entry, local| {
            if applier.apply(conn, local, &entry.payload)? { Ok(()) } else { Err(NotDone::Unexpected) }
        });
        self.applier = applier;
        let applied = match tried {
            Err(NotDone::Unexpected) => self
                .attempt(entries, &mut spans, |conn, entry, _| apply_changeset(conn, entry.version, &entry.payload))?,
            Err(NotDone::Failed(error)) => return Err(error),
            Ok(applied) => applied,
        };
        if applied == Applied::All {
            spans.committed();
        }
        Ok(applied)
    }

    /// The same, with one way to apply a changeset, of an entry, on the schema here.
    fn attempt<E>(
        &mut self,
        entries: &[Entry],
        spans: &mut ApplySpans,
        mut change: impl FnMut(&Connection, &Entry, SchemaHash) -> Result<(), E>,
    ) -> Result<Applied, E>
    where
        E: From<AgentError> + From<rusqlite::Error> + From<LogError>,
    {
        // Dropping the transaction, as every early return does, rolls it back.
        let transaction = Immediate::begin(&self.conn)?;
        fault::sql("apply:begin")?;
        let mut head = changelog::head(&transaction)?;
        if head.position != self.head.position {
            return Err(AgentError::Meddled.into());
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
            match entry.kind {
                Kind::Changes => change(&transaction, entry, local)?,
                Kind::Schema => self.change_schema(&transaction, entry, local)?,
                Kind::Epoch => follow_epoch(entry)?,
            }
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
        self.size.appended(head.position, entries.iter().map(|entry| entry.payload.len() as u64).sum());
        (self.head, self.schema) = (head, (cookie, local));
        Ok(Applied::All)
    }

    /// Makes the schema that of an entry, by its own statements where the schema is the one that they ran on, and changes the rows
    /// that go with it.
    fn change_schema(&self, conn: &Connection, entry: &Entry, local: SchemaHash) -> Result<(), AgentError> {
        let (change, changeset) = entry.schema_change().map_err(undecoded)?;
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
}

/// Why entries were not applied by statements that stay compiled. Nothing was done.
enum NotDone {
    /// Not all is as these expect.
    Unexpected,
    /// It cannot be done in any way.
    Failed(AgentError),
}

impl<T> From<T> for NotDone
where
    AgentError: From<T>,
{
    fn from(error: T) -> Self {
        Self::Failed(error.into())
    }
}

/// An epoch that begins in the log changes no rows; one that does not has changes that nobody has.
fn follow_epoch(entry: &Entry) -> Result<(), AgentError> {
    match entry.epoch_change().map_err(undecoded)?.reason {
        EpochReason::Promoted => Ok(()),
        EpochReason::ForeignEdit | EpochReason::Uncaptured => Err(AgentError::Uncaptured { version: entry.version }),
    }
}

fn undecoded(error: DecodeError) -> AgentError {
    AgentError::Verify(VerifyError::Decode(error))
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
