//! Fields: their types and options, their columns, and how JSON becomes SQL values and back. A missing or null value reads
//! as the type's zero value (PocketBase's).

/// Types and their options.
mod kind;

/// Options of a field, checked when its collection is stored.
mod options;

/// Regular expressions of text fields.
pub mod pattern;

/// Values of fields.
mod values;

/// Texts, addresses and passwords.
mod texts;

/// Numbers and booleans.
mod numbers;

/// Times.
pub mod dates;

/// One or several of something: select, relation, file.
pub mod lists;

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use vski_replication::schema::sql::quote_name;

pub use self::kind::FieldKind;
use super::error::FieldError;

/// Longest value of a text, and of an editor or JSON field without a bound of its own; bytes of its stored form. A bound on
/// memory, not a rule.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// One field of a collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Stays the same for as long as the field does; made of its type and name unless the caller gives one.
    #[serde(default)]
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it holds, with its options.
    #[serde(flatten)]
    pub kind: FieldKind,
    /// Whether the zero value is refused.
    #[serde(default)]
    pub required: bool,
    /// Whether only admins see it.
    #[serde(default)]
    pub hidden: bool,
    /// A hint for user interfaces.
    #[serde(default)]
    pub presentable: bool,
    /// Made by the server, and cannot be left out.
    #[serde(default)]
    pub system: bool,
    /// Left out by a later update of the collection: the column stays, and nobody sees it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// The field `id` of every record.
pub static ID: LazyLock<Field> = LazyLock::new(|| Field { required: true, ..Field::system("id", FieldKind::text()) });

/// The field `created` of every record that is not a view's.
pub static CREATED: LazyLock<Field> =
    LazyLock::new(|| Field::system("created", FieldKind::Autodate { on_create: true, on_update: false }));

/// The field `updated` of every record that is not a view's.
pub static UPDATED: LazyLock<Field> =
    LazyLock::new(|| Field::system("updated", FieldKind::Autodate { on_create: true, on_update: true }));

/// The key that an auth record's tokens are tied to.
pub const TOKEN_KEY: &str = "tokenKey";

impl Field {
    /// A field with defaults.
    #[must_use]
    pub fn new(name: &str, kind: FieldKind) -> Self {
        let mut field = Self {
            id: String::new(),
            name: name.to_owned(),
            kind,
            required: false,
            hidden: false,
            presentable: false,
            system: false,
            deleted: false,
        };
        field.complete();
        field
    }

    /// A field that the server makes.
    #[must_use]
    pub fn system(name: &str, kind: FieldKind) -> Self {
        Self { system: true, ..Self::new(name, kind) }
    }

    /// Gives it an id, if it has none.
    pub fn complete(&mut self) {
        if self.id.is_empty() {
            self.id = self.default_id();
        }
    }

    /// The id of a field for which nobody gave one.
    #[must_use]
    pub fn default_id(&self) -> String {
        let digest = blake3::hash(self.name.to_ascii_lowercase().as_bytes());
        let [a, b, c, d, ..] = digest.as_bytes();
        format!("{}{}", self.kind.name(), u32::from_le_bytes([*a, *b, *c, *d]))
    }

    /// The name of its column: its own, but for an auth record's password, whose hash is another thing than it.
    #[must_use]
    pub fn column_name(&self) -> &str {
        if self.system && matches!(self.kind, FieldKind::Password { .. }) { "passwordHash" } else { &self.name }
    }

    /// The column's definition. Nullable and without a default, so that it can be added to a full table.
    #[must_use]
    pub fn column(&self) -> String {
        format!("{} {}", quote_name(self.column_name()), self.kind.affinity())
    }

    /// Whether nobody at all sees its value, admins neither.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, FieldKind::Password { .. }) || (self.system && self.name == TOKEN_KEY)
    }

    /// The error for a required field without a value.
    #[must_use]
    pub fn missing(&self) -> FieldError {
        self.error("validation_required", "must not be blank".to_owned())
    }

    /// An error about this field's value.
    pub(super) fn error(&self, code: &'static str, message: String) -> FieldError {
        FieldError { field: self.name.clone(), code, message }
    }
}

#[cfg(test)]
mod tests;
