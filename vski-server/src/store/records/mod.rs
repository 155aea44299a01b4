//! Rows of a collection: checked, created, changed, deleted, read.
//!
//! What a caller sends is checked without the database first (`check`), then relations are looked up and the row is
//! written, all in the savepoint of the request.

/// A body against the fields.
mod check;

/// `field+`, `+field`, `field-`.
mod modifiers;

/// Ids of other records.
mod relations;

/// New rows.
mod create;

/// Changed rows.
mod update;

/// Removed rows, and what refers to them.
mod delete;

/// Passwords on their way to being hashes.
mod secrets;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Statement};
use serde_json::{Map, Value};
use vski_replication::schema::sql::quote_name;

pub use self::check::{NewRecord, check};
pub use self::create::{create, insert};
pub use self::delete::{Deleted, delete, truncate};
pub use self::secrets::{Secrets, hash_passwords};
pub use self::update::update;
use super::collections::{Collection, rows};
use super::error::StoreError;
use super::fields::Field;

/// Records per page unless the caller says otherwise (PocketBase's).
pub const DEFAULT_PER_PAGE: u64 = 30;

/// Records per page at most (PocketBase's).
pub const MAX_PER_PAGE: u64 = 1000;

/// One record, with what only admins see.
pub fn view(conn: &Connection, collection: &Collection, id: &str) -> Result<Value, StoreError> {
    let sql = format!("SELECT {} FROM {} AS r WHERE r.id = ?1", columns(collection), collection.source());
    let found = on_table(conn, collection, &sql, |statement| {
        statement.query_row([id], |row| to_json(collection, row)).optional()
    });
    found?.ok_or_else(|| missing(collection, id))
}

/// Runs a statement on the collection's table. Where the table is not as the catalogue says, that is the error.
pub fn on_table<T>(
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
                rows::contradiction(conn, collection).ok().flatten()
            }
            _ => None,
        };
        match error {
            _ if contradiction.is_some() => StoreError::Catalogue(contradiction.unwrap_or_default()),
            StoreError::Sqlite(cause) if collection.is_view() && is_the_selects(&cause) => failed(collection, &cause),
            error => error,
        }
    })
}

/// Whether an error is one of what a view computes, and not of the database or of who reads it.
fn is_the_selects(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(
            ErrorCode::Unknown
                | ErrorCode::TooBig
                | ErrorCode::OutOfMemory
                | ErrorCode::TypeMismatch
                | ErrorCode::AuthorizationForStatementDenied
        )
    )
}

/// A view's SELECT failed as it ran: told to the log once for each form of the view, since anybody may read it again.
fn failed(collection: &Collection, cause: &rusqlite::Error) -> StoreError {
    static TOLD: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());
    let (name, reason) = (collection.name.clone(), cause.to_string());
    let form = (collection.id.clone(), collection.updated.clone());
    if TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(form) {
        tracing::warn!(collection = name, reason, "the SELECT of a view failed as it ran: change its viewQuery");
    }
    StoreError::View { name, reason }
}

/// The columns of a record under the alias `r`, in the order that [`to_json`] reads: `id`, `created` and `updated` unless it
/// is a view's, then the fields that anybody may see.
#[must_use]
pub fn columns(collection: &Collection) -> String {
    let system: &[&str] = if collection.is_view() { &["id"] } else { &["id", "created", "updated"] };
    let system = system.iter().map(|name| format!("r.{name}"));
    let fields = shown(collection).map(|field| format!("r.{}", quote_name(field.column_name())));
    system.chain(fields).collect::<Vec<_>>().join(", ")
}

/// A row of [`columns`] as JSON, with what only admins see: see [`Collection::hide`].
pub fn to_json(collection: &Collection, row: &Row<'_>) -> rusqlite::Result<Value> {
    let mut record = Map::new();
    record.insert("collectionId".into(), collection.id.as_str().into());
    record.insert("collectionName".into(), collection.name.as_str().into());
    let system: &[&str] = if collection.is_view() { &["id"] } else { &["id", "created", "updated"] };
    for (at, name) in system.iter().enumerate() {
        record.insert((*name).to_owned(), text(row, at)?.into());
    }
    for (at, field) in shown(collection).enumerate() {
        record.insert(field.name.clone(), Field::to_json(field, row.get_ref(system.len() + at)?));
    }
    Ok(Value::Object(record))
}

/// A view's id may be a number.
fn text(row: &Row<'_>, at: usize) -> rusqlite::Result<String> {
    use rusqlite::types::ValueRef;
    Ok(match row.get_ref(at)? {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    })
}

fn shown(collection: &Collection) -> impl Iterator<Item = &Field> {
    collection.visible().filter(|field| !field.is_secret())
}

fn missing(collection: &Collection, id: &str) -> StoreError {
    StoreError::NotFound(format!("collection {} has no record {id:?}", collection.name))
}
