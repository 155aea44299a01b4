//! `field+`, `+field` and `field-`: a number goes up or down by the value, a list gets values at its end or front, or loses
//! them.

use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::Sender;
use crate::store::collections::Collection;
use crate::store::error::FieldError;
use crate::store::fields::{Field, FieldKind, lists};

/// What a modifier does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Append,
    Prepend,
    Remove,
}

/// The body with values in place of modifiers, and what is wrong with those that make none. `old` is the record as it is.
pub fn resolve(
    collection: &Collection,
    sender: Sender,
    old: Option<&Value>,
    body: Arc<Map<String, Value>>,
) -> (Arc<Map<String, Value>>, Vec<FieldError>) {
    if body.keys().all(|key| find(collection, sender, key).is_none()) {
        return (body, Vec::new());
    }
    let (mut resolved, mut modifiers, mut errors) = (Map::new(), Vec::new(), Vec::new());
    for (key, value) in Arc::unwrap_or_clone(body) {
        match find(collection, sender, &key) {
            Some((field, change)) => modifiers.push((key, field, change, value)),
            None => _ = resolved.insert(key, value),
        }
    }
    for (key, field, change, value) in modifiers {
        let current = resolved.get(&field.name).or_else(|| old?.get(&field.name)).unwrap_or(&Value::Null);
        let value = changed(field, current, change, &value).unwrap_or_else(|error| {
            errors.push(FieldError { field: key, ..error });
            // Sent all the same, for whoever asks.
            current.clone()
        });
        resolved.insert(field.name.clone(), value);
    }
    (Arc::new(resolved), errors)
}

fn find<'a>(collection: &'a Collection, sender: Sender, key: &str) -> Option<(&'a Field, Change)> {
    let (name, change) = if let Some(name) = key.strip_suffix('+') {
        (name, Change::Append)
    } else if let Some(name) = key.strip_prefix('+') {
        (name, Change::Prepend)
    } else {
        (key.strip_suffix('-')?, Change::Remove)
    };
    let takes = |field: &&Field| match field.kind {
        FieldKind::Number { .. } => change != Change::Prepend,
        FieldKind::Select { .. } | FieldKind::Relation { .. } | FieldKind::File { .. } => true,
        _ => false,
    };
    sender.fields(collection).find(|field| field.name == name).filter(takes).map(|field| (field, change))
}

fn changed(field: &Field, current: &Value, change: Change, value: &Value) -> Result<Value, FieldError> {
    if matches!(field.kind, FieldKind::Number { .. }) {
        return add(field, current, change, value);
    }
    let mut values = lists::strings(field, current)?;
    let given = lists::strings(field, value)?;
    if change == Change::Remove {
        values.retain(|value| !given.contains(value));
    } else if !field.kind.is_multiple() {
        // The one value is replaced.
        values = if given.is_empty() { values } else { given };
    } else {
        values.retain(|value| !given.contains(value));
        let at = if change == Change::Prepend { 0 } else { values.len() };
        values.splice(at..at, given);
    }
    Ok(values.into())
}

/// Integers stay integers for as long as they fit.
fn add(field: &Field, current: &Value, change: Change, value: &Value) -> Result<Value, FieldError> {
    // The value is checked as any of this type, without the field's bounds: those are for the sum.
    let plain = Field { kind: FieldKind::number(), required: false, ..field.clone() };
    let number = |value: &Value| Ok(plain.to_json((&plain.to_sql(value)?).into()));
    let (current, value) = (number(current)?, number(value)?);
    let sum = match (current.as_i64(), value.as_i64(), change) {
        (Some(a), Some(b), Change::Remove) => a.checked_sub(b),
        (Some(a), Some(b), _) => a.checked_add(b),
        _ => None,
    };
    if let Some(sum) = sum {
        return Ok(sum.into());
    }
    let (a, b) = (current.as_f64().unwrap_or(0.0), value.as_f64().unwrap_or(0.0));
    let sum = if change == Change::Remove { a - b } else { a + b };
    Number::from_f64(sum).map(Value::Number).ok_or_else(|| {
        let message = "would be larger than a number can be".to_owned();
        FieldError { field: field.name.clone(), code: "validation_invalid_value", message }
    })
}
