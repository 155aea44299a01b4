use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use rusqlite::Connection;

use super::{FileError, FileRow, file_error, find, numbered};
use crate::datadir::{DataDir, sync_directory};

/// Rows that are read at once.
const STEP: usize = 1_000;

/// What is wrong with a file that a row names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is not there.
    Missing,
    /// It has another size, bytes.
    Size(u64),
    /// It has the size and other bytes.
    Bytes,
    /// It cannot be looked at: the system's reason.
    Unreadable(String),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Size(bytes) => write!(f, "{bytes} bytes, which is not the size in its row"),
            Self::Bytes => f.write_str("other bytes than its row says"),
            Self::Unreadable(reason) => write!(f, "unreadable: {reason}"),
        }
    }
}

/// The files of a database, compared with the rows that name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Files that rows name.
    pub files: u64,
    /// How many of them are not there.
    pub missing: u64,
    /// How many are there and are not what their rows say.
    pub damaged: u64,
    /// The first of both, by name.
    pub first: Vec<(String, Flaw)>,
}

impl Audit {
    /// Compares presence and size, and if `deep` the bytes, which reads all files. Names the first `keep` with a flaw.
    ///
    /// Needs no transaction: a row that went meanwhile is no flaw, and its file stays longer than it.
    pub fn run(conn: &Connection, dir: &DataDir, db: &str, deep: bool, keep: usize) -> rusqlite::Result<Self> {
        let (mut audit, mut next) = (Self::default(), i64::MIN);
        loop {
            let rows = numbered(conn, next, STEP)?;
            let Some((last, _)) = rows.last() else { return Ok(audit) };
            let ended = *last == i64::MAX || rows.len() < STEP;
            next = last.saturating_add(1);
            for (_, row) in rows {
                audit.files += 1;
                let Some(flaw) = flaw(dir, db, &row, deep) else { continue };
                if find(conn, &row.name)?.is_none() {
                    continue;
                }
                let count = if flaw == Flaw::Missing { &mut audit.missing } else { &mut audit.damaged };
                *count += 1;
                if audit.first.len() < keep {
                    audit.first.push((row.name, flaw));
                }
            }
            if ended {
                return Ok(audit);
            }
        }
    }

    /// How many files have a flaw.
    #[must_use]
    pub fn flawed(&self) -> u64 {
        self.missing + self.damaged
    }

    /// The first flaws in one line; `most` at most.
    #[must_use]
    pub fn told(&self, most: usize) -> String {
        let told: Vec<String> = self.first.iter().take(most).map(|(name, flaw)| format!("{name} ({flaw})")).collect();
        let more = if self.flawed() > told.len() as u64 { ", ..." } else { "" };
        format!("{}{more}", told.join(", "))
    }
}

/// What is wrong with the file of a row, if anything.
fn flaw(dir: &DataDir, db: &str, row: &FileRow, deep: bool) -> Option<Flaw> {
    let path = dir.file(db, &row.name)?;
    match std::fs::symlink_metadata(&path) {
        Ok(found) if !found.is_file() => return Some(Flaw::Unreadable("it is no file".to_owned())),
        Ok(found) if found.len() != row.size => return Some(Flaw::Size(found.len())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(Flaw::Missing),
        Err(error) => return Some(Flaw::Unreadable(error.to_string())),
    }
    if !deep {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    match File::open(&path).and_then(|file| hasher.update_reader(file).map(drop)) {
        Ok(()) if hasher.finalize().to_hex().as_str() == row.blake3 => None,
        Ok(()) => Some(Flaw::Bytes),
        Err(error) => Some(Flaw::Unreadable(error.to_string())),
    }
}

/// Moves a file that is not what its row says to `.vski/lost`, so that it is fetched anew. Returns where it is then.
pub fn set_aside(dir: &DataDir, db: &str, name: &str) -> Result<Option<PathBuf>, FileError> {
    let Some(path) = dir.file(db, name) else { return Ok(None) };
    let lost = dir.private().join("lost");
    std::fs::create_dir_all(&lost).map_err(file_error("create", &lost))?;
    let kept = lost.join(format!("{db}-file-{name}"));
    match std::fs::rename(&path, &kept) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        done => done.map_err(file_error("set aside", &path))?,
    }
    for folder in [&lost, &dir.files(db)] {
        sync_directory(folder).map_err(file_error("fsync", folder))?;
    }
    Ok(Some(kept))
}
