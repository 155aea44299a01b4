//! Who may write a directory, and who has a database open: `.vski/lock` and `.vski/<db>.open`.
//!
//! All locks are `flock(2)`: they belong to the open file, vanish with the process, and work between containers that
//! share a volume. What is written in `lock` names its holder to whoever is refused, and tells commands where to reach it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error::io_error;
use super::{DataDir, DataDirError};
use crate::{clock, fault};

/// How long a lock that is held is tried again: a probe by another command holds it for an instant.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// Who holds a data directory's lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// `master`, `agent` (a process of its own) or `replica` (a server with its agent embedded).
    pub role: String,
    /// Its process id, in its own PID namespace.
    pub pid: u32,
    /// The name of its host, or its container's id: there all process ids are 1. Older versions do not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Since when, ms since 1970.
    pub since_ms: i64,
    /// Base URL at which commands reach it, once it listens.
    pub admin: Option<String>,
}

impl Holder {
    /// This process, in `role`.
    #[must_use]
    pub fn this_process(role: &str) -> Self {
        let (role, pid, host) = (role.to_owned(), std::process::id(), this_host());
        Self { role, pid, host, since_ms: clock::now_ms(), admin: None }
    }

    /// Whether it is known to run on another host, or in another container.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.host.is_some() && self.host != this_host()
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.role.is_empty() {
            return f.write_str("another process");
        }
        match &self.host {
            Some(host) => write!(f, "a running {} (pid {} on {host})", self.role, self.pid),
            None => write!(f, "a running {} (pid {})", self.role, self.pid),
        }
    }
}

/// This host's name as the kernel has it: Docker gives a container its id, Kubernetes its pod's name.
fn this_host() -> Option<String> {
    let uname = rustix::system::uname();
    uname.nodename().to_str().ok().filter(|name| !name.is_empty()).map(str::to_owned)
}

impl DataDir {
    /// Takes the lock for this process, or names who has it.
    pub fn lock(&self, holder: Holder) -> Result<DirLock, DataDirError> {
        let path = self.private().join("lock");
        let file = lock_file(&path).map_err(io_error("open", &path))?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    let holder = read_holder(&file);
                    return Err(DataDirError::Held { path: self.root.clone(), holder });
                }
                Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
            }
        }
        let mut lock = DirLock { file, holder, path };
        lock.record()?;
        Ok(lock)
    }

    /// Who holds the lock now, if anybody.
    pub fn holder(&self) -> Result<Option<Holder>, DataDirError> {
        let path = self.private().join("lock");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(read_holder(&file))),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
        }
    }

    /// Says that this process has a database open, so that nobody replaces its file. `None` while somebody does.
    pub fn share_database(&self, name: &str) -> Result<Option<OpenLock>, DataDirError> {
        self.open_lock(name, File::try_lock_shared)
    }

    /// The right to replace a database's file. `None` while a process has it open.
    pub fn claim_database(&self, name: &str) -> Result<Option<OpenLock>, DataDirError> {
        self.open_lock(name, File::try_lock)
    }

    fn open_lock(
        &self,
        name: &str,
        lock: fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Option<OpenLock>, DataDirError> {
        let path = self.private().join(format!("{name}.open"));
        let file = lock_file(&path).map_err(io_error("open", &path))?;
        match lock(&file) {
            Ok(()) => Ok(Some(OpenLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
        }
    }
}

/// The right to write the replicated databases of a directory, until it is dropped.
#[derive(Debug)]
pub struct DirLock {
    file: File,
    holder: Holder,
    path: PathBuf,
}

impl DirLock {
    /// Records where commands reach this process, now that it listens.
    pub fn set_admin(&mut self, url: String) -> Result<(), DataDirError> {
        self.holder.admin = Some(url);
        self.record()
    }

    /// Shorter text is padded, not truncated: a reader at the same time sees one holder or the other.
    fn record(&mut self) -> Result<(), DataDirError> {
        fault::io("lock:record").map_err(io_error("write", &self.path))?;
        let mut text = serde_json::to_vec(&self.holder).expect("plain fields always serialise");
        text.resize(text.len().max(512), b' ');
        let written = self.file.rewind().and_then(|()| self.file.write_all(&text));
        written.map_err(io_error("write", &self.path))
    }
}

/// Says that a database's file is in use, until it is dropped.
#[derive(Debug)]
pub struct OpenLock {
    _file: File,
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn read_holder(mut file: &File) -> Holder {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    read.ok().and_then(|_| serde_json::from_str(text.trim()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datadir::tests::directory;

    #[test]
    fn the_second_writer_is_refused_and_told_who_is_first() {
        let (_keep, dir) = directory();
        assert_eq!(dir.holder().unwrap(), None);
        let mut lock = dir.lock(Holder::this_process("master")).unwrap();
        lock.set_admin("http://127.0.0.1:3001".into()).unwrap();
        let refusal = dir.lock(Holder::this_process("agent")).unwrap_err().to_string();
        let host = this_host().unwrap();
        assert!(refusal.contains(&format!("a running master (pid {} on {host})", std::process::id())), "{refusal}");
        assert_eq!(dir.holder().unwrap().unwrap().admin.as_deref(), Some("http://127.0.0.1:3001"));
        drop(lock);
        assert_eq!(dir.holder().unwrap(), None);
        dir.lock(Holder::this_process("agent")).unwrap();
    }

    #[test]
    fn versions_that_do_not_know_hosts_and_those_that_do_read_each_other() {
        let (_keep, dir) = directory();
        let lock = dir.lock(Holder::this_process("agent")).unwrap();
        assert!(!dir.holder().unwrap().unwrap().is_elsewhere());
        let path = dir.private().join("lock");
        std::fs::write(&path, r#"{"role":"agent","pid":1,"since_ms":5,"admin":null}"#).unwrap();
        let old = dir.holder().unwrap().unwrap();
        assert_eq!((old.to_string().as_str(), old.is_elsewhere()), ("a running agent (pid 1)", false));
        std::fs::write(&path, r#"{"role":"agent","pid":1,"host":"f00","since_ms":5,"admin":null,"more":1}"#).unwrap();
        let new = dir.holder().unwrap().unwrap();
        assert_eq!((new.to_string().as_str(), new.is_elsewhere()), ("a running agent (pid 1 on f00)", true));
        drop(lock);
    }

    #[test]
    fn a_database_that_is_open_cannot_be_claimed() {
        let (_keep, dir) = directory();
        let (one, two) = (dir.share_database("a").unwrap(), dir.share_database("a").unwrap());
        assert!(one.is_some() && two.is_some());
        assert!(dir.claim_database("a").unwrap().is_none());
        drop((one, two));
        let claim = dir.claim_database("a").unwrap();
        assert!(claim.is_some() && dir.share_database("a").unwrap().is_none());
        assert!(dir.claim_database("b").unwrap().is_some());
    }
}
