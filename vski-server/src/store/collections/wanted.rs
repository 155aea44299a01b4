//! What a caller asks for in JSON, in PocketBase's keys.

use serde_json::{Map, Value};

use super::auth::{AuthToken, PasswordAuth};
use super::check::is_system_column;
use super::rules::{self, RuleChanges};
use super::{CollectionKind, check};
use crate::store::error::StoreError;
use crate::store::fields::Field;

/// Keys that the server sets, or of PocketBase's that mean nothing here: ignored, so that a client may send back what it
/// got, or what another server gave it.
const IGNORED: [&str; 15] = [
    "created",
    "updated",
    "system",
    "oauth2",
    "mfa",
    "otp",
    "authAlert",
    "passwordResetToken",
    "emailChangeToken",
    "verificationToken",
    "fileToken",
    "verificationTemplate",
    "resetPasswordTemplate",
    "confirmEmailChangeTemplate",
    "options",
];

/// What a caller wants of a collection. Absent parts stay as they are, or take their default.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Its id: a new one's may be chosen, a known one's cannot change.
    pub id: Option<String>,
    /// A name: only at creation.
    pub name: Option<String>,
    /// A kind: only at creation.
    pub kind: Option<CollectionKind>,
    /// Its fields.
    pub fields: Option<Vec<Field>>,
    /// Rules that are to change.
    pub rules: RuleChanges,
    /// All its indexes, as `CREATE INDEX` statements.
    pub indexes: Option<Vec<String>>,
    /// A view's SELECT.
    pub view_query: Option<String>,
    /// How an auth collection's records log in.
    pub password_auth: Option<PasswordAuth>,
    /// An auth collection's tokens.
    pub auth_token: Option<AuthToken>,
}

impl Wanted {
    /// What a body asks for.
    pub fn from_json(body: &Map<String, Value>) -> Result<Self, StoreError> {
        let mut wanted = Self::default();
        for (key, value) in body {
            wanted.take(key, value)?;
        }
        Ok(wanted)
    }

    /// Rules from the front of [`rules::NAMES`].
    #[must_use]
    pub fn with_rules<const N: usize>(mut self, rules: [Option<&str>; N]) -> Self {
        for (mine, rule) in self.rules.iter_mut().zip(rules) {
            *mine = Some(rule.map(str::to_owned));
        }
        self
    }

    fn take(&mut self, key: &str, value: &Value) -> Result<(), StoreError> {
        let mistyped =
            |expected: &str| StoreError::field(key, "validation_invalid_type", format!("must be {expected}"));
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| mistyped("a string"));
        match key {
            "id" => self.id = Some(text()?).filter(|id| !id.is_empty()),
            "name" => self.name = Some(text()?),
            "type" => self.kind = Some(kind(value)?),
            "fields" => self.fields = Some(fields(value)?),
            "indexes" => self.indexes = Some(indexes(value).ok_or_else(|| mistyped("an array of strings"))?),
            "viewQuery" => self.view_query = Some(text()?),
            "passwordAuth" => self.password_auth = Some(options(key, value)?),
            "authToken" => self.auth_token = Some(options(key, value)?),
            ignored if IGNORED.contains(&ignored) => {}
            rule => {
                let Some(at) = rules::NAMES.iter().position(|name| *name == rule) else {
                    return Err(StoreError::field(key, "validation_unknown_field", "is nothing that a collection has"));
                };
                self.rules[at] = Some(match value {
                    Value::Null => None,
                    Value::String(text) => Some(text.trim().to_owned()),
                    _ => return Err(mistyped("null (admins only), \"\" (everyone) or a filter")),
                });
            }
        }
        Ok(())
    }
}

fn kind(value: &Value) -> Result<CollectionKind, StoreError> {
    serde_json::from_value(value.clone())
        .map_err(|_| StoreError::field("type", "validation_in_invalid", "must be base, auth or view"))
}

fn indexes(value: &Value) -> Option<Vec<String>> {
    let list = value.as_array().map(Vec::as_slice).or_else(|| value.is_null().then_some(&[]))?;
    list.iter().map(|index| index.as_str().map(str::to_owned)).collect()
}

fn options<T: serde::de::DeserializeOwned>(key: &str, value: &Value) -> Result<T, StoreError> {
    serde_json::from_value(value.clone())
        .map_err(|error| StoreError::field(key, "validation_invalid_value", format!("cannot be read: {error}")))
}

/// Those that every record has may be among them, as in the server's own answers.
fn fields(value: &Value) -> Result<Vec<Field>, StoreError> {
    let list =
        value.as_array().ok_or_else(|| StoreError::field("fields", "validation_invalid_type", "must be an array"))?;
    let mut fields = Vec::with_capacity(list.len());
    for (at, json) in list.iter().enumerate() {
        let mut field: Field = serde_json::from_value(json.clone()).map_err(|error| {
            StoreError::field(&format!("fields[{at}]"), "validation_invalid_field", error.to_string())
        })?;
        field.deleted = false;
        if !is_system_column(&field) {
            field.complete();
            fields.push(field);
        }
    }
    check::fields(&fields)?;
    Ok(fields)
}
