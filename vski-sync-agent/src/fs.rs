//! Every file operation of a bootstrap, in one place, with the reason for its order.
//!
//! A download grows in `.vski/incoming/<db>/`: `data`, and `manifest.json` for whoever looks. Nothing there is
//! trusted after a restart: what a chunk must hash to is in the new manifest, so a chunk counts as present if its
//! bytes do. Only a file that was verified whole and fsynced is renamed into the data directory, and the directory
//! is fsynced after it: after a power cut the database is there whole or not at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use vski_replication::datadir::{self, DataDir};
use vski_replication::snapshot::Manifest;
use vski_replication::{clock, fault};

use crate::error::AgentError;

/// Room that must be left beside a snapshot, bytes: for the log and the WAL of what follows it.
const SPACE_MARGIN: u64 = 16 << 20;

/// A download in progress.
pub(crate) struct Incoming {
    folder: PathBuf,
    path: PathBuf,
    /// The bytes, in a file that is no database to SQLite yet.
    file: File,
    /// Its length before this download made it as long as the manifest says.
    found: u64,
}

impl Incoming {
    /// Opens or makes the download's files, if there is room for what is missing.
    pub(crate) fn open(dir: &DataDir, manifest: &Manifest) -> Result<Self, AgentError> {
        let folder = dir.incoming().join(&manifest.db);
        fault::io("bootstrap:folder")
            .and_then(|()| std::fs::create_dir_all(&folder))
            .map_err(io_error("create", &folder))?;
        let path = folder.join("data");
        fault::io("bootstrap:open").map_err(io_error("open", &path))?;
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(io_error("open", &path))?;
        let metadata = file.metadata().map_err(io_error("examine", &path))?;
        check_space(dir, manifest.size, metadata.blocks() * 512)?;
        fault::io("bootstrap:resize").and_then(|()| file.set_len(manifest.size)).map_err(io_error("resize", &path))?;
        let description = folder.join("manifest.json");
        let json = serde_json::to_vec_pretty(manifest).expect("plain fields always serialise");
        fault::io("bootstrap:describe")
            .and_then(|()| std::fs::write(&description, json))
            .map_err(io_error("write", &description))?;
        Ok(Self { folder, path, file, found: metadata.len().min(manifest.size) })
    }

    /// The chunks whose bytes are not those of the manifest.
    pub(crate) fn missing(&self, manifest: &Manifest) -> Result<Vec<usize>, AgentError> {
        let mut missing = Vec::new();
        let mut buffer = Vec::new();
        for index in 0..manifest.chunks.len() {
            let (start, length) = manifest.range(index);
            if start + length > self.found {
                missing.push(index);
                continue;
            }
            buffer.resize(usize::try_from(length).expect("a chunk is at most CHUNK_BYTES long"), 0);
            self.file.read_exact_at(&mut buffer, start).map_err(io_error("read", &self.path))?;
            if !manifest.is_chunk(index, &buffer) {
                missing.push(index);
            }
        }
        Ok(missing)
    }

    /// Puts a verified chunk where it belongs.
    pub(crate) fn write(&self, start: u64, bytes: &[u8]) -> Result<(), AgentError> {
        self.file
            .write_all_at(bytes, start)
            .and_then(|()| fault::io("bootstrap:chunk"))
            .map_err(io_error("write", &self.path))
    }

    /// Makes the bytes survive a power cut, and hashes all of them as they are in the file.
    pub(crate) fn finish(&self) -> Result<blake3::Hash, AgentError> {
        fault::io("bootstrap:fsync").and_then(|()| self.file.sync_all()).map_err(io_error("fsync", &self.path))?;
        fault::io("bootstrap:hash").map_err(io_error("read", &self.path))?;
        let reader = File::open(&self.path).map_err(io_error("open", &self.path))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(reader).map_err(io_error("read", &self.path))?;
        Ok(hasher.finalize())
    }

    /// The file, for looking into it once it is finished.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Throws the download away: its chunks are right one by one and wrong together.
    pub(crate) fn discard(self) -> Result<(), AgentError> {
        std::fs::remove_dir_all(&self.folder).map_err(io_error("remove", &self.folder))
    }

