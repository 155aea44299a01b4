//! What auth collections have beside: how their records log in, and the fields that make that possible.

use serde::{Deserialize, Serialize};

use crate::store::fields::{Field, FieldKind, TOKEN_KEY};

/// How long a token is valid unless the collection says otherwise (PocketBase's: a week).
const TOKEN_SECONDS: u64 = 7 * 24 * 3600;

/// Shortest and longest password unless the collection says otherwise, characters (PocketBase's, with our bound).
const PASSWORD_CHARS: (u64, u64) = (8, 256);

/// How records log in, in PocketBase's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthOptions {
    /// By password.
    pub password_auth: PasswordAuth,
    /// The tokens that a login gives.
    pub auth_token: AuthToken,
}

/// Login by password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PasswordAuth {
    /// Whether it is offered.
    pub enabled: bool,
    /// Fields whose values say who logs in; each has a unique index.
    pub identity_fields: Vec<String>,
}

impl Default for PasswordAuth {
    fn default() -> Self {
        Self { enabled: true, identity_fields: vec!["email".to_owned()] }
    }
}

/// Tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthToken {
    /// How long one is valid, seconds.
    pub duration: u64,
}

impl Default for AuthToken {
    fn default() -> Self {
        Self { duration: TOKEN_SECONDS }
    }
}

/// The system fields of a new auth collection.
#[must_use]
pub fn system_fields() -> Vec<Field> {
    let (min, max) = PASSWORD_CHARS;
    let email = FieldKind::Email { except_domains: Vec::new(), only_domains: Vec::new() };
    let hidden = |field: Field| Field { hidden: true, required: true, ..field };
    vec![
        hidden(Field::system("password", FieldKind::Password { min, max })),
        hidden(Field::system(TOKEN_KEY, FieldKind::text())),
        Field { required: true, ..Field::system("email", email) },
        Field::system("emailVisibility", FieldKind::Bool {}),
        Field::system("verified", FieldKind::Bool {}),
    ]
}
