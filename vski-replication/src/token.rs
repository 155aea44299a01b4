//! Tokens: HS256 with the shared `JWT_SECRET`, made by any node and valid on all of them.
//!
//! No registration: a node that holds the secret mints its own short-lived tokens. During a rotation a
//! node also accepts the previous secret; it always signs with the current one.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use self::wire::Wire;
use crate::clock;

/// Claims as they stand in a token.
mod wire;

/// How far two nodes' clocks may differ, seconds.
pub const CLOCK_SKEW_SECONDS: u64 = 60;

/// Life of a token that a node mints for one call to another, seconds.
pub const REPLICA_TOKEN_SECONDS: u64 = 60;

/// Secrets shorter than this earn a warning (the specification's "at least 32 characters").
pub const MIN_SECRET_CHARS: usize = 32;

/// Whom a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// The replication protocol.
    Replica,
    /// A person or program that logged in.
    User,
    /// Protected files, asked for with the token in the address: it can do nothing else.
    File,
    /// A command run beside a node by somebody who knows the secret.
    Operator,
}

/// What the bearer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// An admin: `sub` is the admin's id.
    Admin,
    /// A record of an auth collection.
    Record,
    /// A replica: `sub` is its id.
    Replica,
}

/// The claims of every token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct Claims {
    /// Who.
    pub sub: String,
    /// What they are.
    pub bearer: Bearer,
    /// For what.
    pub aud: Audience,
    /// Until when, seconds since 1970.
    pub exp: u64,
    /// Digest of the bearer's token key, so that a changed password revokes.
    pub tk: Option<String>,
    /// A record's database.
    pub db: Option<String>,
    /// The id of a record's collection.
    pub collection: Option<String>,
    /// Whether it cannot be exchanged for one that lives longer: it was made by an admin in the bearer's name.
    pub fixed: bool,
}

impl Claims {
    /// Claims that end `ttl_seconds` from now.
    #[must_use]
    pub fn new(sub: &str, bearer: Bearer, aud: Audience, ttl_seconds: u64) -> Self {
        let sub = sub.to_owned();
        let mut claims = Self { sub, bearer, aud, exp: 0, tk: None, db: None, collection: None, fixed: false };
        claims.lasts(ttl_seconds);
        claims
    }

    /// Makes them end `ttl_seconds` from now.
    pub fn lasts(&mut self, ttl_seconds: u64) {
        let now = u64::try_from(clock::now_ms() / 1000).unwrap_or(0);
        self.exp = now.saturating_add(ttl_seconds);
    }

    /// What a record of an auth collection shows, as long as the digest of its token key is `tk`.
    #[must_use]
    pub fn record(id: &str, db: &str, collection: &str, tk: &str, ttl_seconds: u64) -> Self {
        let text = |value: &str| Some(value.to_owned());
        Self {
            db: text(db),
            collection: text(collection),
            tk: text(tk),
            ..Self::new(id, Bearer::Record, Audience::User, ttl_seconds)
        }
    }

    /// What a replica shows to its master.
    #[must_use]
    pub fn replica(id: &str, ttl_seconds: u64) -> Self {
        Self::new(id, Bearer::Replica, Audience::Replica, ttl_seconds)
    }

    /// What a command shows to the node that holds the directory.
    #[must_use]
    pub fn operator() -> Self {
        Self::new("operator", Bearer::Admin, Audience::Operator, REPLICA_TOKEN_SECONDS)
    }
}

/// Why a token is not accepted. The text is sent to the caller and logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No Authorization header.
    #[error("no token: send Authorization: Bearer <token>")]
    Missing,
    /// Older than its life and the tolerated clock skew.
    #[error("the token has expired")]
    Expired,
    /// Signed with another secret.
    #[error("the token's signature is wrong: JWT_SECRET must be the same on both nodes")]
    Signature,
    /// No token at all, or one without the claims it needs.
    #[error("the token is malformed")]
    Malformed,
}

/// The keys made of `JWT_SECRET` and, during a rotation, `JWT_SECRET_PREVIOUS`.
#[derive(Clone)]
pub struct Secrets {
    encoding: EncodingKey,
    /// The current key first.
    decoding: Vec<DecodingKey>,
}

