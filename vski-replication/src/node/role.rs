//! Whose a directory is: a master's or a replica's. A process takes its lock and is checked against that here.
//!
//! The role is written at the first start and stays; only a promotion or demotion changes it, see `promotion`.

use std::path::PathBuf;

use rusqlite::{ErrorCode, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::NodeDb;
use crate::datadir::{DataDir, DataDirError, DirLock, Holder};
use crate::fault;

/// What a node does with its databases. Recorded at the first start; only promote and demote change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes writes.
    Master,
    /// Follows a master.
    Replica,
}

impl Role {
    /// The word in REPLICA_MODE, headers and node.db.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "replica",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Master, Self::Replica].into_iter().find(|role| role.name() == name)
    }
}

/// A directory that this process may not write.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It cannot be used or locked.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// It belongs to a node of the other role.
    #[error("{path} is a {recorded}'s directory: {repair}")]
    WrongRole {
        /// The directory.
        path: PathBuf,
        /// The role in node.db.
        recorded: &'static str,
        /// What to do.
        repair: &'static str,
    },
    /// node.db cannot be used.
    #[error("cannot use node.db in {path}: {source}; {remedy}", remedy = remedy(source))]
    NodeDb {
        /// The directory.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
}

fn remedy(source: &rusqlite::Error) -> &'static str {
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "make room on its file system",
        _ => "if the file is damaged, move it away: it holds no user data",
    }
}

/// Takes a directory's lock for a process of `role` and records the role at the first start. Later it writes nothing, which
/// a full volume would not let it.
pub fn claim(dir: &DataDir, role: Role, holder: Holder) -> Result<(DirLock, NodeDb), ClaimError> {
    let lock = dir.lock(holder)?;
    let failed = |source| ClaimError::NodeDb { path: dir.private(), source };
    let node = NodeDb::open(dir).map_err(failed)?;
    let recorded = node.role().map_err(failed)?;
    check_role(dir, recorded, role)?;
    if recorded.is_none() {
        node.set_role(role).map_err(failed)?;
    }
    Ok((lock, node))
}

/// Refuses a directory whose recorded role is not the one it is started in: a replica must not fork history.
pub fn check_role(dir: &DataDir, recorded: Option<Role>, wanted: Role) -> Result<(), ClaimError> {
    match recorded {
        Some(recorded) if recorded != wanted => Err(ClaimError::WrongRole {
            path: dir.root().to_owned(),
            recorded: recorded.name(),
            repair: match recorded {
                Role::Master => {
                    "start it with REPLICA_MODE=master and no sync agent, set DATA_DIR to another directory, or make it \
                     a replica's by: vski-server demote"
                }
                Role::Replica => {
                    "start it with REPLICA_MODE=replica and MASTER_URL, set DATA_DIR to another directory, or make it \
                     a master's by: vski-server promote"
                }
            },
        }),
        _ => Ok(()),
    }
}

impl NodeDb {
    /// The recorded role.
    pub fn role(&self) -> rusqlite::Result<Option<Role>> {
        let name: Option<String> = self.conn.query_row("SELECT role FROM node", [], |row| row.get(0)).optional()?;
        Ok(name.as_deref().and_then(Role::from_name))
    }

    /// Records the role.
    pub fn set_role(&self, role: Role) -> rusqlite::Result<()> {
        fault::sql("node:role")?;
        self.conn.execute("INSERT OR REPLACE INTO node VALUES (1, ?1)", [role.name()])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_has_its_role_is_claimed_without_a_write_and_a_full_volume_is_told() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let claimed = || claim(&dir, Role::Master, Holder::this_process("master"));
        let (lock, node) = claimed().unwrap();
        let full = "CREATE TRIGGER full BEFORE INSERT ON node BEGIN SELECT RAISE(ABORT, 'full'); END";
        node.conn.execute_batch(full).unwrap();
        assert!(node.set_role(Role::Master).is_err());
        drop((lock, node));
        claimed().unwrap();

        let full = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None);
        let told = ClaimError::NodeDb { path: dir.private(), source: full }.to_string();
        assert!(told.contains("make room") && !told.contains("move it away"), "{told}");
    }

    #[test]
    fn a_directory_keeps_the_role_of_its_first_start() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        drop(claim(&dir, Role::Replica, Holder::this_process("agent")).unwrap());
        let refusal = claim(&dir, Role::Master, Holder::this_process("master")).err().expect("the other role");
        assert!(refusal.to_string().contains("REPLICA_MODE=replica"), "{refusal}");
        claim(&dir, Role::Replica, Holder::this_process("agent")).unwrap();
    }
}
