//! Bytes in JSON: keys and hashes travel as hex digits.

use serde::{Deserialize, Serialize};

use crate::position::hex;

/// Bytes that are hex digits in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hex(pub Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.as_bytes();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
        match bytes {
            Some(bytes) if digits.len() % 2 == 0 && digits.iter().all(u8::is_ascii_hexdigit) => Ok(Self(bytes)),
            _ => Err(serde::de::Error::custom("not an even number of hex digits")),
        }
    }
}
