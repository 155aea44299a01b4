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
//! All locks are `flock(2)`: they belong to the open file, vanish with the process, and work between containers that
//! share a volume. Database files themselves are opened through SQLite only: closing one by other means would drop
//! the POSIX locks that SQLite holds on it in the same process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{clock, fault, names};

/// What a node id must look like.
pub const NODE_ID_RULE: &str = "1 to 63 letters, digits, '.', '_' or '-'";

/// How much of a recorded id that is none is told, characters.
const SHOWN_ID_CHARS: usize = 63;

/// How long a lock that is held is tried again: a probe by another command holds it for an instant.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// File systems whose files are not shared memory of one kernel, by `statfs` magic: SQLite's WAL needs that.
const NETWORK_FILE_SYSTEMS: [(i64, &str); 6] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x00C3_6400, "Ceph"),
];

/// A data directory that cannot be used, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}; make the directory writable for this user, or set DATA_DIR to another")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It lies on a network file system.
    #[error(
        "{path} is on {kind}: a data directory needs a local file system, because SQLite's WAL needs shared memory"
    )]
    Network {
        /// The directory.
        path: PathBuf,
        /// The file system.
        kind: &'static str,
    },
    /// Another process has it.
    #[error("{path} is in use by {holder}: stop that process first, or set DATA_DIR to another directory")]
    Held {
        /// The directory.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// The node id is not usable.
    #[error("node id {0:?} is not {NODE_ID_RULE}: set REPLICA_ID to such a name")]
    NodeId(String),
    /// The recorded node id is not usable.
    #[error(
        "{path} holds {found:?}, which is no node id ({NODE_ID_RULE}): remove that file, and the next start makes a new \
         id, or set REPLICA_ID to a name of this node's own"
    )]
    RecordedId {
        /// The file.
        path: PathBuf,
        /// What it holds, cut short.
        found: String,
    },
    /// A command was given a directory that no node has used.
    #[error("{0} {1}: set DATA_DIR to the directory of a node that was started before")]
    NotANode(PathBuf, &'static str),
}

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

    /// Refuses a network file system.
    pub fn check_file_system(&self) -> Result<(), DataDirError> {
        let statfs = rustix::fs::statfs(&self.root).map_err(|error| io_error("examine", &self.root)(error.into()))?;
        let magic = statfs.f_type & 0xFFFF_FFFF;
        match NETWORK_FILE_SYSTEMS.iter().find(|(known, _)| *known == magic) {
            Some((_, kind)) => Err(DataDirError::Network { path: self.root.clone(), kind }),
            None => Ok(()),
        }
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

    /// Free bytes for this user on the directory's file system.
    pub fn free_bytes(&self) -> Result<u64, DataDirError> {
        let stat = rustix::fs::statvfs(&self.root).map_err(|error| io_error("examine", &self.root)(error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// All bytes of the directory's file system, used or free.
    pub fn volume_bytes(&self) -> Result<u64, DataDirError> {
        let stat = rustix::fs::statvfs(&self.root).map_err(|error| io_error("examine", &self.root)(error.into()))?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    /// This node's id: `wanted` if given (and from now on), else the recorded one, else a new random one.
    pub fn node_id(&self, wanted: Option<&str>) -> Result<String, DataDirError> {
        let path = self.private().join("id");
        let fresh = format!("node-{:08x}", rand::random::<u32>());
        let id = wanted.unwrap_or(&fresh);
        if !is_node_id(id) {
            return Err(DataDirError::NodeId(id.to_owned()));
        }
        match self.recorded_id() {
            Ok(Some(recorded)) if wanted.is_none_or(|wanted| wanted == recorded) => return Ok(recorded),
            Err(error) if wanted.is_none() => return Err(error),
            _ => {}
        }
        let temporary = self.private().join(format!("id.{}", unique()));
        fault::io("id:write").map_err(io_error("write", &temporary))?;
        write_synced(&temporary, id.as_bytes()).map_err(io_error("write", &temporary))?;
        fault::io("id:before-name").map_err(io_error("write", &path))?;
        if wanted.is_some() {
            std::fs::rename(&temporary, &path).map_err(io_error("write", &path))?;
            return Ok(id.to_owned());
        }
        // A hard link fails where the file exists, and never shows a half-written one.
        let linked = std::fs::hard_link(&temporary, &path);
        fault::point("id:after-link");
        std::fs::remove_file(&temporary).map_err(io_error("remove", &temporary))?;
        if let Err(error) = linked
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(io_error("write", &path)(error));
        }
        self.recorded_id()?.ok_or_else(|| io_error("read", &path)(io::ErrorKind::NotFound.into()))
    }

    /// The id that this node was given or made for itself; `None` before its first start.
    pub fn recorded_id(&self) -> Result<Option<String>, DataDirError> {
        let path = self.private().join("id");
        let found = match std::fs::read(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let found = String::from_utf8_lossy(&found).trim().to_owned();
        if is_node_id(&found) {
            return Ok(Some(found));
        }
        Err(DataDirError::RecordedId { path, found: found.chars().take(SHOWN_ID_CHARS).collect() })
    }

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

/// Makes a rename or a new file in `directory` survive a power cut.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Part of a temporary file's name. A process id would not do: two containers on one volume both are process 1.
fn unique() -> String {
    format!("{:016x}", rand::random::<u64>())
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn read_holder(mut file: &File) -> Holder {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    read.ok().and_then(|_| serde_json::from_str(text.trim()).ok()).unwrap_or_default()
}

/// Whether an id obeys [`NODE_ID_RULE`].
#[must_use]
pub fn is_node_id(id: &str) -> bool {
    (1..=63).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DataDirError + 'a {
    move |source| DataDirError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn directory() -> (tempfile::TempDir, DataDir) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        (temporary, dir)
    }

    #[test]
    fn the_node_id_is_made_once_and_overridden_for_good() {
        let (_keep, dir) = directory();
        let first = dir.node_id(None).unwrap();
        assert_eq!(dir.node_id(None).unwrap(), first);
        assert_eq!(dir.node_id(Some("r001")).unwrap(), "r001");
        let inode = || std::fs::metadata(dir.private().join("id")).unwrap().ino();
        let before = inode();
        assert_eq!([None, Some("r001")].map(|wanted| dir.node_id(wanted).unwrap()), ["r001", "r001"]);
        assert_eq!(inode(), before, "it is not written again: a full volume would not let it");
        assert!(dir.node_id(Some("no spaces")).unwrap_err().to_string().contains("REPLICA_ID"));
    }

    #[test]
    fn processes_of_one_number_may_start_at_once() {
        let (_keep, dir) = directory();
        let start = || {
            for _ in 0..50 {
                let dir = DataDir::open(&dir.root).unwrap();
                assert_eq!(dir.node_id(Some("r001")).unwrap(), "r001");
            }
        };
        std::thread::scope(|scope| drop([(); 8].map(|()| scope.spawn(start))));
    }

    #[test]
    fn a_recorded_id_that_is_none_is_told_with_its_file_and_both_repairs() {
        let (_keep, dir) = directory();
        assert_eq!(dir.recorded_id().unwrap(), None);
        let file = dir.private().join("id");
        for garbage in [&b""[..], b"\xff\xfe\0", b"two words"] {
            std::fs::write(&file, garbage).unwrap();
            let refusal = dir.node_id(None).unwrap_err().to_string();
            for part in [&*file.to_string_lossy(), "remove that file", "REPLICA_ID"] {
                assert!(refusal.contains(part), "{refusal}");
            }
        }
        assert_eq!(dir.node_id(Some("r001")).unwrap(), "r001", "one repair");
        std::fs::remove_file(&file).unwrap();
        let made = dir.node_id(None).unwrap();
        assert_eq!(dir.recorded_id().unwrap(), Some(made), "the other");
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
