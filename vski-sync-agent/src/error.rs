//! What can go wrong with one database, and what follows from it.
//!
//! Every error answers four questions: its name (`AgentError::name`), what to do (`AgentError::recovery`), what to call
//! the state it leaves the database in (`AgentError::state_name`), and what an operator can do (`AgentError::remedy`).
//! The copy that is there keeps being served in all of these states.

use std::path::PathBuf;

use rusqlite::ErrorCode;
use vski_replication::changelog::LogError;
use vski_replication::datadir::DataDirError;
use vski_replication::files::FileError;
use vski_replication::position::Position;
use vski_replication::schema::diff::MigrateError;
use vski_replication::session::Conflict;

use crate::lineage::Refusal;
use crate::source::SourceError;
use crate::verify::VerifyError;

mod kind;

pub use kind::ErrorKind;

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Try again after a pause.
    Retry,
    /// The copy's log does not lead to the master's head any more: compare, and make it equal in place.
    Converge,
    /// Stop until something outside changes.
    Stop,
}

/// Something that keeps one database from being equal to its master.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No usable answer.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The answer's entries do not follow from the local head.
    #[error("verify the master's entries")]
    Verify(#[from] VerifyError),
    /// The master's history must not be followed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The master has no such database any more.
    #[error("the master does not list this database any more")]
    MissingOnMaster,
    /// 409: the master's log lacks the local head.
    #[error("the master's log lacks this copy's head{}", told(", both agree at most up to", *common))]
    Lost {
        /// The last position both may share.
        common: Option<Position>,
    },
    /// A replica in between does not have yet what it had a moment ago.
    #[error("compare with the replica at MASTER_URL: it is behind this copy")]
    ParentBehind,
    /// 410: the log at MASTER_URL begins after the local head.
    #[error(
        "the node at MASTER_URL no longer has the entries after this copy's head{}: it pruned them, or converged itself",
        told(", its log begins at", *base)
    )]
    Pruned {
        /// The position before the master's first entry.
        base: Option<Position>,
    },
    /// Rows here differ from those that the entry was captured from.
    #[error("apply entry {version}: {conflict}")]
    Conflict {
        /// The entry.
        version: u64,
        /// What was found.
        conflict: Conflict,
    },
    /// Compared with the master at the same version, rows differ.
    #[error("compared with the master: {told}")]
    Unequal {
        /// Which tables and ranges.
        told: String,
    },
    /// Rows changed on the master that the log does not carry.
    #[error(
        "entry {version} says that the master's rows changed in a way that its log does not tell: by another program, or by \
             a manual migration"
    )]
    Uncaptured {
        /// The entry.
        version: u64,
    },
    /// The schema cannot be made the master's.
    #[error("make the schema that of entry {version}")]
    Schema {
        /// The entry that needs it.
        version: u64,
        /// What stands in the way.
        source: MigrateError,
    },
    /// Not even by setting tables aside can the schema be made the master's.
    #[error("make the schema that of the snapshot at version {version}")]
    Unreachable {
        /// The snapshot's version.
        version: u64,
        /// What stands in the way.
        source: MigrateError,
    },
    /// The schema that an entry needs is not known to the master any more.
    #[error("the master's log does not tell the schema of entry {version} any more")]
    SchemaForgotten {
        /// The entry that needs it.
        version: u64,
    },
    /// The file under this name is no VSKI database, or a damaged one.
    #[error("this file is no usable VSKI database: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else wrote the local log.
    #[error("the local log was changed by another process")]
    Meddled,
    /// SQLite failed.
    #[error("use the local database")]
    Database(#[source] rusqlite::Error),
    /// A download that is whole and still not what the manifest says.
    #[error("the downloaded snapshot is not what its manifest says: {reason}")]
    Snapshot {
        /// What differs.
        reason: String,
    },
    /// A snapshot with tables that cannot be replicated.
    #[error("the snapshot cannot be replicated: {problems}")]
    Unsafe {
        /// Each table and what is wrong with it.
        problems: String,
    },
    /// The disk is too small.
    #[error("{needed} bytes are needed for the snapshot and {free} are free: make room on DATA_DIR's file system")]
    Space {
        /// Bytes that have to be written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A server has the file open.
    #[error("install the snapshot: a server has this database open")]
    InUse,
    /// A file operation failed.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The node at MASTER_URL waits for an uploaded file itself.
    #[error("fetch file {name}: the replica at MASTER_URL does not have it yet")]
    FileAwaited {
        /// The file.
        name: String,
    },
    /// The node at MASTER_URL does not have an uploaded file that a row names.
    #[error("fetch file {name}: the node at MASTER_URL does not have it, and a row names it")]
    FileLost {
        /// The file.
        name: String,
    },
    /// An uploaded file came that is not what its row says.
    #[error("fetch file {name}: what came is not what its row says: {reason}")]
    FileDiffers {
        /// The file.
        name: String,
        /// What differs.
        reason: String,
    },
}

impl AgentError {
    /// Which of the named errors it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Source(error) => error.kind(),
            Self::Verify(VerifyError::Decode(_)) => ErrorKind::EntriesUnreadable,
            Self::Verify(VerifyError::Empty) => ErrorKind::BatchEmpty,
            Self::Verify(VerifyError::Version { .. }) => ErrorKind::EntryOutOfOrder,
            Self::Verify(VerifyError::Chain(_)) => ErrorKind::ChainBroken,
            Self::Verify(VerifyError::Epoch(_)) => ErrorKind::EpochNotBegun,
            Self::Refused(Refusal::ForeignMaster { .. }) => ErrorKind::ForeignMaster,
            Self::Refused(Refusal::StaleMaster { .. }) => ErrorKind::StaleMaster,
            Self::Refused(Refusal::SplitBrain { .. }) => ErrorKind::SplitBrain,
            Self::MissingOnMaster => ErrorKind::MissingOnMaster,
            Self::Lost { .. } => ErrorKind::HistoryLost,
            Self::ParentBehind => ErrorKind::ParentBehind,
            Self::Pruned { .. } => ErrorKind::HistoryPruned,
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Unequal { .. } => ErrorKind::Unequal,
            Self::Uncaptured { .. } => ErrorKind::UncapturedChange,
            Self::Schema { .. } => ErrorKind::SchemaMigrationFailed,
            Self::Unreachable { .. } => ErrorKind::SchemaUnreachable,
            Self::SchemaForgotten { .. } => ErrorKind::SchemaForgotten,
            Self::Malformed { .. } => ErrorKind::MalformedFile,
            Self::Meddled => ErrorKind::Meddled,
            Self::Database(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => ErrorKind::DiskFull,
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::DatabaseBusy,
                _ => ErrorKind::SqliteFailed,
            },
            Self::Snapshot { .. } => ErrorKind::SnapshotDiffers,
            Self::Unsafe { .. } => ErrorKind::SnapshotUnsafe,
            Self::Space { .. } => ErrorKind::NoSpace,
            Self::InUse => ErrorKind::FileInUse,
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => ErrorKind::DiskFull,
            Self::Io { .. } => ErrorKind::IoFailed,
            Self::DataDir(_) => ErrorKind::DataDirectory,
            Self::FileAwaited { .. } => ErrorKind::FileAwaited,
            Self::FileLost { .. } => ErrorKind::FileLost,
            Self::FileDiffers { .. } => ErrorKind::FileDiffers,
        }
    }

    /// Its name, which does not change from one version to the next.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// What to do.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.kind().recovery()
    }

    /// The word for the state that this leaves a database in.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        self.kind().state()
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        self.kind().remedy()
    }

    /// Whether another word of the master may free the database.
    #[must_use]
    pub fn is_the_masters_word(&self) -> bool {
        // A damaged file is set aside once the master lists its database.
        let source = matches!(self, Self::Source(SourceError::Unreplicable { .. }));
        source || matches!(self, Self::Refused(_) | Self::MissingOnMaster | Self::Malformed { .. })
    }

    /// A schema that could not be made that of entry `version`. What failed because of the disk or a lock says nothing
    /// about the schema, and is tried again.
    pub(crate) fn schema(version: u64, source: MigrateError) -> Self {
        match passing(source) {
            Ok(error) => Self::Database(error),
            Err(source) => Self::Schema { version, source },
        }
    }

    /// Likewise of a snapshot, with tables set aside.
    pub(crate) fn unreachable(version: u64, source: MigrateError) -> Self {
        match passing(source) {
            Ok(error) => Self::Database(error),
            Err(source) => Self::Unreachable { version, source },
        }
    }
}