    /// Makes it the database `db`, which must not exist, while no server has that name open.
    pub(crate) fn install(self, dir: &DataDir, db: &str) -> Result<(), AgentError> {
        let Self { folder, path, file, .. } = self;
        // Closed before SQLite opens it: closing a live database's file would drop SQLite's locks on it.
        drop(file);
        let target = dir.database(db);
        let _claim = dir.claim_database(db)?.ok_or(AgentError::InUse)?;
        if target.exists() {
            return Err(io_error("install over", &target)(io::ErrorKind::AlreadyExists.into()));
        }
        set_side_files_aside(dir, db)?;
        fault::io("bootstrap:before-rename")
            .and_then(|()| std::fs::rename(&path, &target))
            .map_err(io_error("rename a snapshot to", &target))?;
        fault::io("bootstrap:after-rename")
            .and_then(|()| datadir::sync_directory(dir.root()))
            .map_err(io_error("fsync", dir.root()))?;
        fault::io("bootstrap:clear")
            .and_then(|()| std::fs::remove_dir_all(&folder))
            .map_err(io_error("remove", &folder))
    }
}

/// Removes what a bootstrap killed right after its rename has left: the database is there, nothing is incoming.
pub(crate) fn clear_leftovers(dir: &DataDir, db: &str) {
    let folder = dir.incoming().join(db);
    if let Err(error) = std::fs::remove_dir_all(&folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(db, %error, "could not remove what an earlier bootstrap left in {}", folder.display());
    }
}

fn check_space(dir: &DataDir, size: u64, allocated: u64) -> Result<(), AgentError> {
    let (needed, free) = (size.saturating_sub(allocated).saturating_add(SPACE_MARGIN), dir.free_bytes()?);
    if free < needed { Err(AgentError::Space { needed, free }) } else { Ok(()) }
}

/// Moves a database that cannot be used to `.vski/lost`, main file, `-wal` and `-shm` together, named with the time.
/// `InUse` while a server has it open. Killed in between, what is left of it has no main file and is set aside by the
/// next bootstrap.
pub(crate) fn set_aside(dir: &DataDir, db: &str) -> Result<PathBuf, AgentError> {
    let _claim = dir.claim_database(db)?.ok_or(AgentError::InUse)?;
    let lost = dir.private().join("lost");
    std::fs::create_dir_all(&lost).map_err(io_error("create", &lost))?;
    let (main, now) = (dir.database(db), clock::now_ms());
    let kept = lost.join(format!("{db}.{now}.db"));
    fault::io("set-aside:before-rename")
        .and_then(|()| std::fs::rename(&main, &kept))
        .map_err(io_error("rename", &main))?;
    fault::io("set-aside:renamed").map_err(io_error("rename", &main))?;
    for suffix in ["-wal", "-shm"] {
        let side = dir.root().join(format!("{db}.db{suffix}"));
        if side.exists() {
            let target = lost.join(format!("{db}.{now}.db{suffix}"));
            std::fs::rename(&side, &target).map_err(io_error("rename", &side))?;
        }
    }
    fault::io("set-aside:fsync")
        .and_then(|()| datadir::sync_directory(dir.root()))
        .map_err(io_error("fsync", dir.root()))?;
    Ok(kept)
}

/// A `-wal` whose database is gone would be replayed into the new file by SQLite. It may hold somebody's rows, so it
/// is kept.
fn set_side_files_aside(dir: &DataDir, db: &str) -> Result<(), AgentError> {
    for suffix in ["-wal", "-shm"] {
        let side = dir.root().join(format!("{db}.db{suffix}"));
        if side.exists() {
            let lost = dir.private().join("lost");
            std::fs::create_dir_all(&lost).map_err(io_error("create", &lost))?;
            let kept = lost.join(format!("{db}.db{suffix}.{}", clock::now_ms()));
            std::fs::rename(&side, &kept).map_err(io_error("rename", &side))?;
            tracing::warn!(db, kept = %kept.display(), "set aside a side file without its database");
        }
    }
    Ok(())
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> AgentError + 'a {
    move |source| AgentError::Io { action, path: path.to_owned(), source }
}
