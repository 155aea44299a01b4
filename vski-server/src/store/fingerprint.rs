//! What a database file looked like when it was closed cleanly: an edit by another program while the master is stopped
//! shows by it. After an unclean stop there is none, and only `verify` finds such an edit.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use vski_replication::connection;

/// Size and time of a closed file; `None` while a write-ahead log is beside it, whose content would move into it. An
/// empty one says nothing: whoever looks at the file read-only leaves it behind.
#[must_use]
pub fn of(database: &Path) -> Option<String> {
    if connection::wal_bytes(database) > 0 {
        return None;
    }
    // Metadata only: opening and closing the file would drop SQLite's locks.
    let file = std::fs::metadata(database).ok()?;
    Some(format!("{}:{}.{:09}", file.size(), file.mtime(), file.mtime_nsec()))
}
