//! The data directory: which file is which, who may write, and this node's id.
//!
//! ```text
//! DATA_DIR/<name>.db       a database, readable with plain sqlite3
//! DATA_DIR/storage/<db>    its uploaded files, see `crate::files`
//! DATA_DIR/.vski/id        this node's id; whoever starts first makes it
//! DATA_DIR/.vski/lock      exclusive flock of the one process that may write the replicated databases
//! DATA_DIR/.vski/<db>.open shared flock of whoever has that database open, exclusive to replace its file
//! DATA_DIR/.vski/node.db   see `crate::node`
//! DATA_DIR/.vski/incoming  downloads, resumable; DATA_DIR/.vski/snapshots: copies on offer
//! ```
//!
//! Database files themselves are opened through SQLite only: closing one by other means would drop the POSIX locks that
//! SQLite holds on it in the same process.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::names;

/// Why it cannot be used.
mod error;

/// This node's name.
mod id;

/// Who may write, and who has what open.
mod lock;

/// The file system below.
mod volume;

pub use error::DataDirError;
use error::io_error;
pub use id::{NODE_ID_RULE, is_node_id};
pub use lock::{DirLock, Holder, OpenLock};

/// A usable data directory.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Makes what is missing and checks that files can be written and shared there.
    pub fn open(root: &Path) -> Result<Self, DataDirError> {
        let dir = Self { root: root.to_owned() };
        for sub in [dir.private(), dir.incoming(), dir.snapshots()] {
            std::fs::create_dir_all(&sub).map_err(io_error("create", &sub))?;
        }
        dir.check_file_system()?;
        let probe = dir.private().join(format!("probe.{}", unique()));
        File::create(&probe).and_then(|_| std::fs::remove_file(&probe)).map_err(io_error("write to", root))?;
        Ok(dir)
    }

    /// As [`Self::open`], but for commands that work on what a node has left: a directory that does not exist, or has
    /// neither `node.db` nor a `default` database in it, is refused, and nothing is made.
    pub fn existing(root: &Path) -> Result<Self, DataDirError> {
        let dir = Self::untouched(root);
        let refused = |why| Err(DataDirError::NotANode(root.to_owned(), why));
        if !root.is_dir() {
            return refused("is no directory");
        }
        // A path that may not be looked at is not one that is missing: opening it tells the reason.
        let missing = |path: PathBuf| path.try_exists().is_ok_and(|there| !there);
        if missing(dir.private().join("node.db")) && missing(dir.database(names::DEFAULT_DATABASE)) {
            return refused("holds no VSKI databases");
        }
        Self::open(root)
    }

    /// A directory to look at: nothing is made, checked or written.
    #[must_use]
    pub fn untouched(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Our own corner of it.
    #[must_use]
    pub fn private(&self) -> PathBuf {
        self.root.join(".vski")
    }

    /// Where downloads grow until they are whole.
    #[must_use]
    pub fn incoming(&self) -> PathBuf {
        self.private().join("incoming")
    }

    /// Where a server keeps copies that replicas fetch; on a replica with their leases, see [`crate::lease`].
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.private().join("snapshots")
    }

    /// The file of a database; `name` has passed [`names::is_database_name`].
    #[must_use]
    pub fn database(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.db"))
    }

    /// The databases there are, by name, but those that every node keeps for itself.
    pub fn databases(&self) -> Result<Vec<String>, DataDirError> {
        let listed = std::fs::read_dir(&self.root).map_err(io_error("list", &self.root))?;
        let mut found = Vec::new();
        for file in listed {
            let file = file.map_err(io_error("list", &self.root))?.file_name();
            let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".db")) else { continue };
            if names::is_database_name(name) && !names::NODE_LOCAL_DATABASES.contains(&name) {
                found.push(name.to_owned());
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Makes a rename or a new file in `directory` survive a power cut.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Part of a temporary file's name. A process id would not do: two containers on one volume both are process 1.
fn unique() -> String {
    format!("{:016x}", rand::random::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn directory() -> (tempfile::TempDir, DataDir) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        (temporary, dir)
    }

    #[test]
    fn a_directory_that_no_node_has_used_is_refused_by_name_and_left_as_it_is() {
        let temporary = tempfile::tempdir().unwrap();
        let typo = temporary.path().join("typo");
        for (path, why) in [(&*typo, "no directory"), (temporary.path(), "no VSKI databases")] {
            let refusal = DataDir::existing(path).unwrap_err().to_string();
            assert!(refusal.contains(&*path.to_string_lossy()) && refusal.contains(why), "{refusal}");
        }
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
        std::fs::write(temporary.path().join("default.db"), "restored from a backup").unwrap();
        DataDir::existing(temporary.path()).unwrap();
    }

    #[test]
    fn only_replicated_databases_are_listed() {
        let (_keep, dir) = directory();
        for file in ["b.db", "a.db", "a.db-wal", "stats.db", "workflows.db", ".db", "x y.db", "notes.txt"] {
            std::fs::write(dir.root().join(file), "").unwrap();
        }
        assert_eq!(dir.databases().unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_directory_that_cannot_be_made_says_what_to_do() {
        let (keep, _dir) = directory();
        let file = keep.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = DataDir::open(&file.join("data")).unwrap_err().to_string();
        assert!(error.contains("DATA_DIR"), "{error}");
    }
}
