//! Uploaded files: the replicated table that names them, and where their bytes lie.
//!
//! ```text
//! DATA_DIR/storage/<db>/<name>        a file, whole; its name never stands for other bytes
//! DATA_DIR/storage/<db>/.part-<name>  one that grows
//! ```
//!
//! A row of `_files` is written in the transaction of the record that the file belongs to, after the file and its
//! directory were fsynced: a row without its file is either on its way (a replica) or lost (a master). A file without a
//! row is on its way to one, or was left by a crash, a refused request or a deleted record: `Sweeper` removes it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::datadir::DataDir;
use crate::entry::{Entry, Kind};
use crate::{fault, names};

/// Files compared with their rows.
mod audit;

/// A file that grows, until it is whole.
mod part;

/// Files that no row names.
mod sweep;

pub use audit::{Audit, Flaw, set_aside};
pub use part::Part;
pub use sweep::{Needed, Sweeper};

/// The statements that make the table.
pub const TABLES: [&str; 2] = [
    "CREATE TABLE _files (
        name TEXT PRIMARY KEY NOT NULL,
        collection TEXT NOT NULL,
        record TEXT NOT NULL,
        field TEXT NOT NULL,
        size INTEGER NOT NULL,
        blake3 TEXT NOT NULL,
        created TEXT NOT NULL
    )",
    "CREATE INDEX _files_record ON _files (collection, record)",
];

/// How a changeset names the table.
const TABLE_IN_CHANGESET: &[u8] = b"_files\0";

/// Characters of a stored name's random part.
const RANDOM_CHARS: usize = 10;

/// Characters that are kept of the name that a client gave.
const MAX_BASE: usize = 100;

/// Characters of the longest extension that is kept.
const MAX_EXTENSION: usize = 16;

/// Longest stored name, bytes.
const MAX_NAME: usize = MAX_BASE + 1 + RANDOM_CHARS + 1 + MAX_EXTENSION;

/// What the name of a growing file begins with.
const PART_PREFIX: &str = ".part-";

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}")]
pub struct FileError {
    /// What was tried.
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

/// A file as its row describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRow {
    /// Its name, for good.
    pub name: String,
    /// Id of the collection.
    pub collection: String,
    /// Id of the record.
    pub record: String,
    /// The record's field.
    pub field: String,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the bytes, in hex digits.
    pub blake3: String,
}

/// Whether applying `entry` may change rows of the table: so does anything but a changeset that does not name it. Costs a
/// look at each byte.
#[must_use]
pub fn may_change(entry: &Entry) -> bool {
    let mut places = entry.payload.windows(TABLE_IN_CHANGESET.len());
    entry.kind != Kind::Changes || places.any(|bytes| bytes == TABLE_IN_CHANGESET)
}