impl Secrets {
    /// Keys that sign with `current` and accept both.
    #[must_use]
    pub fn new(current: &str, previous: Option<&str>) -> Self {
        let decoding =
            std::iter::once(current).chain(previous).map(|secret| DecodingKey::from_secret(secret.as_bytes()));
        Self { encoding: EncodingKey::from_secret(current.as_bytes()), decoding: decoding.collect() }
    }

    /// A signed token.
    #[must_use]
    pub fn mint(&self, claims: &Claims) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encoding)
            .expect("strings and numbers always serialise, and HMAC takes any key")
    }

    /// The claims of a token that was signed with one of the secrets and has not expired.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = CLOCK_SKEW_SECONDS;
        validation.validate_aud = false; // the caller compares the typed audience
        let mut worst = TokenError::Malformed;
        for key in &self.decoding {
            match jsonwebtoken::decode::<Claims>(token, key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => match error.kind() {
                    ErrorKind::ExpiredSignature => return Err(TokenError::Expired),
                    ErrorKind::InvalidSignature => worst = TokenError::Signature,
                    _ => {}
                },
            }
        }
        Err(worst)
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({} keys)", self.decoding.len())
    }
}

/// The token of an Authorization header, with or without the word `Bearer`.
#[must_use]
pub fn from_authorization(value: &str) -> &str {
    let value = value.trim();
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_wherever_the_secret_is_known() {
        let claims = Claims::replica("r001", 60);
        let token = Secrets::new("shared", None).mint(&claims);
        assert_eq!(Secrets::new("shared", None).verify(&token), Ok(claims));
        assert_eq!(Secrets::new("other", None).verify(&token), Err(TokenError::Signature));
    }

    #[test]
    fn the_previous_secret_is_accepted_but_no_longer_signs() {
        let (old, both, new) = (Secrets::new("old", None), Secrets::new("new", Some("old")), Secrets::new("new", None));
        let claims = Claims::replica("r001", 60);
        assert!(both.verify(&old.mint(&claims)).is_ok());
        assert!(new.verify(&both.mint(&claims)).is_ok());
        assert!(old.verify(&both.mint(&claims)).is_err());
    }

    #[test]
    fn an_expired_or_garbled_token_says_which() {
        let secrets = Secrets::new("shared", None);
        let expired = Claims { exp: 1000, ..Claims::replica("r001", 0) };
        assert_eq!(secrets.verify(&secrets.mint(&expired)), Err(TokenError::Expired));
        for garbage in ["", "a.b.c", "%%%", "eyJhbGciOiJub25lIn0.e30."] {
            assert_eq!(secrets.verify(garbage), Err(TokenError::Malformed), "{garbage}");
        }
    }

    #[test]
    fn a_records_claims_come_back_and_other_tokens_carry_none_of_them() {
        let secrets = Secrets::new("shared", None);
        let claims = Claims { fixed: true, ..Claims::record("r1", "shop", "c1", "digest", 60) };
        assert_eq!(secrets.verify(&secrets.mint(&claims)), Ok(claims));
        let json = serde_json::to_string(&Claims::replica("r001", 60)).unwrap();
        assert!(["db", "collection", "fixed", "tk"].iter().all(|key| !json.contains(&format!("\"{key}\""))), "{json}");
    }

    #[test]
    fn clocks_may_differ_by_a_minute() {
        let secrets = Secrets::new("shared", None);
        let mut claims = Claims::replica("r001", 0);
        claims.exp -= CLOCK_SKEW_SECONDS - 10;
        assert!(secrets.verify(&secrets.mint(&claims)).is_ok());
        claims.exp -= 20;
        assert_eq!(secrets.verify(&secrets.mint(&claims)), Err(TokenError::Expired));
    }

    #[test]
    fn an_authorization_header_works_with_and_without_bearer() {
        for value in ["abc", "Bearer abc", "bearer  abc ", " abc "] {
            assert_eq!(from_authorization(value), "abc");
        }
    }
}
