//! Rows of a collection: create, view, update, delete, list.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Statement, params_from_iter};
use serde_json::{Map, Value};
use vski_replication::schema::sql::quote_name;

use super::collections::{self, Collection};
use super::error::{FieldError, StoreError};
use super::fields::Field;
use super::ids;

/// Keys of a record's JSON that the server sets: a client may send back what it got.
const READ_ONLY_KEYS: [&str; 5] = ["created", "updated", "collectionId", "collectionName", "expand"];

/// Records per page unless the caller says otherwise (PocketBase's).
pub const DEFAULT_PER_PAGE: u64 = 30;

/// Records per page at most (PocketBase's).
pub const MAX_PER_PAGE: u64 = 1000;

/// A record to be stored: checked, and in SQL's values.
#[derive(Clone, Debug)]
pub struct NewRecord {
    id: Option<String>,
    values: Vec<(String, Sql)>,
}

/// Checks a body against the collection's fields; all that is wrong is reported at once.
/// `partial` is an update: what is absent stays as it is.
pub fn check(collection: &Collection, body: &Map<String, Value>, partial: bool) -> Result<NewRecord, StoreError> {
    let mut errors: Vec<FieldError> = Vec::new();
    let mut values = Vec::new();
    for field in collection.visible() {
        match body.get(&field.name) {
            None if partial => continue,
            None if field.required => errors.push(field.missing()),
            None => values.push((field.name.clone(), field.zero())),
            Some(value) => match field.to_sql(value) {
                Ok(value) => values.push((field.name.clone(), value)),
                Err(error) => errors.push(error),
            },
        }
    }
    let known =
        |key: &str| key == "id" || READ_ONLY_KEYS.contains(&key) || collection.visible().any(|field| field.name == key);
    errors.extend(body.keys().filter(|key| !known(key)).map(|key| FieldError {
        field: key.clone(),
        code: "validation_unknown_field",
        message: format!("collection {} has no such field", collection.name),
    }));
    let id = match body.get("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) if id.is_empty() => None,
        Some(Value::String(id)) if ids::is_record_id(id) => Some(id.clone()),
        Some(_) => {
            let message = format!("must be {} characters of a-z and 0-9", ids::ID_LENGTH);
            errors.push(FieldError { field: "id".into(), code: "validation_invalid_id", message });
            None
        }
    };
    if errors.is_empty() { Ok(NewRecord { id, values }) } else { Err(StoreError::Fields(errors)) }
}

/// Stores a new record.
pub fn create(conn: &Connection, collection: &Collection, record: &NewRecord) -> Result<Value, StoreError> {
    let id = insert(conn, collection, record)?;
    view(conn, collection, &id)
}

/// Stores a new record without reading it back; returns its id.
pub fn insert(conn: &Connection, collection: &Collection, record: &NewRecord) -> Result<String, StoreError> {
    let id = record.id.clone().unwrap_or_else(ids::record_id);
    let now = ids::now();
    let names: String = record.values.iter().map(|(name, _)| format!(", {}", quote_name(name))).collect();
    let marks = ", ?".repeat(record.values.len());
    let sql =
        format!("INSERT INTO {} (id, created, updated{names}) VALUES (?, ?, ?{marks})", quote_name(&collection.name));
    let system = [Sql::Text(id.clone()), Sql::Text(now.clone()), Sql::Text(now)];
    let values = system.into_iter().chain(record.values.iter().map(|(_, value)| value.clone()));
    match on_table(conn, collection, &sql, |statement| statement.execute(params_from_iter(values))) {
        Err(StoreError::Sqlite(error))
            if error.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY) =>
        {
            Err(StoreError::field("id", "validation_not_unique", format!("a record {id} exists already")))
        }
        other => other.map(|_| id),
    }
}

/// One record.
pub fn view(conn: &Connection, collection: &Collection, id: &str) -> Result<Value, StoreError> {
    let sql = format!("SELECT {} FROM {} WHERE id = ?1", columns(collection), quote_name(&collection.name));
    let found = on_table(conn, collection, &sql, |statement| {
        statement.query_row([id], |row| to_json(collection, row)).optional()
    });
    found?.ok_or_else(|| missing(collection, id))
}

