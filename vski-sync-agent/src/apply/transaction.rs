use std::ops::Deref;

use rusqlite::Connection;

/// A transaction that writes, whose BEGIN and COMMIT stay compiled. Dropped before [`Immediate::commit`], or where that fails, it
/// is rolled back.
pub(super) struct Immediate<'conn>(&'conn Connection);

impl<'conn> Immediate<'conn> {
    pub(super) fn begin(conn: &'conn Connection) -> rusqlite::Result<Self> {
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(Self(conn))
    }

    pub(super) fn commit(self) -> rusqlite::Result<()> {
        self.0.prepare_cached("COMMIT")?.execute([]).map(drop)
    }
}

impl Deref for Immediate<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0
    }
}

impl Drop for Immediate<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            // The WAL forgets it at the next open if even this fails.
            let _ = self.0.execute_batch("ROLLBACK");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_committed_is_rolled_back_also_where_the_commit_fails() {
        let conn = Connection::open_in_memory().unwrap();
        let tables = "PRAGMA foreign_keys = ON; CREATE TABLE t (id INTEGER PRIMARY KEY);
                      CREATE TABLE c (t REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)";
        conn.execute_batch(tables).unwrap();
        let count =
            || conn.query_row("SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM c)", [], |row| row.get(0));
        let insert = |sql: &str| {
            let transaction = Immediate::begin(&conn).unwrap();
            transaction.execute_batch(sql).unwrap();
            transaction
        };
        drop(insert("INSERT INTO t VALUES (1)"));
        assert_eq!((count(), conn.is_autocommit()), (Ok(0), true));
        insert("INSERT INTO c VALUES (7)").commit().unwrap_err();
        assert_eq!((count(), conn.is_autocommit()), (Ok(0), true));
        insert("INSERT INTO t VALUES (1)").commit().unwrap();
        assert_eq!((count(), conn.is_autocommit()), (Ok(1), true));
    }
}
