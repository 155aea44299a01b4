//! JSON values become SQL values, checked, and SQL values JSON.

use rusqlite::types::{Value as Sql, ValueRef};
use serde_json::Value;

use super::{Field, FieldKind, MAX_VALUE_BYTES, dates, lists, numbers, texts};
use crate::store::error::FieldError;

/// Longest value of an editor field without a bound of its own (PocketBase's), bytes.
const EDITOR_BYTES: u64 = 5 << 20;

impl Field {
    /// The SQL value of a JSON value, or what is wrong with it. A password's is checked here and hashed elsewhere.
    pub fn to_sql(&self, value: &Value) -> Result<Sql, FieldError> {
        if value.is_null() {
            return if self.required { Err(self.missing()) } else { Ok(self.zero()) };
        }
        let sql = match &self.kind {
            FieldKind::Text { .. }
            | FieldKind::Editor { .. }
            | FieldKind::Email { .. }
            | FieldKind::Url { .. }
            | FieldKind::Password { .. } => {
                let text = self.text(value)?;
                texts::check(self, &text)?;
                Sql::Text(text)
            }
            FieldKind::Number { min, max, only_int } => numbers::number(self, value, (min, max), *only_int)?,
            FieldKind::Bool {} => numbers::boolean(value).ok_or_else(|| self.mistyped(value))?,
            FieldKind::Date { min, max } => dates::date(self, value, (min, max))?,
            // Set by the server, whatever is sent.
            FieldKind::Autodate { .. } => self.zero(),
            FieldKind::Select { .. } | FieldKind::Relation { .. } | FieldKind::File { .. } => lists::list(self, value)?,
            FieldKind::Json { .. } => Sql::Text(value.to_string()),
        };
        if let Sql::Text(text) = &sql
            && text.len() as u64 > self.limit_bytes()
        {
            return Err(self.too_long());
        }
        // For bool as for number: required means not zero, as in PocketBase.
        if self.required && self.is_zero(&sql) { Err(self.missing()) } else { Ok(sql) }
    }

    /// A text, or what a number or a boolean reads as: PocketBase's JavaScript client makes numbers of a form's texts in a
    /// batch. Never a password, which is hashed as it came.
    fn text(&self, value: &Value) -> Result<String, FieldError> {
        match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(_) | Value::Bool(_) if !matches!(self.kind, FieldKind::Password { .. }) => {
                Ok(value.to_string())
            }
            _ => Err(self.mistyped(value)),
        }
    }

    /// What a text in a JSON field stands for, if it is JSON, as in PocketBase: forms and clients that write JSON twice store
    /// the same. To be asked once for a value: what it gives may be such a text again.
    #[must_use]
    pub fn said(&self, value: &Value) -> Option<Value> {
        let FieldKind::Json { .. } = self.kind else { return None };
        let text = value.as_str()?.as_bytes();
        let may_be_json = |first: &u8| first.is_ascii_digit() || b"-\"[{tfn".contains(first);
        text.first().filter(|first| may_be_json(first)).and_then(|_| serde_json::from_slice(text).ok())
    }

    /// The JSON value of a stored one.
    pub fn to_json(&self, value: ValueRef<'_>) -> Value {
        match (&self.kind, value) {
            (kind, value) if kind.is_multiple() => lists::to_json(value),
            (FieldKind::Number { .. }, ValueRef::Null) => 0.into(),
            (FieldKind::Bool {}, ValueRef::Null) => false.into(),
            (FieldKind::Bool {}, ValueRef::Integer(flag)) => (flag != 0).into(),
            (FieldKind::Json { .. }, ValueRef::Null) => Value::Null,
            (FieldKind::Json { .. }, ValueRef::Text(text)) => {
                serde_json::from_slice(text).unwrap_or_else(|_| String::from_utf8_lossy(text).into())
            }
            (_, ValueRef::Null) => Value::String(String::new()),
            (_, ValueRef::Integer(number)) => number.into(),
            (_, ValueRef::Real(number)) => number.into(),
            (_, ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => String::from_utf8_lossy(bytes).into(),
        }
    }

    /// What a record has where nothing was given.
    #[must_use]
    pub fn zero(&self) -> Sql {
        match &self.kind {
            FieldKind::Number { .. } | FieldKind::Bool {} => Sql::Integer(0),
            FieldKind::Json { .. } => Sql::Null,
            kind if kind.is_multiple() => Sql::Text("[]".to_owned()),
            _ => Sql::Text(String::new()),
        }
    }

    /// Whether this is no value at all: for JSON also the empty string, list and object, as in PocketBase.
    fn is_zero(&self, sql: &Sql) -> bool {
        let blank_json = matches!(sql, Sql::Text(text) if ["\"\"", "[]", "{}", "null"].contains(&text.as_str()));
        match (&self.kind, sql) {
            (FieldKind::Json { .. }, _) => blank_json || *sql == Sql::Null,
            (_, Sql::Real(number)) => *number == 0.0,
            _ => *sql == self.zero(),
        }
    }

    /// The longest value, bytes of its stored form.
    fn limit_bytes(&self) -> u64 {
        match self.kind {
            FieldKind::Editor { max_size: 0 } => EDITOR_BYTES,
            FieldKind::Editor { max_size } | FieldKind::Json { max_size } if max_size > 0 => max_size,
            _ => MAX_VALUE_BYTES as u64,
        }
    }

    fn too_long(&self) -> FieldError {
        let code = match self.kind {
            FieldKind::Json { .. } => "validation_json_size_limit",
            FieldKind::Editor { .. } => "validation_content_size_limit",
            _ => "validation_max_text_constraint",
        };
        self.error(code, format!("must be at most {} bytes", self.limit_bytes()))
    }

    pub(super) fn mistyped(&self, value: &Value) -> FieldError {
        let wanted = match &self.kind {
            FieldKind::Number { .. } => "a number",
            FieldKind::Bool {} => "true or false",
            FieldKind::Json { .. } => "JSON",
            kind if kind.is_multiple() => "an array of strings",
            _ => "a string",
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
}
