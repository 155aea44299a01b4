//! The schema of one database: its objects, their hash, the way from one schema to another, and the gate.
//!
//! The rules are the specification's ("Schema Synchronization"): hashes over `sqlite_master`, tables created and
//! widened, indexes, triggers and views created and dropped, tables never dropped. Our own `_vski_` tables and
//! SQLite's `sqlite_` objects are no part of a schema.

/// The statements that lead from one schema to another.
pub mod diff;

/// Tables that would be dropped are set aside with their rows.
pub mod keep;

/// Which tables can be replicated, and why the others cannot.
pub mod gate;

/// SQL as tokens, so that layout and comments do not count.
pub mod sql;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::names;
use crate::position::SchemaHash;

/// One row of `sqlite_master` that belongs to the schema.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Object {
    /// `table`, `index`, `trigger` or `view`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The table that an index or trigger belongs to; else its own name.
    pub table: String,
    /// The statement that makes it, as SQLite stores it.
    pub sql: String,
}

/// The schema's objects, ordered by type and name.
pub fn objects(conn: &Connection) -> rusqlite::Result<Vec<Object>> {
    let mut statement = conn.prepare_cached(
        "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(Object { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    })?;
    let ours = |object: &Object| names::is_reserved_table(&object.name) || names::is_reserved_table(&object.table);
    rows.filter(|object| !object.as_ref().is_ok_and(ours)).collect()
}

/// The hash of `objects`, which must be ordered as [`objects`] orders them.
#[must_use]
pub fn hash_objects(objects: &[Object]) -> SchemaHash {
    let mut hasher = Sha256::new();
    let mut field = |text: &str| {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text);
    };
    for object in objects {
        field(&object.kind);
        field(&object.name);
        let tokens = sql::tokens(&object.sql);
        field(&tokens.len().to_string());
        tokens.iter().for_each(|token| field(&token.normal()));
    }
    SchemaHash(hasher.finalize().into())
}

/// The hash of a database's schema.
pub fn hash(conn: &Connection) -> rusqlite::Result<SchemaHash> {
    Ok(hash_objects(&objects(conn)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(sql).unwrap();
        conn
    }

    #[test]
    fn layout_comments_and_keyword_case_do_not_change_the_hash() {
        let tidy = database("CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, note TEXT DEFAULT 'A b')");
        let wild =
            database("create  table t(id TEXT primary KEY not null, -- the key\n note TEXT /* x */ DEFAULT 'A b')");
        assert_eq!(hash(&tidy).unwrap(), hash(&wild).unwrap());
    }

    #[test]
    fn names_literals_and_order_change_the_hash() {
        let base = hash(&database("CREATE TABLE t (a TEXT DEFAULT 'x', b)")).unwrap();
        for other in [
            "CREATE TABLE t (a TEXT DEFAULT 'X', b)",
            "CREATE TABLE t (A TEXT DEFAULT 'x', b)",
            "CREATE TABLE t (b, a TEXT DEFAULT 'x')",
            "CREATE TABLE u (a TEXT DEFAULT 'x', b)",
            "CREATE TABLE t (a TEXT DEFAULT 'x', b); CREATE INDEX i ON t (b)",
        ] {
            assert_ne!(base, hash(&database(other)).unwrap(), "{other}");
        }
    }

    #[test]
    fn our_own_tables_and_their_indexes_are_no_part_of_the_schema() {
        let conn = database("CREATE TABLE _vski_x (a); CREATE INDEX i ON _VSKI_x (a); CREATE TABLE vski (a)");
        let names: Vec<_> = objects(&conn).unwrap().into_iter().map(|object| object.name).collect();
        assert_eq!(names, ["vski"]);
    }
}
