//! The replicas that have asked this node for changes: which copy of theirs stood where, and when they said so.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{NodeDb, parsed};
use crate::fault;
use crate::position::Position;

/// What a master knows of a replica's copy of one database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSeen {
    /// The replica's id.
    pub replica: String,
    /// The database.
    pub db: String,
    /// The position it said it had.
    pub position: Position,
    /// When, ms since 1970.
    pub last_contact_ms: i64,
    /// Its public address, if it has one.
    pub public_url: Option<String>,
    /// Its process.
    pub boot_id: Option<String>,
    /// The version of its program.
    pub version: Option<String>,
}

impl NodeDb {
    /// Records what was heard of replicas, in one transaction.
    pub fn set_replicas(&mut self, seen: &[ReplicaSeen]) -> rusqlite::Result<()> {
        let transaction = self.conn.transaction()?;
        for seen in seen {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO replicas VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![
                    seen.replica,
                    seen.db,
                    seen.position.to_string(),
                    seen.last_contact_ms,
                    seen.public_url,
                    seen.boot_id,
                    seen.version,
                ])?;
        }
        fault::sql("node:replicas")?;
        transaction.commit()
    }

    /// Forgets replicas' copies that were not heard of since `before_ms`.
    pub fn forget_replicas(&self, before_ms: i64) -> rusqlite::Result<()> {
        self.conn.execute("DELETE FROM replicas WHERE last_contact_ms < ?1", [before_ms])?;
        Ok(())
    }

    /// All replicas that were seen and not forgotten, by id and database.
    pub fn replicas(&self) -> rusqlite::Result<Vec<ReplicaSeen>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT replica, db, position, last_contact_ms, public_url, boot_id, version FROM replicas ORDER BY replica, db",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(ReplicaSeen {
                replica: row.get(0)?,
                db: row.get(1)?,
                position: parsed(row, 2)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?,
                last_contact_ms: row.get(3)?,
                public_url: row.get(4)?,
                boot_id: row.get(5)?,
                version: row.get(6)?,
            })
        })?;
        rows.collect()
    }
}
