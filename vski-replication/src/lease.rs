//! **Leases** of the snapshots that a replica's server has given out, for the agent that prunes the log beside it.
//!
//! A lease is an empty file beside the snapshots, `<snapshot>.<database>.<version>.lease`: the entries after that version
//! are needed. Its time is that of the last request for the snapshot. The server makes, renews and removes it; the agent
//! reads it, and removes it to break the lease. So either process may die, and what is left of it ends by itself.
//! A master prunes in the process that gives out snapshots and needs no such files.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::datadir::DataDir;

/// How long a snapshot stays after the last request for it.
pub const LEASE: Duration = Duration::from_secs(600);

/// How far a log may exceed RETENTION_BYTES for the sake of a leased snapshot: this many times the limit.
pub const LEASE_FACTOR: u64 = 4;

const SUFFIX: &str = ".lease";

/// The server's end of a lease.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
}

impl Lease {
    /// Says that the entries of `db` after `version` are needed.
    pub fn begin(dir: &DataDir, snapshot: &str, db: &str, version: u64) -> io::Result<Self> {
        let path = dir.snapshots().join(format!("{snapshot}.{db}.{version}{SUFFIX}"));
        File::create(&path)?;
        Ok(Self { path })
    }

    /// The time starts anew. `false`: the lease was broken.
    pub fn renew(&self) -> io::Result<bool> {
        match OpenOptions::new().write(true).open(&self.path) {
            Ok(file) => file.set_modified(SystemTime::now()).map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the agent has broken it.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        !self.path.exists()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // One that was broken is gone already; one that stays ends by its age.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The version after which entries of `db` are needed, if any are.
pub fn oldest_needed(dir: &DataDir, db: &str) -> io::Result<Option<u64>> {
    let mut oldest = None;
    for (path, version) in of(dir, db)? {
        if is_held(&path)? {
            oldest = Some(oldest.map_or(version, |oldest: u64| oldest.min(version)));
        }
    }
    Ok(oldest)
}

/// Ends all leases of `db`, because its log has grown too large for their sake. Returns how many were held.
pub fn break_all(dir: &DataDir, db: &str) -> io::Result<usize> {
    let mut held = 0;
    for (path, _) in of(dir, db)? {
        held += usize::from(is_held(&path)?);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(held)
}

fn of(dir: &DataDir, db: &str) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(dir.snapshots())? {
        let file = file?;
        let name = file.file_name();
        let parts = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).map(|name| name.split('.'));
        let Some([_, of, version]) = parts.and_then(|parts| <[&str; 3]>::try_from(parts.collect::<Vec<_>>()).ok())
        else {
            continue;
        };
        if let (true, Ok(version)) = (of == db, version.parse()) {
            found.push((file.path(), version));
        }
    }
    Ok(found)
}

fn is_held(path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        // A time in the future, after the clock was set back, is one of just now.
        Ok(file) => Ok(file.modified()?.elapsed().map_or(true, |age| age < LEASE)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_needed_after_the_oldest_lease_until_it_ends_is_broken_or_was_not_renewed_for_long() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        File::create(dir.snapshots().join("ab.db")).unwrap();
        let needed = |db| oldest_needed(&dir, db).unwrap();
        assert_eq!(needed("shop"), None);
        let old = Lease::begin(&dir, "ab", "shop", 7).unwrap();
        let new = Lease::begin(&dir, "cd", "shop", 9).unwrap();
        let other = Lease::begin(&dir, "ef", "default", 1).unwrap();
        assert_eq!((needed("shop"), needed("default")), (Some(7), Some(1)));

        let long_ago = SystemTime::now() - LEASE;
        File::options().write(true).open(&old.path).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(needed("shop"), Some(9));
        assert!(old.renew().unwrap());
        assert_eq!(needed("shop"), Some(7));
        drop(old);
        assert_eq!(needed("shop"), Some(9));

        assert_eq!(break_all(&dir, "shop").unwrap(), 1);
        assert_eq!((needed("shop"), needed("default")), (None, Some(1)));
        assert!(new.is_broken() && !new.renew().unwrap());
        assert!(!other.is_broken());
    }
}
