//! The catalogue of one database: which collections there are, with which fields, rules and indexes.
//!
//! A collection is a row of `_collections` and a table; both are made in one transaction and travel in one log entry.
//! Schemas are append-only (the specification): a field left out of an update is hidden, its column stays, and it comes back
//! with its values when it is added again with the same type. A deleted collection's row is marked and its table stays; its
//! name may be used again, by a new table.

/// Rules.
pub mod rules;

/// What auth collections have beside.
pub mod auth;

/// Indexes: taken apart, checked, written.
pub mod indexes;

/// The tables of the catalogue itself.
pub mod tables;

/// Rows of the catalogue.
pub mod rows;

/// All collections of a database, cached.
pub mod catalogue;

/// What a connection knows of them.
pub mod seen;

/// What a caller asks for.
pub mod wanted;

/// A catalogue in the making.
mod draft;

/// Changes of collections: planned, checked, stored.
pub mod change;

/// The list of collections, filtered and sorted.
pub mod listing;

/// Names and fields, checked.
mod check;

/// Collections that are a SELECT over others.
pub mod views;

use std::borrow::Cow;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vski_replication::schema::sql::quote_name;

pub use self::auth::AuthOptions;
pub use self::catalogue::Catalogue;
pub use self::indexes::Index;
pub use self::rows::{problems, unreadable};
pub use self::rules::Rules;
pub use self::seen::Seen;
pub use self::wanted::Wanted;
use super::error::StoreError;
use super::fields::{self, Field};

/// Fields a collection may have, hidden ones included (SQLite's default limit is 2000 columns).
pub const MAX_FIELDS: usize = 500;

/// What kind of collection it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CollectionKind {
    /// Records.
    #[default]
    Base,
    /// Records that can log in.
    Auth,
    /// A SELECT over other collections: read only, without a table.
    View,
}

impl CollectionKind {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Auth => "auth",
            Self::View => "view",
        }
    }
}

/// A collection as its catalogue row says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Collection {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Base, auth or view.
    #[serde(rename = "type")]
    pub kind: CollectionKind,
    /// All fields but `id`, `created` and `updated`, hidden ones too: see [`Collection::visible`]. Those of an auth
    /// collection begin with its system fields; those of a view are what its SELECT gives beside the id.
    pub fields: Vec<Field>,
    /// Who may do what.
    #[serde(flatten)]
    pub rules: Rules,
    /// Its indexes.
    #[serde(default)]
    pub indexes: Vec<Index>,
    /// A view's SELECT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view_query: Option<String>,
    /// What an auth collection has beside.
    #[serde(flatten)]
    pub auth: Option<AuthOptions>,
    /// Its table; of a view a name that no table has. In SQL see [`Collection::source`].
    #[serde(skip)]
    pub table: String,
    /// When it was deleted, if it was.
    #[serde(skip)]
    pub deleted: Option<String>,
    /// When it was made.
    pub created: String,
    /// When it was last changed.
    pub updated: String,
}

impl Collection {
    /// The fields that callers see and set, without `id`, `created` and `updated`.
    pub fn visible(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.deleted)
    }

    /// The field of this name that callers may know of; also `id`, `created` and `updated`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let system = || match name {
            "id" => Some(&*fields::ID),
            "created" if !self.is_view() => Some(&*fields::CREATED),
            "updated" if !self.is_view() => Some(&*fields::UPDATED),
            _ => None,
        };
        self.visible().find(|field| field.name == name).or_else(system)
    }

    /// Whether it is a SELECT, which nobody can write to.
    #[must_use]
    pub fn is_view(&self) -> bool {
        self.kind == CollectionKind::View
    }

    /// Whether its records can log in.
    #[must_use]
    pub fn is_auth(&self) -> bool {
        self.kind == CollectionKind::Auth
    }

    /// Whether a body's key is no field, and only says something about a record's new password.
    #[must_use]
    pub fn is_password_key(&self, key: &str) -> bool {
        self.is_auth() && matches!(key, "passwordConfirm" | "oldPassword")
    }

    /// What a SELECT reads from: the quoted table, or a view's SELECT in parentheses. Give it an alias.
    #[must_use]
    pub fn source(&self) -> Cow<'_, str> {
        match &self.view_query {
            Some(query) if self.is_view() => Cow::Owned(format!("({query})")),
            _ => Cow::Owned(quote_name(&self.table)),
        }
    }

    /// Whether anything may be changed in it; the error says why not.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        if self.is_view() {
            let name = &self.name;
            return Err(StoreError::Invalid(format!(
                "collection {name} is a view: change the collections that it reads"
            )));
        }
        Ok(())
    }

    /// Takes what only admins see out of a record's JSON.
    pub fn hide(&self, record: &mut Map<String, Value>) {
        for field in self.fields.iter().filter(|field| field.hidden) {
            record.shift_remove(&field.name);
        }
    }

    /// As callers see it: hidden fields left out, `id`, `created` and `updated` among the fields.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        let times = [&*fields::CREATED, &*fields::UPDATED].into_iter().filter(|_| !self.is_view());
        let all = std::iter::once(&*fields::ID).chain(self.visible()).chain(times);
        json["fields"] = all.map(|field| serde_json::to_value(field).unwrap_or_default()).collect();
        if self.is_auth() {
            json["authRule"] = self.rules.auth_rule.clone().into();
            json["manageRule"] = self.rules.manage_rule.clone().into();
        }
        json["system"] = false.into();
        json
    }

    /// What [`Self::to_json`] wrote, as a client of the API gets it.
    pub fn from_json(json: Value) -> Result<Self, serde_json::Error> {
        let mut collection: Self = serde_json::from_value(json)?;
        collection.fields.retain(|field| !check::is_system_column(field));
        collection.auth = collection.auth.filter(|_| collection.kind == CollectionKind::Auth);
        collection.table.clone_from(&collection.name);
        Ok(collection)
    }
}

/// All collections that can be used, by name.
pub fn list(conn: &Connection) -> Result<Vec<Collection>, StoreError> {
    Ok(Catalogue::load(conn)?.iter().cloned().collect())
}

/// The collection with this name or id.
pub fn view(conn: &Connection, name: &str) -> Result<Collection, StoreError> {
    Catalogue::load(conn)?.get(name).cloned()
}
