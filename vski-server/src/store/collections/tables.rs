//! The catalogue's own table, and what is added to that of an older database.

use rusqlite::Connection;

use crate::store::error::StoreError;

/// The statements that make the catalogue of a new database.
pub const TABLES: [&str; 2] = [
    "CREATE TABLE _collections (
        id TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        fields TEXT NOT NULL,
        listRule TEXT,
        viewRule TEXT,
        createRule TEXT,
        updateRule TEXT,
        deleteRule TEXT,
        created TEXT NOT NULL,
        updated TEXT NOT NULL,
        tableName TEXT,
        indexes TEXT,
        viewQuery TEXT,
        options TEXT,
        deleted TEXT
    )",
    NAMES,
];

/// A deleted collection's name may be used again.
const NAMES: &str = "CREATE UNIQUE INDEX _collections_name ON _collections (name COLLATE NOCASE) WHERE deleted IS NULL";

/// Columns that the first release lacked. Where one is NULL the collection has nothing of the kind.
const ADDED: [&str; 5] = ["tableName", "indexes", "viewQuery", "options", "deleted"];

/// The statements that bring the catalogue of an older database up to date; none for a new one.
pub fn upgrade(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare("SELECT name FROM pragma_table_info('_collections')")?;
    let columns: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let lacking = ADDED.iter().filter(|added| !columns.iter().any(|column| column == *added));
    let mut statements: Vec<String> =
        lacking.map(|column| format!("ALTER TABLE _collections ADD COLUMN {column} TEXT")).collect();
    if !statements.is_empty() {
        statements.push("DROP INDEX IF EXISTS _collections_name".to_owned());
        statements.push(NAMES.to_owned());
    }
    Ok(statements)
}