/// Changes some fields of a record.
pub fn update(conn: &Connection, collection: &Collection, id: &str, record: &NewRecord) -> Result<Value, StoreError> {
    if record.id.as_ref().is_some_and(|wanted| wanted != id) {
        return Err(StoreError::field("id", "validation_append_only", "a record's id cannot change"));
    }
    let sets: String = record.values.iter().map(|(name, _)| format!(", {} = ?", quote_name(name))).collect();
    let sql = format!("UPDATE {} SET updated = ?{sets} WHERE id = ?", quote_name(&collection.name));
    let values = std::iter::once(Sql::Text(ids::now()))
        .chain(record.values.iter().map(|(_, value)| value.clone()))
        .chain(std::iter::once(Sql::Text(id.to_owned())));
    if on_table(conn, collection, &sql, |statement| statement.execute(params_from_iter(values)))? == 0 {
        return Err(missing(collection, id));
    }
    view(conn, collection, id)
}

/// Removes a record.
pub fn delete(conn: &Connection, collection: &Collection, id: &str) -> Result<(), StoreError> {
    let sql = format!("DELETE FROM {} WHERE id = ?1", quote_name(&collection.name));
    if on_table(conn, collection, &sql, |statement| statement.execute([id]))? == 0 {
        return Err(missing(collection, id));
    }
    Ok(())
}

/// One page of records, in the order of their ids, and how many there are in all.
pub struct Page {
    /// Which page, from 1.
    pub page: u64,
    /// Records per page.
    pub per_page: u64,
    /// All records, unless the caller did not want them counted.
    pub total: Option<u64>,
    /// This page's records.
    pub items: Vec<Value>,
}

/// Lists a page; `count` says whether to count all records.
pub fn list(
    conn: &Connection,
    collection: &Collection,
    page: u64,
    per_page: u64,
    count: bool,
) -> Result<Page, StoreError> {
    let table = quote_name(&collection.name);
    let counting = format!("SELECT count(*) FROM {table}");
    let counted = |statement: &mut Statement<'_>| statement.query_row([], |row| row.get::<_, i64>(0));
    let total = count.then(|| on_table(conn, collection, &counting, counted)).transpose()?;
    let sql = format!("SELECT {} FROM {table} ORDER BY id LIMIT ?1 OFFSET ?2", columns(collection));
    let offset = (page - 1).saturating_mul(per_page);
    let bounds = [per_page, offset].map(|bound| i64::try_from(bound).unwrap_or(i64::MAX));
    let items = on_table(conn, collection, &sql, |statement| {
        statement.query_map(bounds, |row| to_json(collection, row))?.collect()
    })?;
    Ok(Page { page, per_page, total: total.map(|total| u64::try_from(total).unwrap_or(0)), items })
}

/// Runs a statement on the collection's table. Where the table is not as the catalogue says, that is the error.
fn on_table<T>(
    conn: &Connection,
    collection: &Collection,
    sql: &str,
    run: impl FnOnce(&mut Statement<'_>) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    let done = conn.prepare_cached(sql).and_then(|mut statement| run(&mut statement)).map_err(StoreError::from);
    done.map_err(|error| {
        let contradiction = match &error {
            // What SQL cannot be compiled is told as one or the other, with a new statement or a kept one.
            StoreError::Sqlite(error) if error.sqlite_error_code().is_none_or(|code| code == ErrorCode::Unknown) => {
                collections::contradiction(conn, collection).ok().flatten()
            }
            _ => None,
        };
        contradiction.map_or(error, StoreError::Catalogue)
    })
}

fn columns(collection: &Collection) -> String {
    let fields: String = collection.visible().map(|field| format!(", {}", quote_name(&field.name))).collect();
    format!("id, created, updated{fields}")
}

fn to_json(collection: &Collection, row: &Row<'_>) -> rusqlite::Result<Value> {
    let mut record = Map::new();
    record.insert("collectionId".into(), collection.id.as_str().into());
    record.insert("collectionName".into(), collection.name.as_str().into());
    for (at, name) in ["id", "created", "updated"].into_iter().enumerate() {
        record.insert(name.into(), row.get::<_, String>(at)?.into());
    }
    for (at, field) in collection.visible().enumerate() {
        record.insert(field.name.clone(), Field::to_json(field, row.get_ref(3 + at)?));
    }
    Ok(Value::Object(record))
}

fn missing(collection: &Collection, id: &str) -> StoreError {
    StoreError::NotFound(format!("collection {} has no record {id:?}", collection.name))
}
