//! The types of fields with their options, in PocketBase's names (its collections as of 0.23).

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Number;

/// What a field holds. A bound of 0, an empty list and an empty text mean that there is no bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum FieldKind {
    /// A string.
    Text {
        /// Fewest characters.
        #[serde(default, deserialize_with = "or_default")]
        min: u64,
        /// Most characters.
        #[serde(default, deserialize_with = "or_default")]
        max: u64,
        /// A regular expression that must match.
        #[serde(default, deserialize_with = "or_default")]
        pattern: String,
    },
    /// HTML.
    Editor {
        /// Most bytes.
        #[serde(default, deserialize_with = "or_default")]
        max_size: u64,
    },
    /// An integer of 64 bits, or a double.
    Number {
        /// Least value.
        #[serde(default)]
        min: Option<Number>,
        /// Greatest value.
        #[serde(default)]
        max: Option<Number>,
        /// No fractions.
        #[serde(default, deserialize_with = "or_default")]
        only_int: bool,
    },
    /// True or false.
    Bool {},
    /// An email address.
    Email {
        /// Domains that are refused.
        #[serde(default, deserialize_with = "or_default")]
        except_domains: Vec<String>,
        /// The only domains that are taken.
        #[serde(default, deserialize_with = "or_default")]
        only_domains: Vec<String>,
    },
    /// A web address.
    Url {
        /// Hosts that are refused.
        #[serde(default, deserialize_with = "or_default")]
        except_domains: Vec<String>,
        /// The only hosts that are taken.
        #[serde(default, deserialize_with = "or_default")]
        only_domains: Vec<String>,
    },
    /// A time in ms, UTC.
    Date {
        /// Earliest.
        #[serde(default, deserialize_with = "or_default")]
        min: String,
        /// Latest.
        #[serde(default, deserialize_with = "or_default")]
        max: String,
    },
    /// A time that the server sets.
    Autodate {
        /// When the record is made.
        #[serde(default, deserialize_with = "or_default")]
        on_create: bool,
        /// Whenever it is changed.
        #[serde(default, deserialize_with = "or_default")]
        on_update: bool,
    },
    /// One or several of a set of strings.
    Select {
        /// The set.
        #[serde(default, deserialize_with = "or_default")]
        values: Vec<String>,
        /// Most values; 0 and 1 hold one, as a string.
        #[serde(default, deserialize_with = "or_default")]
        max_select: u64,
    },
    /// Any JSON value.
    Json {
        /// Most bytes.
        #[serde(default, deserialize_with = "or_default")]
        max_size: u64,
    },
    /// Ids of records of a collection.
    Relation {
        /// The id of that collection.
        #[serde(default, deserialize_with = "or_default")]
        collection_id: String,
        /// Fewest ids, where there are any.
        #[serde(default, deserialize_with = "or_default")]
        min_select: u64,
        /// Most ids; 0 and 1 hold one, as a string.
        #[serde(default, deserialize_with = "or_default")]
        max_select: u64,
        /// Whether a record goes when the last one that it names goes.
        #[serde(default, deserialize_with = "or_default")]
        cascade_delete: bool,
    },
    /// A secret, kept as its argon2id hash and never shown.
    Password {
        /// Fewest characters.
        #[serde(default, deserialize_with = "or_default")]
        min: u64,
        /// Most characters.
        #[serde(default, deserialize_with = "or_default")]
        max: u64,
    },
    /// Names of uploaded files.
    File {
        /// Most files; 0 and 1 hold one, as a string.
        #[serde(default, deserialize_with = "or_default")]
        max_select: u64,
        /// Most bytes of one file.
        #[serde(default, deserialize_with = "or_default")]
        max_size: u64,
        /// The only content types that are taken.
        #[serde(default, deserialize_with = "or_default")]
        mime_types: Vec<String>,
        /// Whether reading a file takes a token.
        #[serde(default, deserialize_with = "or_default")]
        protected: bool,
    },
}

impl FieldKind {
    /// A text without bounds.
    #[must_use]
    pub const fn text() -> Self {
        Self::Text { min: 0, max: 0, pattern: String::new() }
    }

    /// A number without bounds.
    #[must_use]
    pub const fn number() -> Self {
        Self::Number { min: None, max: None, only_int: false }
    }

    /// JSON without a bound of its own.
    #[must_use]
    pub const fn json() -> Self {
        Self::Json { max_size: 0 }
    }

    /// Its name on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::Editor { .. } => "editor",
            Self::Number { .. } => "number",
            Self::Bool {} => "bool",
            Self::Email { .. } => "email",
            Self::Url { .. } => "url",
            Self::Date { .. } => "date",
            Self::Autodate { .. } => "autodate",
            Self::Select { .. } => "select",
            Self::Json { .. } => "json",
            Self::Relation { .. } => "relation",
            Self::Password { .. } => "password",
            Self::File { .. } => "file",
        }
    }

    /// Whether the value is a list: stored as a JSON array, and an array on the wire.
    #[must_use]
    pub const fn is_multiple(&self) -> bool {
        match self {
            Self::Select { max_select, .. } | Self::Relation { max_select, .. } | Self::File { max_select, .. } => {
                *max_select > 1
            }
            _ => false,
        }
    }

    /// The affinity of the column.
    #[must_use]
    pub const fn affinity(&self) -> &'static str {
        match self {
            Self::Number { .. } | Self::Bool {} => "NUMERIC",
            _ => "TEXT",
        }
    }

    /// Whether a column of `self` can be read as one of `other`: the same type, and one value or many in both.
    #[must_use]
    pub fn stores_like(&self, other: &Self) -> bool {
        self.name() == other.name() && self.is_multiple() == other.is_multiple()
    }
}

/// PocketBase's clients send null for an option that is not set.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
