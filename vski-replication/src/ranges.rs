//! Row ranges: a table's rows in key order, cut into pieces that two nodes cut alike, each with a hash.
//!
//! A range ends after a row whose key hashes to ten zero bits (one row in about 1,000), or when it has grown to
//! `MAX_RANGE_BYTES`. So the cuts depend on content alone: an insert or delete moves at most the cuts around it. Rows are
//! hashed as typed, binary values: 'A' and 'a', 1 and 1.0, NULL and '' differ. Ranges tile the whole key space: the
//! first begins below every key, the last has no end.
//!
//! Comparing two tables takes three steps of growing detail: the table's hash, its ranges' hashes, and within ranges
//! that differ the rows' hashes. What remains are the rows that one side has and the other has not.
//!
//! No step holds more in memory than one range and one row: ranges are handed out one by one, and whoever needs all of
//! them keeps them on the disk (`RangeList`).

use serde::{Deserialize, Serialize};

/// A table's rows, read and written.
mod shape;

/// Rows as bytes.
mod value;

/// Digests of tables.
mod digest;

/// Ranges on the disk.
mod list;

/// Many byte strings in one.
mod frame;

/// Byte strings in JSON.
mod hex;

pub use digest::{Overview, RangesHasher, TableDigest};
pub use frame::{frame, frame_with, frames};
pub use hex::Hex;
pub use list::{Listed, RangeList};
pub use shape::Shape;

/// Zero bits that a key's hash begins with where a range ends.
const CUT_BITS: u32 = 10;

/// Encoded rows after which a range ends whatever its keys: bounds what one range can hold in memory.
pub const MAX_RANGE_BYTES: usize = 1 << 20;

/// Bytes of a row's hash: enough that two rows of one range never share one.
pub const ROW_HASH_BYTES: usize = 12;

/// The hash of one row.
pub type RowHash = [u8; ROW_HASH_BYTES];

/// One range of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The key of its last row, encoded; `None` for the table's last range.
    pub end: Option<Hex>,
    /// How many rows it has.
    pub rows: u64,
    /// BLAKE3 over its rows' hashes.
    pub hash: Hex,
}

impl Range {
    /// The hashes of its rows, if `bytes` are those that its own hash promised.
    pub fn row_hashes(&self, bytes: &[u8]) -> Result<Vec<RowHash>, RowError> {
        let (hashes, rest) = bytes.as_chunks::<ROW_HASH_BYTES>();
        let right =
            rest.is_empty() && hashes.len() as u64 == self.rows && *blake3::hash(bytes).as_bytes() == self.hash.0[..];
        if right { Ok(hashes.to_vec()) } else { Err(RowError) }
    }
}

/// Some of a table's ranges, as a master tells them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangesPage {
    /// Neighbouring ranges in key order, at least one; the table's last one has no end.
    pub ranges: Vec<Range>,
}

/// Bytes that are no row of a table, or not those that a hash promised.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the bytes are not the rows, hashes or ranges that they should be")]
pub struct RowError;

/// The hash by which one row is told from another.
#[must_use]
pub fn row_hash(row: &[u8]) -> RowHash {
    let hash = blake3::hash(row);
    *hash.as_bytes().first_chunk().expect("a BLAKE3 hash has 32 bytes")
}

/// Whether a range ends after the row with this key.
fn is_cut(key: &[u8]) -> bool {
    let hash = blake3::hash(key);
    let first = hash.as_bytes().first_chunk().expect("a BLAKE3 hash has 32 bytes");
    u32::from_be_bytes(*first).leading_zeros() >= CUT_BITS
}

#[cfg(test)]
mod tests;
