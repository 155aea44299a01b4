use rusqlite::{Connection, ToSql, params_from_iter};
use vski_replication::schema::sql::push_name;

use super::check::{NewRecord, check};
use super::{Body, COLUMNS_BYTES, Secrets, on_table, relations};
use crate::store::collections::{Catalogue, Collection};
use crate::store::error::{FieldError, NOT_UNIQUE, StoreError};
use crate::store::fields::Field;
use crate::store::ids;

/// Checks and stores a new record; returns its id.
pub fn create(
    conn: &Connection,
    catalogue: &Catalogue,
    collection: &Collection,
    body: &Body,
    secrets: &Secrets,
) -> Result<String, StoreError> {
    collection.check_writable()?;
    body.check_resolved()?;
    let record = check(collection, body.sender, &body.values, false, secrets)?;
    insert(conn, catalogue, collection, &record)
}

/// Stores a new record that was checked; returns its id.
pub fn insert(
    conn: &Connection,
    catalogue: &Catalogue,
    collection: &Collection,
    record: &NewRecord,
) -> Result<String, StoreError> {
    collection.check_writable()?;
    record.check_hashed()?;
    let id = record.id.clone().unwrap_or_else(ids::record_id);
    relations::check(conn, catalogue, collection, record, &id)?;
    let now = ids::now();
    let mut sql = String::with_capacity(COLUMNS_BYTES);
    sql.push_str("INSERT INTO ");
    push_name(&mut sql, &collection.table);
    sql.push_str(" (id, created, updated");
    for (name, _) in &record.values {
        sql.push_str(", ");
        push_name(&mut sql, name);
    }
    sql.push_str(") VALUES (?, ?, ?");
    record.values.iter().for_each(|_| sql.push_str(", ?"));
    sql.push(')');
    let system: [&dyn ToSql; 3] = [&id, &now, &now];
    let values = system.into_iter().chain(record.values.iter().map(|(_, value)| value as &dyn ToSql));
    on_table(conn, collection, &sql, |statement| statement.execute(params_from_iter(values)))
        .map_err(|error| not_unique(collection, error))?;
    Ok(id)
}

/// Names the fields whose values another record has.
pub fn not_unique(collection: &Collection, error: StoreError) -> StoreError {
    let StoreError::Sqlite(rusqlite::Error::SqliteFailure(code, Some(message))) = &error else { return error };
    if ![rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY, rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE]
        .contains(&code.extended_code)
    {
        return error;
    }
    // UNIQUE constraint failed: table.column, table.column
    let columns = message.rsplit_once(": ").map_or("", |(_, columns)| columns).split(", ");
    let columns: Vec<&str> = columns.filter_map(|column| column.rsplit_once('.')).map(|(_, column)| column).collect();
    let name = |column: &&str| {
        let field = collection.visible().find(|field| field.column_name() == *column);
        field.map_or_else(|| (*column).to_owned(), |field: &Field| field.name.clone())
    };
    let together = if columns.len() > 1 { " together with the other fields named" } else { "" };
    let refused = |column: &&str| FieldError {
        field: name(column),
        code: NOT_UNIQUE,
        message: if *column == "id" {
            "is the id of a record that exists already".to_owned()
        } else {
            format!("must be unique{together}, and another record has this value")
        },
    };
    let fields: Vec<_> = columns.iter().map(refused).collect();
    if fields.is_empty() { error } else { StoreError::Fields(fields) }
}
