//! `chain(n) = SHA-256(chain(n-1) || header(n) || payload(n))`, and `chain(0) = SHA-256(database id)`.
//!
//! SQLite's changesets carry no checksum: most single-bit flips apply silently as wrong data. An entry is
//! therefore handed to SQLite only after its chain was computed here and found equal to the one it came with.

use sha2::{Digest, Sha256};

use crate::entry::Entry;
use crate::position::{Chain, DatabaseId};

/// The chain of a database without entries.
#[must_use]
pub fn genesis(database: DatabaseId) -> Chain {
    Chain(Sha256::digest(database.0).into())
}

/// The chain of `entry`, given that of the entry before it. Its own `chain` field takes no part.
#[must_use]
pub fn next(previous: Chain, entry: &Entry) -> Chain {
    let mut hasher = Sha256::new();
    hasher.update(previous.0);
    hasher.update(entry.header());
    hasher.update(&entry.payload);
    Chain(hasher.finalize().into())
}
