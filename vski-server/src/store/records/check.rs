use rusqlite::types::Value as Sql;
use serde_json::{Map, Value};

use super::{Secrets, Sender};
use crate::store::auth;
use crate::store::collections::Collection;
use crate::store::error::{FieldError, StoreError};
use crate::store::fields::{Field, FieldKind, TOKEN_KEY};
use crate::store::{ids, passwords};

/// Keys of a record's JSON that the server sets: a client may send back what it got.
const READ_ONLY_KEYS: [&str; 5] = ["created", "updated", "collectionId", "collectionName", "expand"];

/// A record to be stored: checked, and in SQL's values.
#[derive(Clone, Debug)]
pub struct NewRecord {
    pub(super) id: Option<String>,
    /// Columns and their values.
    pub(super) values: Vec<(String, Sql)>,
    /// Whether a password in it was not hashed: it cannot be stored then.
    pub(super) unhashed: bool,
}

/// Checks a body against the collection's fields; all that is wrong is reported at once.
/// `partial` is an update: what is absent stays as it is.
pub fn check(
    collection: &Collection,
    sender: Sender,
    body: &Map<String, Value>,
    partial: bool,
    secrets: &Secrets,
) -> Result<NewRecord, StoreError> {
    let mut errors: Vec<FieldError> = Vec::new();
    let mut record = NewRecord { id: None, values: Vec::new(), unhashed: false };
    for field in collection.visible() {
        if let FieldKind::Autodate { on_create, on_update } = field.kind {
            let set = if partial { on_update } else { on_create };
            match (set, partial) {
                (true, _) => record.put(field, Sql::Text(ids::now())),
                (false, true) => {}
                (false, false) => record.put(field, field.zero()),
            }
            continue;
        }
        if field.system && field.name == TOKEN_KEY {
            continue;
        }
        match body.get(&field.name).filter(|_| sender.knows(field)) {
            None if partial => {}
            // Of a field that the sender cannot know nothing can be required.
            None if field.required && sender.knows(field) => errors.push(field.missing()),
            None => record.put(field, field.zero()),
            Some(value) => match field.to_sql(value) {
                Ok(value) => record.put_checked(field, value, secrets),
                Err(error) => errors.push(error),
            },
        }
    }
    // A new password, also the first, ends all tokens.
    if collection.is_auth() && record.values.iter().any(|(column, _)| column == "passwordHash") {
        record.values.push((TOKEN_KEY.to_owned(), Sql::Text(auth::new_token_key())));
    }
    errors.extend(unknown_keys(collection, sender, body));
    errors.extend(mismatch(collection, body));
    match id(body) {
        Ok(id) => record.id = id,
        Err(error) => errors.push(error),
    }
    if errors.is_empty() { Ok(record) } else { Err(StoreError::Fields(errors)) }
}

impl NewRecord {
    fn put(&mut self, field: &Field, value: Sql) {
        self.values.push((field.column_name().to_owned(), value));
    }

    fn put_checked(&mut self, field: &Field, value: Sql, secrets: &Secrets) {
        if !matches!(field.kind, FieldKind::Password { .. }) || value == field.zero() {
            return self.put(field, value);
        }
        match secrets.get(&field.name) {
            Some(hash) => self.put(field, Sql::Text(hash.to_owned())),
            None => self.unhashed = true,
        }
    }

    /// The value of a column, if it is to be stored.
    pub(super) fn value(&self, column: &str) -> Option<&Sql> {
        self.values.iter().find(|(name, _)| name == column).map(|(_, value)| value)
    }

    /// Nothing is stored in clear.
    pub(super) fn check_hashed(&self) -> Result<(), StoreError> {
        // Only where the field became a password while the request was on its way.
        if self.unhashed { Err(StoreError::Changed) } else { Ok(()) }
    }
}

/// Keys that are no field's, or none that the sender may know of.
fn unknown_keys(collection: &Collection, sender: Sender, body: &Map<String, Value>) -> Vec<FieldError> {
    let known = |key: &str| {
        key == "id"
            || READ_ONLY_KEYS.contains(&key)
            || collection.is_password_key(key)
            || sender.fields(collection).any(|field| field.name == key)
    };
    let unknown = body.keys().filter(|key| !known(key));
    unknown
        .map(|key| FieldError {
            field: key.clone(),
            code: "validation_unknown_field",
            message: format!("collection {} has no such field", collection.name),
        })
        .collect()
}

fn mismatch(collection: &Collection, body: &Map<String, Value>) -> Option<FieldError> {
    let confirmation = body.get("passwordConfirm").filter(|_| collection.is_auth())?;
    (body.get("password") != Some(confirmation)).then(passwords::mismatch)
}

fn id(body: &Map<String, Value>) -> Result<Option<String>, FieldError> {
    match body.get("id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if id.is_empty() => Ok(None),
        Some(Value::String(id)) if ids::is_record_id(id) => Ok(Some(id.clone())),
        Some(wrong) => {
            let code = match wrong.as_str().map_or(ids::ID_LENGTH, |id| id.chars().count()) {
                length if length < ids::ID_LENGTH => "validation_min_text_constraint",
                length if length > ids::ID_LENGTH => "validation_max_text_constraint",
                _ => "validation_invalid_format",
            };
            let message = format!("must be {} characters of a-z and 0-9", ids::ID_LENGTH);
            Err(FieldError { field: "id".into(), code, message })
        }
    }
}
