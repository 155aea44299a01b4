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

#[cfg(test)]
mod tests {
    use super::super::Catalogue;
    use super::*;
    use crate::store::fields::FieldKind;

    /// The catalogue of the first release.
    const OLD: &str = "CREATE TABLE _collections (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL,
            fields TEXT NOT NULL, listRule TEXT, viewRule TEXT, createRule TEXT, updateRule TEXT, deleteRule TEXT,
            created TEXT NOT NULL, updated TEXT NOT NULL);
        CREATE UNIQUE INDEX _collections_name ON _collections (name COLLATE NOCASE);
        INSERT INTO _collections VALUES ('old000000000001', 'posts', 'base',
            '[{\"name\":\"n\",\"type\":\"number\",\"required\":true},{\"name\":\"x\",\"type\":\"text\",\"required\":false,\"deleted\":true}]',
            '', NULL, NULL, NULL, NULL, '2026-01-01 00:00:00.000Z', '2026-01-01 00:00:00.000Z')";

    #[test]
    fn a_catalogue_of_the_first_release_is_read_as_it_is_and_after_its_upgrade() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(OLD).unwrap();
        let before = Catalogue::load(&conn).unwrap();
        let posts = before.get("POSTS").unwrap();
        assert_eq!((posts.table.as_str(), posts.rules.list_rule.as_deref()), ("posts", Some("")));
        assert_eq!(posts.visible().map(|field| &field.kind).collect::<Vec<_>>(), [&FieldKind::number()]);
        let statements = upgrade(&conn).unwrap();
        statements.iter().for_each(|statement| conn.execute_batch(statement).unwrap());
        assert_eq!(upgrade(&conn).unwrap(), Vec::<String>::new());
        assert_eq!(Catalogue::load(&conn).unwrap().get("posts").unwrap(), posts);
    }

    #[test]
    fn a_new_catalogue_needs_no_upgrade_and_every_edit_by_hand_is_seen() {
        let conn = Connection::open_in_memory().unwrap();
        TABLES.iter().for_each(|statement| conn.execute_batch(statement).unwrap());
        assert_eq!(upgrade(&conn).unwrap(), Vec::<String>::new());
        let insert =
            "INSERT INTO _collections (id, name, type, fields, created, updated) VALUES (?1, ?1, 'base', '[]', '', '')";
        conn.execute(insert, ["a"]).unwrap();
        assert!(Catalogue::load(&conn).unwrap().find("a").is_some());
        conn.execute_batch("UPDATE _collections SET name = 'b'").unwrap();
        let catalogue = Catalogue::load(&conn).unwrap();
        assert!(catalogue.find("b").is_some_and(|found| found.id == "a"));
        conn.execute_batch("UPDATE _collections SET fields = 'broken'").unwrap();
        assert!(
            Catalogue::load(&conn)
                .unwrap()
                .get("b")
                .unwrap_err()
                .to_string()
                .contains("UPDATE _collections SET fields")
        );
        conn.execute_batch("UPDATE _collections SET deleted = 'x', fields = '[]'").unwrap();
        assert!(Catalogue::load(&conn).unwrap().get("b").unwrap_err().to_string().contains("no collection"));
    }
}
