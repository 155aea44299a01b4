//! Who may log in, and by what they are known afterwards: admins, records of auth collections, and API keys.
//!
//! A login writes nothing, so it works on every node. A token carries a digest of its bearer's token key; a new password or
//! another address makes a new key, which ends all older tokens (on a replica once it has caught up).

/// Admins, in the default database.
pub mod admins;

/// API keys for machines, in the default database.
pub mod keys;

/// Records of auth collections.
pub mod records;

use subtle::ConstantTimeEq;
use vski_replication::position::hex;

use super::error::StoreError;

/// A new token key: what tokens are tied to.
pub fn new_token_key() -> String {
    hex(&rand::random::<[u8; 24]>())
}

/// The digest of a token key that tokens carry.
pub fn token_digest(token_key: &str) -> String {
    use sha2::{Digest, Sha256};
    hex(&Sha256::digest(token_key)[..8])
}

/// Whether two texts are equal. How long it takes tells only their lengths.
pub fn equal(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// Whether an address looks like one. Who sends mail finds out whether it is.
pub fn check_email(email: &str) -> Result<(), StoreError> {
    let plausible = email.len() <= 254
        && email
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
        && !email.chars().any(|c| c.is_whitespace() || c.is_control());
    if plausible {
        return Ok(());
    }
    Err(StoreError::field("email", "validation_is_email", "must be an email address"))
}
