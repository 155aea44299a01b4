//! Operators copy, restore and mix up data directories, and age cuts logs. All of it is done to nodes that were
//! killed, never to running ones; a clean stop would let the next start notice that the file is not the one it left.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use vski_replication::changelog::Cut;
use vski_replication::entry::{EpochChange, EpochReason, Kind};
use vski_replication::position::{Epoch, EpochId, Position};
use vski_replication::{changelog, connection};

/// Copies a data directory, times included: a restored backup looks like the original.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target).with_context(|| format!("copy {}", entry.path().display()))?;
            let modified = entry.metadata()?.modified()?;
            File::options().write(true).open(&target)?.set_modified(modified)?;
        }
    }
    Ok(())
}

/// Replaces a data directory by a copy of another one. What was there is gone.
pub fn restore(backup: &Path, dir: &Path) -> Result<()> {
    std::fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    copy(backup, dir)
}

/// Opens a new epoch in a database, as a promotion does.
pub fn begin_epoch(file: &Path) -> Result<Position> {
    let conn = connection::writer(file)?;
    let head = changelog::head(&conn)?;
    let epoch = Epoch { generation: head.position.epoch.generation + 1, id: EpochId::random() };
    let payload = serde_json::to_vec(&EpochChange { reason: EpochReason::Promoted })?;
    let entry = head.next(Kind::Epoch, epoch, head.schema_hash, payload);
    changelog::append(&conn, &entry)?;
    Ok(entry.position())
}

/// Removes all entries but the last, as pruning does: the log then begins right below its head.
pub fn cut_log(file: &Path) -> Result<Position> {
    let mut conn = connection::writer(file)?;
    let transaction = conn.transaction()?;
    let head = changelog::head(&transaction)?.position;
    ensure!(head.version > 1, "a log of two entries or more");
    while changelog::prune(&transaction, Cut { before_ms: i64::MAX, excess_bytes: 0, up_to: u64::MAX })?.more {}
    let base = changelog::base(&transaction)?.position;
    transaction.commit()?;
    Ok(base)
}

/// Where a database's log ends; also for running nodes.
pub fn position(file: &Path) -> Result<Position> {
    let conn = connection::reader(file).with_context(|| format!("open {}", file.display()))?;
    Ok(changelog::head(&conn)?.position)
}
