//! What a request wants a record to be, worked out once: modifiers are applied, and each value is as its field would give it
//! back. Rules and the row are made of the same, so that nothing is stored that no rule saw.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use serde_json::{Map, Value};

use super::modifiers;
use crate::store::collections::Collection;
use crate::store::error::{FieldError, StoreError};
use crate::store::fields::{Field, FieldKind, TOKEN_KEY};

/// Who sent a body, which decides on the fields that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// An admin, a command on the node's machine, or an API key: all fields.
    Admin,
    /// Anybody else: no hidden ones.
    Other,
}

impl Sender {
    /// Whether a field is there for the sender. An auth record's password is, though nobody sees it.
    #[must_use]
    pub fn knows(self, field: &Field) -> bool {
        self == Self::Admin || !field.hidden || (field.system && field.name != TOKEN_KEY)
    }

    /// The fields that the sender may name.
    pub fn fields(self, collection: &Collection) -> impl Iterator<Item = &Field> {
        collection.visible().filter(move |field| self.knows(field))
    }
}

/// A body for a record.
#[derive(Clone, Debug)]
pub struct Body {
    /// Values by field, and keys that are no field's as they were sent. A field is here if any of its keys was sent.
    pub values: Arc<Map<String, Value>>,
    /// Who sent it.
    pub sender: Sender,
    /// What could not be worked out; the field has another value in [`Self::values`] then, and nothing may be stored.
    pub errors: Vec<FieldError>,
}

impl Body {
    /// Works out what `sent` makes of the record `old`, or of zero values.
    #[must_use]
    pub fn resolve(
        collection: &Collection,
        sender: Sender,
        old: Option<&Value>,
        sent: Arc<Map<String, Value>>,
    ) -> Self {
        let (mut values, errors) = modifiers::resolve(collection, sender, old, sent);
        for field in sender.fields(collection) {
            if let Some(value) = values.get(&field.name).and_then(|value| normalised(field, value)) {
                Arc::make_mut(&mut values).insert(field.name.clone(), value);
            }
        }
        Self { values, sender, errors }
    }

    /// Nothing is stored of what could not be worked out.
    pub fn check_resolved(&self) -> Result<(), StoreError> {
        if self.errors.is_empty() { Ok(()) } else { Err(StoreError::Fields(self.errors.clone())) }
    }
}

/// A value as it will be read, if that is another. One that the field does not take stays: the check says why.
fn normalised(field: &Field, value: &Value) -> Option<Value> {
    // A password is compared with its confirmation, and the server sets times.
    if matches!(field.kind, FieldKind::Password { .. } | FieldKind::Autodate { .. }) {
        return None;
    }
    let said = field.said(value);
    let stored = field.to_sql(said.as_ref().unwrap_or(value)).ok();
    let read = stored.map(|sql| field.to_json(ValueRef::from(&sql))).or(said);
    read.filter(|read| read != value)
}

#[cfg(test)]
mod tests;
