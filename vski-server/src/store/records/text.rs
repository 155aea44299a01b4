use std::io;

use rusqlite::Row;
use rusqlite::types::ValueRef;
use serde::Serialize;

use super::{shown, system};
use crate::store::collections::Collection;
use crate::store::fields::{Field, FieldKind};

/// What of a record its reader may see beside what everybody may.
#[derive(Clone, Copy, Debug)]
pub struct Shows {
    /// Fields that are hidden from all but admins.
    pub hidden: bool,
    /// The address of an auth record.
    pub email: bool,
}

/// Appends a row of [`columns`](super::columns) as JSON: the text of what [`to_json`](super::to_json) makes, without a tree of
/// values in between.
pub fn write_json(out: &mut Vec<u8>, collection: &Collection, row: &Row<'_>, shows: Shows) -> rusqlite::Result<()> {
    out.extend_from_slice(b"{\"collectionId\":");
    write(out, &collection.id);
    key(out, "collectionName");
    write(out, &collection.name);
    let system = system(collection);
    for (at, name) in system.iter().enumerate() {
        key(out, name);
        match row.get_ref(at)? {
            ValueRef::Null => write(out, ""),
            ValueRef::Integer(number) => write(out, &number.to_string()),
            ValueRef::Real(number) => write(out, &number.to_string()),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => write(out, &*String::from_utf8_lossy(bytes)),
        }
    }
    for (at, field) in shown(collection).enumerate() {
        let is_shown = shows.hidden || !field.hidden;
        if is_shown && (shows.email || !collection.is_auth() || field.name != "email") {
            key(out, &field.name);
            write_value(out, field, row.get_ref(system.len() + at)?);
        }
    }
    out.push(b'}');
    Ok(())
}

/// The common kinds as they are stored; the others as [`Field::to_json`] makes them.
fn write_value(out: &mut Vec<u8>, field: &Field, value: ValueRef<'_>) {
    let is_plain = !field.kind.is_multiple() && !matches!(field.kind, FieldKind::Json { .. } | FieldKind::Bool {});
    match value {
        ValueRef::Text(bytes) if is_plain => write(out, &*String::from_utf8_lossy(bytes)),
        ValueRef::Integer(number) if is_plain => write(out, &number),
        value => write(out, &field.to_json(value)),
    }
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.push(b',');
    write(out, name);
    out.push(b':');
}

fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let written: io::Result<()> = serde_json::to_writer(out, value).map_err(io::Error::from);
    written.expect("text, numbers and JSON values are written to memory");
}