/// Whether the database has the table yet: one that an older master made gets it when a newer one opens it.
pub fn has_table(conn: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_files')";
    conn.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// The file with this name.
pub fn find(conn: &Connection, name: &str) -> rusqlite::Result<Option<FileRow>> {
    if !has_table(conn)? {
        return Ok(None);
    }
    let sql = "SELECT name, collection, record, field, size, blake3 FROM _files WHERE name = ?1";
    conn.prepare_cached(sql)?.query_row([name], from_row).optional()
}

/// Files with a local row number from `first` on, at most `limit`, with their numbers. New files have higher numbers than
/// those that were there; a number is used again only after the highest was deleted.
pub fn numbered(conn: &Connection, first: i64, limit: usize) -> rusqlite::Result<Vec<(i64, FileRow)>> {
    if !has_table(conn)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT name, collection, record, field, size, blake3, rowid FROM _files WHERE rowid >= ?1
        ORDER BY rowid LIMIT ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map([first, limit], |row| Ok((row.get(6)?, from_row(row)?)))?;
    rows.collect()
}

/// How many files have a local row number above `last`.
pub fn count_after(conn: &Connection, last: i64) -> rusqlite::Result<u64> {
    if !has_table(conn)? {
        return Ok(0);
    }
    let count: i64 =
        conn.prepare_cached("SELECT count(*) FROM _files WHERE rowid > ?1")?.query_row([last], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Names a file, in the transaction of its record.
pub fn insert(conn: &Connection, row: &FileRow, created: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO _files (name, collection, record, field, size, blake3, created)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let FileRow { name, collection, record, field, size, blake3 } = row;
    let size = i64::try_from(*size).unwrap_or(i64::MAX);
    conn.prepare_cached(sql)?.execute(params![name, collection, record, field, size, blake3, created]).map(drop)
}

/// Forgets a file of a record.
pub fn remove(conn: &Connection, collection: &str, record: &str, name: &str) -> rusqlite::Result<()> {
    let sql = "DELETE FROM _files WHERE name = ?3 AND collection = ?1 AND record = ?2";
    conn.prepare_cached(sql)?.execute([collection, record, name]).map(drop)
}

/// Forgets all files of a record.
pub fn remove_all(conn: &Connection, collection: &str, record: &str) -> rusqlite::Result<()> {
    let sql = "DELETE FROM _files WHERE collection = ?1 AND record = ?2";
    conn.prepare_cached(sql)?.execute([collection, record]).map(drop)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<FileRow> {
    Ok(FileRow {
        name: row.get(0)?,
        collection: row.get(1)?,
        record: row.get(2)?,
        field: row.get(3)?,
        size: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
        blake3: row.get(5)?,
    })
}

/// A new name for a file that a client calls `original`: what can be read of that, ten random characters, and its
/// extension. `extension` is used where it has none.
#[must_use]
pub fn new_name(original: &str, extension: Option<&str>) -> String {
    // Clients of other systems send whole paths.
    let last = original.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric());
    let usable = |text: &str| (1..=MAX_EXTENSION).contains(&text.len()) && plain(text);
    let (base, own) = match last.rsplit_once('.') {
        Some((base, own)) if usable(own) => (base, Some(own)),
        _ => (last, None),
    };
    let mut readable = String::new();
    for c in base.chars() {
        let c = if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        if c != '_' || !readable.ends_with('_') {
            readable.push(c);
        }
    }
    let readable: String = readable.trim_matches(['_', '-']).chars().take(MAX_BASE).collect();
    let readable = if readable.is_empty() { "file" } else { &readable };
    let random: String = (0..RANDOM_CHARS).map(|_| random_char()).collect();
    match own.or(extension.filter(|extension| usable(extension))) {
        Some(extension) => format!("{readable}_{random}.{}", extension.to_ascii_lowercase()),
        None => format!("{readable}_{random}"),
    }
}

fn random_char() -> char {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])
}

/// Whether a name can be that of a stored file: it can never leave its directory, nor be that of a growing one.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=MAX_NAME).contains(&name.len()) && name.chars().all(ok) && !name.starts_with('.')
}

impl DataDir {
    /// Where the uploaded files of all databases lie.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        self.root().join("storage")
    }

    /// Where those of one database lie; `db` has passed [`names::is_database_name`].
    #[must_use]
    pub fn files(&self, db: &str) -> PathBuf {
        debug_assert!(names::is_database_name(db));
        self.storage().join(db)
    }

    /// The file of that name, if the name can be one.
    #[must_use]
    pub fn file(&self, db: &str, name: &str) -> Option<PathBuf> {
        is_file_name(name).then(|| self.files(db).join(name))
    }

    /// Whether the file of a row is here, whole.
    #[must_use]
    pub fn has_file(&self, db: &str, row: &FileRow) -> bool {
        let metadata = self.file(db, &row.name).map(std::fs::symlink_metadata);
        matches!(metadata, Some(Ok(found)) if found.is_file() && found.len() == row.size)
    }
}

/// Removes a file that no row names. That it comes back with a power cut does no harm: it is swept again.
pub fn unlink(path: &Path) -> Result<(), FileError> {
    let removed = fault::io("file:unlink").and_then(|()| std::fs::remove_file(path));
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error("remove", path)(error)),
        _ => Ok(()),
    }
}

fn file_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError { action, path: path.to_owned(), source }
}

/// Makes a directory that survives a power cut, and says which.
fn make_directory(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    fault::io("file:folder").and_then(|()| std::fs::create_dir_all(path)).map_err(file_error("create", path))?;
    for above in path.ancestors().skip(1).take(2) {
        File::open(above).and_then(|above| above.sync_all()).map_err(file_error("fsync", above))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
