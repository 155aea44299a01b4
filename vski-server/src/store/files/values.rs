//! File fields: what a request makes of a record's files, checked against the field.
//!
//! `field` with names and uploads says what the record has afterwards: names of its own that stay, and new files. `field+`
//! and `+field` add to what it has, `field-` takes away by name. A field that holds one file takes a new one in the place
//! of the old one. Absent: nothing changes; null, "" and [] take all away.

use std::sync::Arc;

use rusqlite::Connection;
use serde_json::{Map, Value};
use vski_replication::files;

use super::Upload;
use crate::store::collections::Collection;
use crate::store::error::{FieldError, StoreError};
use crate::store::fields::{Field, FieldKind};
use crate::store::ids;
use crate::store::records::{Deleted, Sender};

/// Largest file of a field without a bound of its own (PocketBase's), bytes.
pub const DEFAULT_FILE_BYTES: u64 = 5 << 20;

/// A request's body with its files resolved, and what is to become of their rows.
#[derive(Debug, Default)]
pub struct Resolved {
    /// The body, with a list of names for each file field that changes.
    pub body: Arc<Map<String, Value>>,
    /// Names of uploads that the record has from now on.
    added: Vec<String>,
    /// Names that it has no longer.
    removed: Vec<String>,
    /// What is wrong with it: then nothing may be stored.
    pub errors: Vec<FieldError>,
}

/// What `body` and `uploads` make of the record `old`; `None` for a new one.
#[must_use]
pub fn resolve(
    collection: &Collection,
    sender: Sender,
    old: Option<&Value>,
    body: &Arc<Map<String, Value>>,
    uploads: &[Upload],
) -> Resolved {
    let mut resolved = Resolved { body: Arc::clone(body), ..Resolved::default() };
    let file_fields: Vec<&Field> =
        sender.fields(collection).filter(|field| matches!(field.kind, FieldKind::File { .. })).collect();
    for upload in uploads {
        let name = upload.field.trim_matches(['+', '-']);
        // Any other key would be taken for a file that nobody asks to store.
        let adds = [name.to_owned(), format!("{name}+"), format!("+{name}")].contains(&upload.field);
        if !adds || !file_fields.iter().any(|field| field.name == name) {
            let name = if adds { name } else { upload.field.as_str() };
            let message = format!("collection {} has no field of that name that takes files", collection.name);
            resolved.errors.push(FieldError { field: name.to_owned(), code: "validation_unknown_field", message });
        }
    }
    for field in file_fields {
        let body = Arc::make_mut(&mut resolved.body);
        match change(field, old.map(|old| &old[&field.name]), body, uploads) {
            Ok(None) => {}
            Ok(Some(Change { before, after })) => {
                let added = after.iter().filter(|name| !before.contains(name)).cloned();
                resolved.added.extend(added);
                resolved.removed.extend(before.into_iter().filter(|name| !after.contains(name)));
                body.insert(field.name.clone(), Value::from(after));
            }
            Err(error) => {
                resolved.errors.push(error);
                // Sent all the same, for whoever asks.
                body.insert(field.name.clone(), Value::Null);
            }
        }
    }
    resolved
}

impl Resolved {
    /// Writes the rows of the record's new files, and takes those away that it has no longer.
    pub fn store(
        &self,
        conn: &Connection,
        collection: &Collection,
        record: &str,
        uploads: &[Upload],
    ) -> Result<(), StoreError> {
        for upload in uploads.iter().filter(|upload| self.added.contains(&upload.name)) {
            files::insert(conn, &upload.row(&collection.id, record), &ids::now())?;
        }
        for name in &self.removed {
            files::remove(conn, &collection.id, record, name)?;
        }
        Ok(())
    }
}

/// Takes away the rows of the files that deleted records had.
pub fn forget(conn: &Connection, deleted: &[Deleted]) -> Result<(), StoreError> {
    for record in deleted.iter().filter(|record| !record.files.is_empty()) {
        files::remove_all(conn, &record.collection_id, &record.id)?;
    }
    Ok(())
}

/// The names that a field of a record has, and is to have.
struct Change {
    before: Vec<String>,
    after: Vec<String>,
}

/// What becomes of a field, if the request says anything of it. Its keys are taken out of the body.
fn change(
    field: &Field,
    old: Option<&Value>,
    body: &mut Map<String, Value>,
    uploads: &[Upload],
) -> Result<Option<Change>, FieldError> {
    let before = names(field, old.unwrap_or(&Value::Null))?;
    let keys = [field.name.clone(), format!("{}+", field.name), format!("+{}", field.name), format!("{}-", field.name)];
    let mut given = Vec::new();
    for key in &keys {
        let value = body.shift_remove(key).map(|value| names(field, &value)).transpose()?;
        let new: Vec<&Upload> = uploads.iter().filter(|upload| upload.field == *key).collect();
        new.iter().try_for_each(|upload| check(field, upload))?;
        let new: Vec<String> = new.into_iter().map(|upload| upload.name.clone()).collect();
        given.push(if value.is_none() && new.is_empty() { None } else { Some((value.unwrap_or_default(), new)) });
    }
    let [set, append, prepend, take] = given.try_into().unwrap_or_default();
    if set.is_none() && append.is_none() && prepend.is_none() && take.is_none() {
        return Ok(None);
    }
    let mut after = before.clone();
    if let Some((kept, new)) = set {
        own(field, &before, &kept)?;
        after = kept.into_iter().chain(new).collect();
    }
    if let Some((gone, _)) = take {
        after.retain(|name| !gone.contains(name));
    }
    for (added, first) in [(append, false), (prepend, true)] {
        let Some((kept, mut new)) = added else { continue };
        own(field, &before, &kept)?;
        if !field.kind.is_multiple() && !new.is_empty() {
            after.clear();
        }
        if first {
            new.append(&mut after);
            after = new;
        } else {
            after.append(&mut new);
        }
    }
    Ok(Some(Change { before, after }))
}

/// Only files that the record has can be named: others belong to other records, or to none.
fn own(field: &Field, before: &[String], named: &[String]) -> Result<(), FieldError> {
    match named.iter().find(|name| !before.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let shown: String = name.chars().take(100).collect();
            let message =
                format!("must be files that are uploaded with the request, or that the record has: {shown:?} is not");
            Err(error(field, "validation_invalid_file", message))
        }
    }
}

/// The names in a value: one or a list, also a list in a text, as forms send it.
fn names(field: &Field, value: &Value) -> Result<Vec<String>, FieldError> {
    crate::store::fields::lists::strings(field, value)
}

fn check(field: &Field, upload: &Upload) -> Result<(), FieldError> {
    let FieldKind::File { max_size, mime_types, .. } = &field.kind else { return Ok(()) };
    let most = if *max_size == 0 { DEFAULT_FILE_BYTES } else { *max_size };
    if upload.size > most {
        let message = format!("{} has {} bytes, and at most {most} are allowed", upload.original, upload.size);
        return Err(error(field, "validation_file_size_limit", message));
    }
    let plain = |mime: &str| mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !mime_types.is_empty() && !mime_types.iter().any(|allowed| plain(allowed) == plain(&upload.mime)) {
        let message = format!("{} is {}, and must be of {}", upload.original, upload.mime, mime_types.join(", "));
        return Err(error(field, "validation_invalid_mime_type", message));
    }
    Ok(())
}

fn error(field: &Field, code: &'static str, message: String) -> FieldError {
    FieldError { field: field.name.clone(), code, message }
}

#[cfg(test)]
mod tests;
