//! Rows of a collection: checked, created, changed, deleted, read.
//!
//! What a caller sends is checked without the database first (`check`), then relations are looked up and the row is
//! written, all in the savepoint of the request.

/// A body as rules see it and as it is stored.
mod body;

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

/// Rows as the JSON text that is sent.
mod text;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Statement};
use serde_json::{Map, Value};
use vski_replication::schema::sql::push_name;

pub use self::body::{Body, Sender};
pub use self::check::{NewRecord, check};
pub use self::create::{create, insert};
pub use self::delete::{Deleted, delete, truncate};
pub use self::secrets::{Secrets, hash_passwords};
pub use self::text::{Shows, write_json};
pub use self::update::update;
use super::collections::{Catalogue, Collection, rows};
use super::error::StoreError;
use super::fields::Field;

/// Records per page unless the caller says otherwise (PocketBase's).
pub const DEFAULT_PER_PAGE: u64 = 30;

/// Records per page at most (PocketBase's).
pub const MAX_PER_PAGE: u64 = 1000;

/// Room for the names of a collection's columns, bytes, before it has to grow: each request names them anew.
const COLUMNS_BYTES: usize = 256;

/// One record, with what only admins see.
pub fn view(conn: &Connection, collection: &Collection, id: &str) -> Result<Value, StoreError> {
    let sql = format!("SELECT {} FROM {} AS r WHERE r.id = ?1", columns(collection), collection.source());
    let found = on_table(conn, collection, &sql, |statement| {
        statement.query_row([id], |row| to_json(collection, row)).optional()
    });
    found?.ok_or_else(|| missing(collection, id))
}

/// Runs a statement on the collection's table, and on those that a filter joins. Where a table is not as the catalogue
/// says, that is the error, and so is a view among them whose SELECT fails.
pub fn on_table<T>(
    conn: &Connection,
    collection: &Collection,
    sql: &str,
    run: impl FnOnce(&mut Statement<'_>) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    let mut ran = false;
    let done = conn.prepare_cached(sql).and_then(|mut statement| {
        ran = true;
        run(&mut statement)
    });
    done.map_err(|error| match StoreError::from(error) {
        StoreError::Sqlite(cause) => explained(conn, collection, sql, ran, cause),
        error => error,
    })
}

/// What an error of a statement means: `ran` if it could be compiled.
fn explained(conn: &Connection, collection: &Collection, sql: &str, ran: bool, cause: rusqlite::Error) -> StoreError {
    let catalogue = Catalogue::load(conn).ok();
    let joined = catalogue.iter().flat_map(|catalogue| catalogue.iter());
    let joined = joined.filter(|other| other.id != collection.id && other.is_view() && sql.contains(&*other.source()));
    let read: Vec<&Collection> = std::iter::once(collection).chain(joined).collect();
    // What SQL cannot be compiled is told as one or the other, with a new statement or a kept one.
    if cause.sqlite_error_code().is_none_or(|code| code == ErrorCode::Unknown) {
        let contradiction = read.iter().find_map(|collection| rows::contradiction(conn, collection).ok().flatten());
        if let Some(contradiction) = contradiction {
            return StoreError::Catalogue(contradiction);
        }
    }
    let views: Vec<&Collection> = read.into_iter().filter(|collection| collection.is_view()).collect();
    if views.is_empty() || !ran || !is_the_selects(&cause) {
        return StoreError::Sqlite(cause);
    }
    failed(&views, &cause)
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

/// The SELECT of one of these views failed as it ran: told to the log once for each form of a view, since anybody may read
/// it again.
fn failed(views: &[&Collection], cause: &rusqlite::Error) -> StoreError {
    static TOLD: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());
    let names: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
    let (name, reason) = (names.join(" or "), cause.to_string());
    let forms = views.iter().map(|view| (view.id.clone(), view.updated.clone()));
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if forms.filter(|form| told.insert(form.clone())).count() > 0 {
        tracing::warn!(collection = name, reason, "the SELECT of a view failed as it ran: change its viewQuery");
    }
    StoreError::View { name, reason }
}

/// The columns of a record under the alias `r`, in the order that [`to_json`] and [`write_json`] read: `id`, `created` and `updated` unless it
/// is a view's, then the fields that anybody may see.
#[must_use]
pub fn columns(collection: &Collection) -> String {
    let (system, mut sql) = (system(collection), String::with_capacity(COLUMNS_BYTES));
    for (at, name) in system.iter().enumerate() {
        sql.push_str(if at > 0 { ", r." } else { "r." });
        sql.push_str(name);
    }
    for field in shown(collection) {
        sql.push_str(", r.");
        push_name(&mut sql, field.column_name());
    }
    sql
}

/// A row of [`columns`] as JSON, with what only admins see: see [`Collection::hide`].
pub fn to_json(collection: &Collection, row: &Row<'_>) -> rusqlite::Result<Value> {
    let mut record = Map::new();
    record.insert("collectionId".into(), collection.id.as_str().into());
    record.insert("collectionName".into(), collection.name.as_str().into());
    let system = system(collection);
    for (at, name) in system.iter().enumerate() {
        record.insert((*name).to_owned(), text(row, at)?.into());
    }
    for (at, field) in shown(collection).enumerate() {
        record.insert(field.name.clone(), Field::to_json(field, row.get_ref(system.len() + at)?));
    }
    Ok(Value::Object(record))
}

/// Columns that every row has.
fn system(collection: &Collection) -> &'static [&'static str] {
    if collection.is_view() { &["id"] } else { &["id", "created", "updated"] }
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

/// The error of a look-up that found nothing.
pub(super) fn missing(collection: &Collection, id: &str) -> StoreError {
    StoreError::NotFound(format!("collection {} has no record {id:?}", collection.name))
}
