//! Many records at once, one JSON object a line. A chunk is stored whole or not at all.

use rusqlite::Connection;
use serde_json::{Map, Value};

use super::collections::Catalogue;
use super::error::{FieldError, StoreError};
use super::fields::{Field, FieldKind};
use super::reader::Reader;
use super::records::{self, Secrets, Sender};
use super::request::Written;
use super::writer::Writer;

/// The object on one line of NDJSON.
pub fn parse_line(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("is not a JSON object".to_owned()),
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}

/// What is wrong with a record, in one sentence.
pub fn describe(error: &StoreError) -> String {
    match error {
        StoreError::Fields(fields) => fields
            .iter()
            .map(|FieldError { field, message, .. }| format!("field {field} {message}"))
            .collect::<Vec<_>>()
            .join("; "),
        other => other.describe(),
    }
}

/// Stores a chunk, with the hashes of its passwords. The error names the first line that was refused, counted from 1 within
/// the chunk.
pub fn insert(
    conn: &Connection,
    collection: &str,
    chunk: &[Map<String, Value>],
    secrets: &[Secrets],
) -> Result<usize, StoreError> {
    let catalogue = Catalogue::load(conn)?;
    let collection = catalogue.get(collection)?;
    for (at, (body, secrets)) in chunk.iter().zip(secrets).enumerate() {
        let stored = records::check(collection, Sender::Admin, body, false, secrets)
            .and_then(|record| records::insert(conn, &catalogue, collection, &record));
        stored.map_err(|error| match error {
            refused @ (StoreError::Fields(_) | StoreError::Invalid(_)) => on_line(at, refused),
            broken => broken,
        })?;
    }
    Ok(chunk.len())
}

/// Hashes the passwords of a chunk and stores it.
pub async fn store(
    reader: &Reader,
    writer: &Writer,
    collection: String,
    chunk: Vec<Map<String, Value>>,
    bytes: usize,
) -> Result<Written<usize>, StoreError> {
    let bodies: Vec<_> = chunk.iter().collect();
    let secrets = records::hash_passwords(reader, &collection, &bodies).await?;
    writer.rows(bytes, move |conn| insert(conn, &collection, &chunk, &secrets)).await
}

/// The fields that all records of a file would fit into.
pub fn infer_fields<'a>(records: impl Iterator<Item = &'a Map<String, Value>>) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for (name, value) in records.flatten().filter(|(name, _)| *name != "id") {
        let kind = match value {
            Value::Null => continue,
            Value::Bool(_) => FieldKind::Bool {},
            Value::Number(_) => FieldKind::number(),
            Value::String(_) => FieldKind::text(),
            Value::Array(_) | Value::Object(_) => FieldKind::json(),
        };
        match fields.iter_mut().find(|field| field.name == *name) {
            Some(field) if field.kind != kind => *field = Field::new(name, FieldKind::json()),
            Some(_) => {}
            None => fields.push(Field::new(name, kind)),
        }
    }
    fields
}

fn on_line(at: usize, error: StoreError) -> StoreError {
    let message = describe(&error);
    let fields = if let StoreError::Fields(fields) = error { fields } else { Vec::new() };
    StoreError::Line { line: at + 1, message, fields }
}
