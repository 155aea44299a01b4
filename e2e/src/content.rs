//! Two databases are equal when their schemas are, and each table's rows are, value by value with its type. Node-local
//! bookkeeping (`_vski_*`) and SQLite's own tables are left out. All of a database is read in one transaction, so that
//! files of running nodes can be compared; whether they have got equally far is seen by their positions.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use vski_replication::datadir::DataDir;
use vski_replication::position::{Position, SchemaHash};
use vski_replication::{changelog, connection, names, schema};

use crate::eventually;

/// What a database contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Hash of the schema.
    pub schema: SchemaHash,
    /// How far its history has got.
    pub position: Position,
    /// Rows and hash of each table.
    pub tables: BTreeMap<String, Table>,
}

/// What a table contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// How many rows.
    pub rows: u64,
    /// BLAKE3 over the rows in the order of their keys.
    pub hash: blake3::Hash,
}

/// Reads a database's content, and has SQLite check the file.
pub fn read(file: &Path) -> Result<Content> {
    let context = || format!("read {}", file.display());
    let conn = connection::reader(file).with_context(context)?;
    let transaction = conn.unchecked_transaction().with_context(context)?;
    let verdict: String =
        transaction.query_row("PRAGMA integrity_check", [], |row| row.get(0)).with_context(context)?;
    ensure!(verdict == "ok", "{} is damaged: {verdict}", file.display());
    let mut tables = BTreeMap::new();
    for name in table_names(&transaction)? {
        let table = table(&transaction, &name).with_context(|| format!("read table {name} of {}", file.display()))?;
        tables.insert(name, table);
    }
    let position = changelog::head(&transaction).with_context(context)?.position;
    Ok(Content { schema: schema::hash(&transaction)?, position, tables })
}

/// The tables that belong to a database's schema.
pub fn table_names(conn: &Connection) -> Result<Vec<String>> {
    let mut statement = conn.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")?;
    let found = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    Ok(found.into_iter().filter(|name| !names::is_reserved_table(name)).collect())
}

/// Fails with the first difference between a database in several data directories.
pub fn assert_equal(dirs: &[&Path], db: &str) -> Result<()> {
    let contents = dirs.iter().map(|dir| read(&dir.join(format!("{db}.db")))).collect::<Result<Vec<_>>>()?;
    let Some((first, others)) = contents.split_first() else { return Ok(()) };
    for (other, dir) in others.iter().zip(&dirs[1..]) {
        let differs = difference(first, other);
        ensure!(
            differs.is_none(),
            "{db}: {} and {}: {}",
            dirs[0].display(),
            dir.display(),
            differs.unwrap_or_default()
        );
    }
    Ok(())
}

/// Fails unless several data directories hold the same databases with the same content.
pub fn assert_all_equal(dirs: &[&Path]) -> Result<()> {
    let databases = dirs.iter().map(|dir| Ok(DataDir::open(dir)?.databases()?)).collect::<Result<Vec<_>>>()?;
    for (found, dir) in databases.iter().zip(dirs) {
        ensure!(*found == databases[0], "{}: {:?} but {}: {found:?}", dirs[0].display(), databases[0], dir.display());
    }
    databases.iter().flatten().try_for_each(|db| assert_equal(dirs, db))
}

/// Waits until several data directories hold the same content.
pub fn wait_all_equal(dirs: &[&Path], deadline: Duration) -> Result<()> {
    eventually("all nodes hold the same", deadline, || assert_all_equal(dirs).map(|()| true))
}

fn difference(one: &Content, other: &Content) -> Option<String> {
    if one.position != other.position {
        return Some(format!("position {} is not {}", one.position, other.position));
    }
    if one.schema != other.schema {
        return Some(format!("schema {} is not {}", one.schema, other.schema));
    }
    let names = one.tables.keys().chain(other.tables.keys());
    let name = names.into_iter().find(|name| one.tables.get(*name) != other.tables.get(*name))?;
    Some(format!("table {name}: {:?} is not {:?}", one.tables.get(name), other.tables.get(name)))
}

fn table(conn: &Connection, name: &str) -> Result<Table> {
    let quoted = quote(name);
    let mut statement = conn.prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?;
    let key = statement.query_map([name], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    ensure!(!key.is_empty(), "it has no primary key, so its rows have no order");
    let order: Vec<String> = key.iter().map(|column| format!("{} COLLATE BINARY", quote(column))).collect();
    let mut statement = conn.prepare(&format!("SELECT * FROM {quoted} ORDER BY {}", order.join(", ")))?;
    let columns = statement.column_count();
    let (mut hasher, mut count, mut rows) = (blake3::Hasher::new(), 0, statement.query([])?);
    while let Some(row) = rows.next()? {
        hash_row(&mut hasher, row, columns)?;
        count += 1;
    }
    Ok(Table { rows: count, hash: hasher.finalize() })
}

/// Type and length come before the bytes: neither 1 and 1.0 nor ('ab', 'c') and ('a', 'bc') hash alike.
fn hash_row(hasher: &mut blake3::Hasher, row: &Row<'_>, columns: usize) -> Result<()> {
    for column in 0..columns {
        let mut value = |kind: u8, bytes: &[u8]| {
            hasher.update(&[kind]);
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        match row.get_ref(column)? {
            ValueRef::Null => value(0, &[]),
            ValueRef::Integer(number) => value(1, &number.to_be_bytes()),
            // -0.0 and 0.0 are the same to SQLite and to its sessions.
            ValueRef::Real(number) => value(2, &(number + 0.0).to_bits().to_be_bytes()),
            ValueRef::Text(text) => value(3, text),
            ValueRef::Blob(blob) => value(4, blob),
        }
    }
    Ok(())
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use vski_replication::position::DatabaseId;

    use super::*;

    fn database(dir: &Path, rows: &str) {
        std::fs::create_dir_all(dir).unwrap();
        let conn = connection::writer(&dir.join("default.db")).unwrap();
        conn.execute_batch("CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, v)").unwrap();
        changelog::create(&conn, DatabaseId([1; 16])).unwrap();
        // The epoch's random id is no matter of content.
        conn.execute_batch("UPDATE _vski_base SET epoch = x'0000000000000000'").unwrap();
        conn.execute_batch(&format!("INSERT INTO t VALUES {rows}")).unwrap();
    }

    #[test]
    fn content_is_compared_by_value_and_type_whatever_the_order_of_insertion() {
        let keep = tempfile::tempdir().unwrap();
        let [base, same, letter, kind] = ["base", "same", "letter", "kind"].map(|name| keep.path().join(name));
        database(&base, "('a', 1), ('b', 'A')");
        database(&same, "('b', 'A'), ('a', 1)");
        database(&letter, "('a', 1), ('b', 'a')");
        database(&kind, "('a', 1.0), ('b', 'A')");
        assert_equal(&[&base, &same], "default").unwrap();
        for other in [letter, kind] {
            let error = assert_equal(&[&base, &other], "default").unwrap_err().to_string();
            assert!(error.contains("table t"), "{error}");
        }
    }
}
