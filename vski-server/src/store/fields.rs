//! Field types: text, number, bool, json. A missing or null value reads as the type's zero value (PocketBase's).

use rusqlite::types::{Value as Sql, ValueRef};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::FieldError;

/// Longest text or JSON value, characters of its stored form (PocketBase's default is 5000 for text; ours is a bound
/// on memory, not a rule).
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// What values a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// A string.
    Text,
    /// An integer of 64 bits, or a double.
    Number,
    /// True or false.
    Bool,
    /// Any JSON value.
    Json,
}

/// One field of a collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name, also its column's.
    pub name: String,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// Whether the zero value is refused.
    #[serde(default)]
    pub required: bool,
    /// Left out by a later update of the collection: the column stays, and nobody sees it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

impl Field {
    /// The column's definition. Nullable and without a default, so that it can be added to a full table.
    pub fn column(&self) -> String {
        let affinity = match self.kind {
            FieldType::Text | FieldType::Json => "TEXT",
            FieldType::Number | FieldType::Bool => "NUMERIC",
        };
        format!("{} {affinity}", vski_replication::schema::sql::quote_name(&self.name))
    }

    /// The SQL value of a JSON value, or what is wrong with it.
    pub fn to_sql(&self, value: &Value) -> Result<Sql, FieldError> {
        if value.is_null() {
            return if self.required { Err(self.missing()) } else { Ok(self.zero()) };
        }
        let sql = match (self.kind, value) {
            (FieldType::Text, Value::String(text)) => Sql::Text(text.clone()),
            (FieldType::Number, Value::Number(number)) => match number.as_i64() {
                Some(integer) => Sql::Integer(integer),
                // Adding 0 makes -0.0 0.0: SQLite's sessions take both for the same and would not carry the change.
                None => Sql::Real(number.as_f64().ok_or_else(|| self.mistyped(value))? + 0.0),
            },
            (FieldType::Bool, Value::Bool(flag)) => Sql::Integer((*flag).into()),
            (FieldType::Json, any) => Sql::Text(any.to_string()),
            _ => return Err(self.mistyped(value)),
        };
        if let Sql::Text(text) = &sql
            && text.len() > MAX_VALUE_BYTES
        {
            return Err(
                self.error("validation_max_text_constraint", format!("must be at most {MAX_VALUE_BYTES} bytes"))
            );
        }
        // For bool as for number: required means not zero, as in PocketBase.
        if self.required && sql == self.zero() { Err(self.missing()) } else { Ok(sql) }
    }

    /// The JSON value of a stored one.
    pub fn to_json(&self, value: ValueRef<'_>) -> Value {
        match (self.kind, value) {
            (FieldType::Text, ValueRef::Null) => Value::String(String::new()),
            (FieldType::Number, ValueRef::Null) => 0.into(),
            (FieldType::Bool, ValueRef::Null) => false.into(),
            (FieldType::Bool, ValueRef::Integer(flag)) => (flag != 0).into(),
            (FieldType::Json, ValueRef::Text(text)) => {
                serde_json::from_slice(text).unwrap_or_else(|_| String::from_utf8_lossy(text).into())
            }
            (_, ValueRef::Null) => Value::Null,
            (_, ValueRef::Integer(number)) => number.into(),
            (_, ValueRef::Real(number)) => number.into(),
            (_, ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => String::from_utf8_lossy(bytes).into(),
        }
    }

    /// What a record has where nothing was given.
    pub fn zero(&self) -> Sql {
        match self.kind {
            FieldType::Text => Sql::Text(String::new()),
            FieldType::Number | FieldType::Bool => Sql::Integer(0),
            FieldType::Json => Sql::Null,
        }
    }

    /// The error for a required field without a value.
    pub fn missing(&self) -> FieldError {
        self.error("validation_required", "must not be blank".to_owned())
    }

    fn mistyped(&self, value: &Value) -> FieldError {
        let wanted = match self.kind {
            FieldType::Text => "a string",
            FieldType::Number => "a number",
            FieldType::Bool => "true or false",
            FieldType::Json => "JSON",
        };
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        self.error("validation_invalid_type", format!("must be {wanted}, not {found}"))
    }

    fn error(&self, code: &'static str, message: String) -> FieldError {
        FieldError { field: self.name.clone(), code, message }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(kind: FieldType, required: bool) -> Field {
        Field { name: "f".into(), kind, required, deleted: false }
    }

    #[test]
    fn values_survive_the_way_through_sql() {
        for (kind, value) in [
            (FieldType::Text, json!("größe")),
            (FieldType::Number, json!(i64::MAX)),
            (FieldType::Number, json!(-0.5)),
            (FieldType::Bool, json!(true)),
            (FieldType::Json, json!({"a": [1, "2", null]})),
            (FieldType::Json, json!("123")),
            (FieldType::Json, json!(123)),
        ] {
            let field = field(kind, false);
            let sql = field.to_sql(&value).unwrap();
            assert_eq!(field.to_json((&sql).into()), value);
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused_with_both_types() {
        let error = field(FieldType::Number, false).to_sql(&json!("12")).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), ("validation_invalid_type", "must be a number, not a string"));
    }

    #[test]
    fn required_means_not_the_zero_value() {
        for value in [json!(""), json!(null)] {
            assert_eq!(field(FieldType::Text, true).to_sql(&value).unwrap_err().code, "validation_required");
            assert!(field(FieldType::Text, false).to_sql(&value).is_ok());
        }
    }
}
