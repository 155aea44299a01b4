use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use vski_replication::datadir::{DataDir, DataDirError};
use vski_replication::node::{self, NodeDb, Role};

use super::Finding;

/// Less free space than this is too little for a log, a WAL and a snapshot, however small the databases are.
const MIN_FREE_BYTES: u64 = 1 << 30;

pub(super) fn examine(dir: &DataDir, role: Role) -> Vec<Finding> {
    let root = dir.root();
    let metadata = match std::fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            return vec![Finding::error(format!("{} is no directory", root.display()), "set DATA_DIR to a directory")];
        }
        Err(error) => {
            let what = format!("{} cannot be looked at: {error}", root.display());
            return vec![Finding::error(what, "set DATA_DIR to the node's directory; its first start makes it")];
        }
    };
    let mut found = vec![match dir.check_file_system() {
        Ok(()) => Finding::ok(format!("{} is on a local file system", root.display())),
        Err(error) => Finding::error(error.to_string(), "set DATA_DIR to a directory on a local file system"),
    }];
    let files = files(dir);
    found.extend(unwritable(dir, &files));
    found.extend(owners(&metadata, &files));
    found.push(space(dir, &files));
    found.push(match dir.holder() {
        Ok(None) => Finding::ok("no process holds the directory's lock"),
        Ok(Some(holder)) => Finding::ok(format!("the directory's lock is held by {holder}")),
        Err(error) => Finding::error(error.to_string(), "make .vski/lock readable for this user"),
    });
    found.extend(recorded_role(dir, role));
    found.extend(lost(dir));
    found
}

/// A recorded id with which the next start would be refused: REPLICA_ID would replace it.
pub(super) fn node_id(dir: &DataDir, wanted: Option<&str>) -> Option<Finding> {
    if wanted.is_some_and(|wanted| !wanted.trim().is_empty()) {
        return None;
    }
    let error = dir.recorded_id().err()?;
    Some(match &error {
        DataDirError::RecordedId { .. } => super::refused(&error.to_string()),
        _ => Finding::error(error.to_string(), "make .vski/id readable for this user"),
    })
}

/// The databases' files and our own, with what the system says of them.
fn files(dir: &DataDir) -> Vec<(PathBuf, Metadata)> {
    let listed = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let databases = listed(dir.root()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        [".db", ".db-wal", ".db-shm"].iter().any(|end| name.ends_with(end))
    });
    let private = [dir.private()].into_iter().chain(listed(&dir.private()));
    databases.chain(private).filter_map(|path| path.metadata().ok().map(|metadata| (path, metadata))).collect()
}

fn unwritable(dir: &DataDir, files: &[(PathBuf, Metadata)]) -> Option<Finding> {
    let paths = std::iter::once(dir.root()).chain(files.iter().map(|(path, _)| path.as_path()));
    let refused = |path: &&Path| {
        let folder = if path.is_dir() { Access::EXEC_OK } else { Access::empty() };
        rustix::fs::access(*path, Access::READ_OK | Access::WRITE_OK | folder).is_err()
    };
    let refused: Vec<&Path> = paths.filter(refused).collect();
    let user = rustix::process::geteuid().as_raw();
    let what = format!("user {user}, who runs this, may not write {}", and_more(refused.first()?, refused.len()));
    Some(Finding::error(what, "run it as the user that owns DATA_DIR, or give all of DATA_DIR to this user"))
}

/// The directory's owner is the one that counts: whether this user may write is another question.
fn owners(root: &Metadata, files: &[(PathBuf, Metadata)]) -> Option<Finding> {
    let owned: Vec<(&Path, u32)> = files.iter().map(|(path, file)| (path.as_path(), file.uid())).collect();
    strangers(root.uid(), &owned)
}

/// Both processes of a node must run as one user, because SQLite's side files belong to who makes them.
pub(super) fn strangers(expected: u32, owned: &[(&Path, u32)]) -> Option<Finding> {
    let others: Vec<_> = owned.iter().filter(|(_, uid)| *uid != expected).collect();
    let (path, uid) = others.first()?;
    let what = format!("user {uid}, not user {expected} as DATA_DIR, owns {}", and_more(path, others.len()));
    let repair = format!("run all of a node's processes as one user; stop them and chown -R {expected} DATA_DIR");
    Some(Finding::warning(what, repair))
}

/// The first of `count` paths, and how many there are besides.
fn and_more(first: &Path, count: usize) -> String {
    let others = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
    format!("{}{others}", first.display())
}

fn space(dir: &DataDir, files: &[(PathBuf, Metadata)]) -> Finding {
    let databases = files.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "db"));
    let largest = databases.map(|(_, file)| file.len()).max().unwrap_or(0);
    match dir.free_bytes() {
        Ok(free) => enough(free, largest),
        Err(error) => Finding::error(error.to_string(), "make DATA_DIR readable for this user"),
    }
}

pub(super) fn enough(free: u64, largest: u64) -> Finding {
    let (mib, needed) = (free >> 20, largest.max(MIN_FREE_BYTES));
    if mib == 0 {
        return Finding::error("no space is free: writes are refused", "make room on the volume, or a larger volume");
    }
    if free >= needed {
        return Finding::ok(format!("{mib} MiB are free"));
    }
    let what = format!("{mib} MiB are free, less than the {} MiB that a snapshot and the log may need", needed >> 20);
    Finding::warning(what, "make room on the volume, or a larger volume")
}

fn recorded_role(dir: &DataDir, wanted: Role) -> Option<Finding> {
    let recorded = match NodeDb::observe(dir).and_then(|node| node.map_or(Ok(None), |node| node.role())) {
        Ok(recorded) => recorded,
        Err(error) => {
            let repair = "make .vski readable for this user; a damaged node.db holds no user data: stop, move it away";
            return Some(Finding::error(format!("node.db cannot be read: {error}"), repair));
        }
    };
    Some(match (node::check_role(dir, recorded, wanted), recorded) {
        (Err(error), _) => super::refused(&error.to_string()),
        (Ok(()), Some(role)) => Finding::ok(format!("it is a {}'s directory", role.name())),
        (Ok(()), None) => Finding::ok("it has no role yet: the first start records it"),
    })
}

fn lost(dir: &DataDir) -> Option<Finding> {
    let folder = dir.private().join("lost");
    let count = std::fs::read_dir(&folder).map_or(0, Iterator::count);
    let what = format!("{} holds {count} files with what this node had and its master had not", folder.display());
    (count > 0).then(|| Finding::info(what, "look into them, and remove what nobody misses"))
}
