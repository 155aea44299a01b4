//! A change of role, as node.db remembers it.
//!
//! A promotion is begun before any database is touched and finished with the role, so that one that was killed in
//! between is continued under the same epoch id, and a master that was promoted is told from one that was born so.

use rusqlite::{OptionalExtension, params};

use super::{NodeDb, Role};
use crate::datadir::DataDir;
use crate::fault;
use crate::position::EpochId;

pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS promotion (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch BLOB NOT NULL,
        promoted_ms INTEGER
    );";

/// How a replica's directory becomes, or became, a master's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// The id of the epoch that begins with it, in every database. A database in this epoch has been promoted.
    pub epoch: EpochId,
    /// When it was finished, ms since 1970; `None` while databases may lack their entry.
    pub promoted_ms: Option<i64>,
}

impl NodeDb {
    /// The promotion of this directory, if there was one since it last became a replica's.
    pub fn promotion(&self) -> rusqlite::Result<Option<Promotion>> {
        if !self.has_table("promotion")? {
            return Ok(None);
        }
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let found = self.conn.query_row("SELECT epoch, promoted_ms FROM promotion", [], row).optional()?;
        Ok(found.map(|(epoch, promoted_ms)| Promotion { epoch: EpochId(epoch), promoted_ms }))
    }

    /// The epoch id to promote the databases under: that of a promotion which was begun and not finished, or a new one.
    pub fn begin_promotion(&self) -> rusqlite::Result<EpochId> {
        fault::sql("node:begin-promotion")?;
        self.conn.execute("INSERT OR IGNORE INTO promotion VALUES (1, ?1, NULL)", [EpochId::random().0])?;
        self.conn.query_row("SELECT epoch FROM promotion", [], |row| row.get(0)).map(EpochId)
    }

    /// Makes this a master's directory, now that all databases are in the new epoch.
    pub fn finish_promotion(&mut self, now_ms: i64) -> rusqlite::Result<()> {
        let transaction = self.conn.transaction()?;
        transaction.execute("UPDATE promotion SET promoted_ms = ?1", [now_ms])?;
        transaction.execute("INSERT OR REPLACE INTO node VALUES (1, ?1)", params![Role::Master.name()])?;
        // Of an earlier life as a master: the files look otherwise since, and rightly so.
        transaction.execute("DELETE FROM fingerprints", [])?;
        fault::sql("node:finish-promotion")?;
        transaction.commit()
    }

    /// Makes this a replica's directory.
    pub fn demote(&mut self) -> rusqlite::Result<()> {
        let transaction = self.conn.transaction()?;
        transaction.execute("INSERT OR REPLACE INTO node VALUES (1, ?1)", params![Role::Replica.name()])?;
        transaction.execute("DELETE FROM promotion", [])?;
        transaction.execute("DELETE FROM fingerprints", [])?;
        transaction.execute("DELETE FROM known", [])?;
        fault::sql("node:demote")?;
        transaction.commit()
    }
}

/// Whether a directory became a master's by promotion: an agent has nothing to do there, and that is no mistake.
pub fn was_promoted(dir: &DataDir) -> rusqlite::Result<bool> {
    let Some(node) = NodeDb::read(dir)? else { return Ok(false) };
    let finished = node.promotion()?.is_some_and(|promotion| promotion.promoted_ms.is_some());
    Ok(finished && node.role()? == Some(Role::Master))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promotion_keeps_its_epoch_until_it_is_finished_and_is_forgotten_by_a_demotion() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let mut node = NodeDb::open(&dir).unwrap();
        node.set_role(Role::Replica).unwrap();
        assert_eq!(node.promotion().unwrap(), None);
        let epoch = node.begin_promotion().unwrap();
        assert_eq!(node.begin_promotion().unwrap(), epoch, "run again");
        assert!(!was_promoted(&dir).unwrap());
        node.finish_promotion(7).unwrap();
        assert_eq!(node.promotion().unwrap(), Some(Promotion { epoch, promoted_ms: Some(7) }));
        assert!(was_promoted(&dir).unwrap());
        node.demote().unwrap();
        assert_eq!((node.role().unwrap(), node.promotion().unwrap()), (Some(Role::Replica), None));
        assert_ne!(node.begin_promotion().unwrap(), epoch, "another promotion is another epoch");
    }

    #[test]
    fn a_master_of_an_older_program_was_never_promoted() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let node = NodeDb::open(&dir).unwrap();
        node.set_role(Role::Master).unwrap();
        assert!(!was_promoted(&dir).unwrap());
        node.conn.execute_batch("DROP TABLE promotion").unwrap();
        assert!(!was_promoted(&dir).unwrap());
    }
}
