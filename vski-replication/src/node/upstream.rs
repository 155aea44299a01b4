//! What a replica was told by the node that it follows: how far their clocks are apart, which databases the master has
//! deleted, and which nodes lie in between.

use std::collections::BTreeSet;

use rusqlite::OptionalExtension;

use super::{NodeDb, has_column};

impl NodeDb {
    /// How far this node's clock was ahead of its master's when last compared, ms; `None` before that.
    pub fn clock_skew_ms(&self) -> rusqlite::Result<Option<i64>> {
        if !self.has_table("clock")? {
            return Ok(None);
        }
        self.conn.prepare_cached("SELECT skew_ms FROM clock")?.query_row([], |row| row.get(0)).optional()
    }

    /// Records how far this node's clock is ahead of its master's.
    pub fn set_clock_skew_ms(&self, skew_ms: i64) -> rusqlite::Result<()> {
        self.conn.prepare_cached("INSERT OR REPLACE INTO clock VALUES (1, ?1)")?.execute([skew_ms])?;
        Ok(())
    }

    /// The databases that this replica's master has deleted.
    pub fn deleted(&self) -> rusqlite::Result<BTreeSet<String>> {
        if !self.has_table("deleted")? {
            return Ok(BTreeSet::new());
        }
        self.conn.prepare_cached("SELECT name FROM deleted")?.query_map([], |row| row.get(0))?.collect()
    }

    /// Records them, in the place of those before.
    pub fn set_deleted(&mut self, names: &BTreeSet<String>) -> rusqlite::Result<()> {
        let transaction = self.conn.transaction()?;
        transaction.execute("DELETE FROM deleted", [])?;
        for name in names {
            transaction.execute("INSERT INTO deleted VALUES (?1)", [name])?;
        }
        transaction.commit()
    }

    /// The nodes between this one and its master, the nearest first, with commas; empty where there are none.
    pub fn upstream(&self) -> rusqlite::Result<String> {
        if !has_column(&self.conn, "upstream", "path")? {
            return Ok(String::new());
        }
        let path = self.conn.prepare_cached("SELECT path FROM upstream")?.query_row([], |row| row.get(0)).optional()?;
        Ok(path.unwrap_or_default())
    }

    /// Records the nodes between this one and its master.
    pub fn set_upstream(&self, path: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached("INSERT OR REPLACE INTO upstream VALUES (1, ?1)")?.execute([path])?;
        Ok(())
    }
}
