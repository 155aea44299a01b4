//! A **position** is (epoch, version, chain): which history, how many entries, and a digest of all of them.
//!
//! Two nodes with equal positions hold the same entries in the same order. Text form, used in headers, query
//! strings and logs: `<generation>-<epoch id>:<version>:<chain>`, ids and chain in lower-case hex.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Text that is not what its type promises.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{found:?} is not {expected}")]
pub struct ParseError {
    /// What the text should have been, with its shape.
    pub expected: &'static str,
    /// The text as it came, cut to 100 characters.
    pub found: String,
}

impl ParseError {
    fn new(expected: &'static str, found: &str) -> Self {
        Self { expected, found: found.chars().take(100).collect() }
    }
}

macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The value whose bytes these are; an error for another length.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseError> {
                bytes.try_into().map(Self).map_err(|_| ParseError::new($expected, &format!("{} bytes", bytes.len())))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                let bad = || ParseError::new($expected, text);
                if text.len() != $len * 2 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(bad());
                }
                let mut bytes = [0; $len];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
                }
                Ok(Self(bytes))
            }
        }

        serde_as_text!($name);
    };
}

hex_bytes!(
    /// Names one database for life: made once, kept by restore and promote. Another id is never merged.
    DatabaseId, 16, "a database id (32 hex digits)"
);
hex_bytes!(
    /// Tells two epochs with the same generation number apart.
    EpochId, 8, "an epoch id (16 hex digits)"
);
hex_bytes!(
    /// SHA-256 over all entries up to one: equal chains mean equal history.
    Chain, 32, "a chain digest (64 hex digits)"
);
hex_bytes!(
    /// SHA-256 over the schema's objects (see [`crate::schema`]).
    SchemaHash, 32, "a schema hash (64 hex digits)"
);

/// Digits of [`hex`].
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes as lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    text
}

impl DatabaseId {
    /// A new database's id.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl EpochId {
    /// A new epoch's id.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

/// A stretch of history with one author, like PostgreSQL's timelines: a higher generation supersedes a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// 1 for a created database, one more for each promotion or uncaptured change.
    pub generation: u64,
    /// Random: two nodes that open the same generation by themselves are told apart by it.
    pub id: EpochId,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.generation, self.id)
    }
}

impl FromStr for Epoch {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::new("an epoch (<generation>-<16 hex digits>)", text);
        let (generation, id) = text.split_once('-').ok_or_else(bad)?;
        Ok(Self { generation: generation.parse().map_err(|_| bad())?, id: id.parse()? })
    }
}

serde_as_text!(Epoch);

/// A point of a database's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The epoch of the entry at `version`.
    pub epoch: Epoch,
    /// How many entries there are up to here; versions never restart.
    pub version: u64,
    /// Digest of those entries.
    pub chain: Chain,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.epoch, self.version, self.chain)
    }
}

impl FromStr for Position {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::new("a position (<generation>-<epoch id>:<version>:<chain>)", text);
        let mut parts = text.splitn(3, ':');
        let (Some(epoch), Some(version), Some(chain)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad());
        };
        Ok(Self { epoch: epoch.parse()?, version: version.parse().map_err(|_| bad())?, chain: chain.parse()? })
    }
}

serde_as_text!(Position);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_text_form() {
        let position = Position {
            epoch: Epoch { generation: 7, id: EpochId::random() },
            version: u64::MAX,
            chain: Chain(rand::random()),
        };
        assert_eq!(position.to_string().parse(), Ok(position));
        let json = serde_json::to_string(&position).unwrap();
        assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position);
    }

    #[test]
    fn text_that_is_no_position_names_the_shape_it_should_have() {
        for text in
            ["", "1", "1-00:1:00", "1-0011223344556677:x:00", "é-0011223344556677:1:00", "1-+011223344556677:1:"]
        {
            let error = text.parse::<Position>().expect_err(text);
            assert!(error.to_string().contains("is not a"), "{error}");
        }
    }
}
