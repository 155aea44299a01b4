use rusqlite::types::{Value as Sql, ValueRef};
use serde_json::Value;

use super::{Field, FieldKind};
use crate::store::error::FieldError;

/// Most values of a list, whatever its field says.
const MAX_VALUES: usize = 10_000;

/// The value of a select, relation or file field: one string, or an array. Repeated and blank ones are dropped.
pub fn list(field: &Field, value: &Value) -> Result<Sql, FieldError> {
    let values = strings(field, value)?;
    let most = most(&field.kind);
    if values.len() > most {
        return Err(field.error("validation_too_many_values", format!("must be at most {most}")));
    }
    match &field.kind {
        FieldKind::Select { values: allowed, .. } => {
            if let Some(wrong) = values.iter().find(|value| !allowed.contains(value)) {
                let shown: String = wrong.chars().take(40).collect();
                let message = format!("must be of {}, and {shown:?} is not", allowed.join(", "));
                return Err(field.error("validation_invalid_value", message));
            }
        }
        FieldKind::Relation { min_select, .. } if !values.is_empty() && (values.len() as u64) < *min_select => {
            return Err(field.error("validation_not_enough_values", format!("must be {min_select} or more")));
        }
        _ => {}
    }
    Ok(to_sql(&field.kind, values))
}

/// The stored form of values of this kind.
#[must_use]
pub fn to_sql(kind: &FieldKind, values: Vec<String>) -> Sql {
    if kind.is_multiple() {
        return Sql::Text(Value::from(values).to_string());
    }
    Sql::Text(values.into_iter().next().unwrap_or_default())
}

/// The values that a stored list or a single value holds.
#[must_use]
pub fn from_sql(kind: &FieldKind, value: &Sql) -> Vec<String> {
    let Sql::Text(text) = value else { return Vec::new() };
    if text.is_empty() {
        Vec::new()
    } else if kind.is_multiple() {
        serde_json::from_str(text).unwrap_or_else(|_| vec![text.clone()])
    } else {
        vec![text.clone()]
    }
}

/// The array of a stored list.
pub fn to_json(value: ValueRef<'_>) -> Value {
    let ValueRef::Text(text) = value else { return Value::Array(Vec::new()) };
    if text.is_empty() {
        return Value::Array(Vec::new());
    }
    match serde_json::from_slice(text) {
        Ok(Value::Array(list)) => Value::Array(list),
        _ => Value::Array(vec![String::from_utf8_lossy(text).into()]),
    }
}

/// The strings of a value as callers send it: also an array in a text, as forms do.
pub fn strings(field: &Field, value: &Value) -> Result<Vec<String>, FieldError> {
    let parsed;
    let given: &[Value] = match value {
        Value::String(text) if text.trim_start().starts_with('[') => match serde_json::from_str(text) {
            Ok(Value::Array(list)) => {
                parsed = list;
                &parsed
            }
            _ => std::slice::from_ref(value),
        },
        Value::Array(list) => list,
        Value::Null => &[],
        one => std::slice::from_ref(one),
    };
    let mut seen = std::collections::HashSet::new();
    let mut values = Vec::with_capacity(given.len());
    for value in given {
        let Value::String(text) = value else { return Err(field.mistyped(value)) };
        if !text.is_empty() && seen.insert(text) {
            values.push(text.clone());
        }
    }
    Ok(values)
}

fn most(kind: &FieldKind) -> usize {
    match kind {
        FieldKind::Select { max_select, .. }
        | FieldKind::Relation { max_select, .. }
        | FieldKind::File { max_select, .. } => usize::try_from(*max_select).unwrap_or(MAX_VALUES).clamp(1, MAX_VALUES),
        _ => MAX_VALUES,
    }
}
