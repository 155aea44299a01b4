use std::time::Duration;

use rusqlite::ffi::ErrorCode;
use vski_replication::changelog::LogError;
use vski_replication::datadir::DataDirError;
use vski_replication::files::FileError;

/// A value that was refused, and where it stands in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field's name.
    pub field: String,
    /// PocketBase's code, such as `validation_required`.
    pub code: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
}

/// The code of a field whose value another record has.
pub const NOT_UNIQUE: &str = "validation_not_unique";

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The thing asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// The collection's rule does not let the caller do this.
    #[error("{0}")]
    Forbidden(String),
    /// The request makes no sense as a whole.
    #[error("{0}")]
    Invalid(String),
    /// Values were refused.
    #[error("some fields are not valid")]
    Fields(Vec<FieldError>),
    /// A line of an import was refused; nothing of its chunk was stored.
    #[error("line {line}: {message}")]
    Line {
        /// Counted from 1 within the chunk.
        line: usize,
        /// What is wrong with it.
        message: String,
        /// The fields that were refused, if it was for fields.
        fields: Vec<FieldError>,
    },
    /// A request of a batch was refused; nothing of the batch was stored.
    #[error("request {at} of the batch was refused, and nothing of it was stored: {error}")]
    Batch {
        /// Counted from 0.
        at: usize,
        /// What it would have been answered alone.
        error: Box<StoreError>,
    },
    /// One request changes more than a log entry may carry.
    #[error("the request changes too much at once (over {limit_bytes} bytes of changes): split it")]
    TooLarge {
        /// The cap, bytes of changeset.
        limit_bytes: usize,
    },
    /// The queue is full.
    #[error("the server has more writes waiting than it accepts: try again shortly")]
    Overloaded,
    /// A replica is taking over.
    #[error("this master has handed over to a replica and takes no more writes: write to the new master")]
    HandedOver,
    /// The process is going down.
    #[error("the server is shutting down: try again on another or after its restart")]
    ShuttingDown,
    /// The first copy of this database has not arrived yet.
    #[error("database {0} has not been copied from the master yet: try again shortly")]
    NotReady(String),
    /// This master cannot use the database's file.
    #[error("database {name} cannot be used: {reason}")]
    Unusable {
        /// The database.
        name: String,
        /// What is wrong with its file, and how to repair it.
        reason: String,
    },
    /// Another program made tables that cannot be replicated.
    #[error("database {name} cannot be replicated: {problems}")]
    Unreplicable {
        /// The database.
        name: String,
        /// The tables, and what is wrong with them.
        problems: String,
    },
    /// The catalogue and the tables contradict each other, or a row of it cannot be read: an operator must mend it.
    #[error("{0}")]
    Catalogue(String),
    /// A read took longer than it may.
    #[error("the read was stopped after {0:?}: ask for less, or with a cheaper filter")]
    ReadTimeout(Duration),
    /// No read of data found its turn.
    #[error("all {0} reads of data that may run at once on this database are taken: try again shortly")]
    ReadsBusy(usize),
    /// A view's own SELECT failed as it ran.
    #[error("the SELECT of view collection {name} failed ({reason}): an admin must change its viewQuery")]
    View {
        /// The collection.
        name: String,
        /// What SQLite said.
        reason: String,
    },
    /// A field of the collection became a password after the request had come.
    #[error("the collection was changed while this request was on its way: send it again")]
    Changed,
    /// Another program holds the file's write lock.
    #[error("another program is writing to the database file: try again shortly")]
    Busy,
    /// The file is not what SQLite wrote.
    #[error("the database file is damaged ({0}): try another node")]
    Damaged(String),
    /// No space left on the data volume.
    #[error("the data volume is full: free some space; nothing of this request was stored")]
    DiskFull,
    /// Not enough space for a snapshot.
    #[error(
        "a snapshot of {db} needs {needed} free bytes, and {free} are free on the volume of the node that makes it: make room on its DATA_DIR"
    )]
    NoRoom {
        /// The database.
        db: String,
        /// Bytes that have to be free: what is to be written, and a margin for writes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The log could not be read or extended.
    #[error("use the changelog")]
    Log(#[source] LogError),
    /// The data directory failed.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// An uploaded file could not be stored or removed.
    #[error("use the uploaded files")]
    File(#[source] FileError),
    /// Anything else that SQLite says.
    #[error("use the database")]
    Sqlite(#[source] rusqlite::Error),
}

impl StoreError {
    /// One refused value.
    pub fn field(field: &str, code: &'static str, message: impl Into<String>) -> Self {
        Self::Fields(vec![FieldError { field: field.to_owned(), code, message: message.into() }])
    }

    /// The error with its causes, in one line.
    pub fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        match error.source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::File(error),
        }
    }
}

impl From<LogError> for StoreError {
    fn from(error: LogError) -> Self {
        use ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, OperationInterrupted};
        match error {
            // It is the volume that failed, or a lock or a limit that stopped it, not the log.
            LogError::Sqlite(error)
                if matches!(
                    error.sqlite_error_code(),
                    Some(DiskFull | DatabaseBusy | DatabaseLocked | OperationInterrupted)
                ) =>
            {
                error.into()
            }
            error => Self::Log(error),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged(error.to_string()),
            _ => Self::Sqlite(error),
        }
    }
}
