//! The databases that a master answers for: which it has made, so that a lost file is missed, and what their files
//! looked like at the last clean stop, so that an edit in between is noticed.

use std::collections::BTreeMap;

use super::NodeDb;
use crate::fault;

impl NodeDb {
    /// The databases that this master has, or had: whether each was made whole. Empty on a replica.
    pub fn known(&self) -> rusqlite::Result<BTreeMap<String, bool>> {
        if !self.has_table("known")? {
            return Ok(BTreeMap::new());
        }
        let mut statement = self.conn.prepare_cached("SELECT name, made FROM known")?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// Remembers a database of this master before its file is made, so that one that was cut short is not missed.
    pub fn remember_making(&self, name: &str) -> rusqlite::Result<()> {
        self.conn.execute("INSERT OR IGNORE INTO known VALUES (?1, 0)", [name])?;
        Ok(())
    }

    /// Remembers a database of this master, whose file is whole: from now on it is missed.
    pub fn remember_made(&self, name: &str) -> rusqlite::Result<()> {
        self.conn.execute("INSERT OR REPLACE INTO known VALUES (?1, 1)", [name])?;
        Ok(())
    }

    /// Misses a database no longer. Whether it would have been.
    pub fn give_up(&mut self, name: &str) -> rusqlite::Result<bool> {
        let transaction = self.conn.transaction()?;
        let known = transaction.execute("DELETE FROM known WHERE name = ?1", [name])? > 0;
        let closed = transaction.execute("DELETE FROM fingerprints WHERE name = ?1", [name])? > 0;
        transaction.commit()?;
        Ok(known || closed)
    }

    /// What the master's database files looked like at the last clean stop. Gone afterwards: from now on they change.
    pub fn take_fingerprints(&mut self) -> rusqlite::Result<BTreeMap<String, String>> {
        let transaction = self.conn.transaction()?;
        // A program from before `known` left these.
        transaction.execute("INSERT OR IGNORE INTO known SELECT name, 1 FROM fingerprints", [])?;
        let found = transaction
            .prepare("SELECT name, fingerprint FROM fingerprints")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        transaction.execute("DELETE FROM fingerprints", [])?;
        fault::sql("node:take-fingerprints")?;
        transaction.commit()?;
        Ok(found)
    }

    /// Records what the master's database files look like, now that they are closed.
    pub fn set_fingerprints(&mut self, fingerprints: &BTreeMap<String, String>) -> rusqlite::Result<()> {
        let transaction = self.conn.transaction()?;
        for (name, fingerprint) in fingerprints {
            transaction.execute("INSERT OR REPLACE INTO fingerprints VALUES (?1, ?2)", [name, fingerprint])?;
        }
        fault::sql("node:set-fingerprints")?;
        transaction.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datadir::DataDir;

    #[test]
    fn a_database_is_missed_once_it_was_made_and_until_it_is_given_up() {
        let temporary = tempfile::tempdir().unwrap();
        let mut node = NodeDb::open(&DataDir::open(temporary.path()).unwrap()).unwrap();
        node.remember_making("shop").unwrap();
        assert_eq!(node.known().unwrap(), BTreeMap::from([("shop".to_owned(), false)]));
        node.remember_made("shop").unwrap();
        node.remember_making("shop").unwrap();
        node.set_fingerprints(&BTreeMap::from([("older".to_owned(), "1".to_owned())])).unwrap();
        node.take_fingerprints().unwrap();
        assert_eq!(node.known().unwrap(), BTreeMap::from([("older".to_owned(), true), ("shop".to_owned(), true)]));
        node.set_fingerprints(&BTreeMap::from([("shop".to_owned(), "2".to_owned())])).unwrap();
        assert!(node.give_up("shop").unwrap() && !node.give_up("shop").unwrap());
        node.take_fingerprints().unwrap();
        assert!(!node.known().unwrap().contains_key("shop"));
        node.demote().unwrap();
        assert!(node.known().unwrap().is_empty(), "a replica's databases are its master's business");
    }
}
