//! Uploaded files of a data directory, compared with the rows that name them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vski_replication::{connection, files};

use crate::eventually;

/// Names of the files of a database by its rows, with the hashes of their bytes.
pub fn named(dir: &Path, db: &str) -> Result<BTreeMap<String, String>> {
    let conn = connection::reader(&dir.join(format!("{db}.db")))?;
    let rows = files::numbered(&conn, i64::MIN, usize::MAX >> 1)?;
    Ok(rows.into_iter().map(|(_, row)| (row.name, row.blake3)).collect())
}

/// What lies in the storage of a database, whole or not.
pub fn found(dir: &Path, db: &str) -> Result<BTreeSet<String>> {
    let folder = dir.join("storage").join(db);
    if !folder.exists() {
        return Ok(BTreeSet::new());
    }
    let names = std::fs::read_dir(&folder)?.map(|file| Ok(file?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

/// Fails unless the files are exactly those that the rows name, byte by byte.
pub fn assert_whole(dir: &Path, db: &str) -> Result<()> {
    let (named, found) = (named(dir, db)?, found(dir, db)?);
    for (name, hash) in &named {
        let path = dir.join("storage").join(db).join(name);
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        ensure!(blake3::hash(&bytes).to_hex().as_str() == hash, "{} has other bytes", path.display());
    }
    let orphans: Vec<&String> = found.iter().filter(|name| !named.contains_key(*name)).collect();
    ensure!(orphans.is_empty(), "{} has files without rows: {orphans:?}", dir.display());
    Ok(())
}

/// Waits until all directories have the same rows, and exactly the files that these name.
pub fn wait_whole(dirs: &[&Path], db: &str, deadline: Duration) -> Result<()> {
    eventually("all nodes have exactly the files of their records", deadline, || {
        for dir in dirs {
            assert_whole(dir, db)?;
            ensure!(named(dir, db)? == named(dirs[0], db)?, "{} has other rows", dir.display());
        }
        Ok(true)
    })
}
