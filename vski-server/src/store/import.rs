//! Many records at once, one JSON object a line. A chunk is stored whole or not at all.

use rusqlite::Connection;
use serde_json::{Map, Value};

use super::collections;
use super::error::{FieldError, StoreError};
use super::fields::{Field, FieldType};
use super::records;

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

/// Stores a chunk. The error names the first line that was refused, counted from 1 within the chunk.
pub fn insert(conn: &Connection, collection: &str, chunk: &[Map<String, Value>]) -> Result<usize, StoreError> {
    let collection = collections::view(conn, collection)?;
    for (at, body) in chunk.iter().enumerate() {
        let stored =
            records::check(&collection, body, false).and_then(|record| records::insert(conn, &collection, &record));
        stored.map_err(|error| match error {
            refused @ (StoreError::Fields(_) | StoreError::Invalid(_)) => on_line(at, &refused),
            broken => broken,
        })?;
    }
    Ok(chunk.len())
}

/// The fields that all records of a file would fit into.
pub fn infer_fields<'a>(records: impl Iterator<Item = &'a Map<String, Value>>) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for (name, value) in records.flatten().filter(|(name, _)| *name != "id") {
        let kind = match value {
            Value::Null => continue,
            Value::Bool(_) => FieldType::Bool,
            Value::Number(_) => FieldType::Number,
            Value::String(_) => FieldType::Text,
            Value::Array(_) | Value::Object(_) => FieldType::Json,
        };
        match fields.iter_mut().find(|field| field.name == *name) {
            Some(field) if field.kind != kind => field.kind = FieldType::Json,
            Some(_) => {}
            None => fields.push(Field { name: name.clone(), kind, required: false, deleted: false }),
        }
    }
    fields
}

fn on_line(at: usize, error: &StoreError) -> StoreError {
    StoreError::Line { line: at + 1, message: describe(error) }
}