/// The SQLite error in it, if that is one of the moment.
fn passing(error: MigrateError) -> Result<rusqlite::Error, MigrateError> {
    match error {
        MigrateError::Statement { source, .. } | MigrateError::Read(source)
            if matches!(
                source.sqlite_error_code(),
                Some(
                    ErrorCode::DiskFull
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::OutOfMemory
                )
            ) =>
        {
            Ok(source)
        }
        other => Err(other),
    }
}

impl From<rusqlite::Error> for AgentError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Malformed { reason: error.to_string() },
            _ => Self::Database(error),
        }
    }
}

impl From<FileError> for AgentError {
    fn from(FileError { action, path, source }: FileError) -> Self {
        Self::Io { action, path, source }
    }
}

impl From<LogError> for AgentError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Sqlite(error) => error.into(),
            LogError::NotOurs(_) | LogError::Damaged(_) => Self::Malformed { reason: error.to_string() },
        }
    }
}

/// An error and all its causes in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn told(words: &str, position: Option<Position>) -> String {
    position.map_or_else(String::new, |position| format!("{words} version {}", position.version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_names_its_state_and_what_to_do() {
        let malformed = AgentError::Malformed { reason: String::new() };
        let unreplicable = SourceError::Unreplicable { call: "snapshot", reason: String::new() }.into();
        for (error, state, again) in [
            (AgentError::Lost { common: None }, "diverged", false),
            (AgentError::Uncaptured { version: 1 }, "diverged", false),
            (AgentError::SchemaForgotten { version: 1 }, "diverged", false),
            (AgentError::Unsafe { problems: String::new() }, "schema_unreachable", false),
            (unreplicable, "schema_unreachable", true),
            (AgentError::MissingOnMaster, "missing_on_master", true),
            (malformed, "malformed", true),
        ] {
            assert_ne!(error.recovery(), Recovery::Retry);
            assert_eq!((error.state_name(), error.is_the_masters_word()), (state, again));
            assert!(!error.remedy().is_empty());
        }
    }

    #[test]
    fn a_damaged_file_stops_and_a_busy_one_is_tried_again() {
        let sqlite = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        assert_eq!(AgentError::from(sqlite(rusqlite::ffi::SQLITE_NOTADB)).state_name(), "malformed");
        assert_eq!(AgentError::from(sqlite(rusqlite::ffi::SQLITE_BUSY)).recovery(), Recovery::Retry);
    }

    #[test]
    fn causes_are_told_in_one_line() {
        let error = AgentError::Verify(VerifyError::Decode(vski_replication::entry::DecodeError::Malformed("x")));
        assert_eq!(chain(&error), "verify the master's entries: decode the entries: an entry's frame is malformed: x");
    }
}
