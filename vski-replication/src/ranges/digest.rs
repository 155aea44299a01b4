//! What a snapshot says of its content before any range is asked for: an [`Overview`] with a [`TableDigest`] for each
//! table. Equal digests mean equal rows; where they differ, the table's ranges are compared.

use serde::{Deserialize, Serialize};

use super::{Hex, Range, RowError};
use crate::position::{DatabaseId, Position, SchemaHash};
use crate::schema::Object;

/// What a snapshot holds: enough to see which tables differ, and to stand where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// The database's identity.
    pub database_id: DatabaseId,
    /// Where the snapshot stands.
    pub position: Position,
    /// Schema entries up to there.
    pub schema_version: u64,
    /// The schema there.
    pub schema_hash: SchemaHash,
    /// When the entry there was committed, ms since 1970.
    pub committed_ms: i64,
    /// The schema's objects.
    pub objects: Vec<Object>,
    /// Each table's content.
    pub tables: Vec<TableDigest>,
    /// BLAKE3 over everything above: see [`Overview::sealed`].
    pub digest: Hex,
}

impl Overview {
    /// Fills in the digest, once the rest is complete.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.digest = self.computed();
        self
    }

    /// Whether these are the values that were sealed.
    pub fn verify(&self) -> Result<(), RowError> {
        if self.digest == self.computed() { Ok(()) } else { Err(RowError) }
    }

    fn computed(&self) -> Hex {
        let mut rest = self.clone();
        rest.digest = Hex(Vec::new());
        let json = serde_json::to_vec(&rest).expect("plain fields always serialise");
        Hex(blake3::hash(&json).as_bytes().to_vec())
    }
}

/// The content of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDigest {
    /// Its name.
    pub name: String,
    /// How many rows it has.
    pub rows: u64,
    /// BLAKE3 over its ranges: see [`RangesHasher`].
    pub hash: Hex,
}

/// Puts a table's hash together from its ranges, in their order.
#[derive(Default)]
pub struct RangesHasher {
    hasher: blake3::Hasher,
    rows: u64,
}

impl RangesHasher {
    /// Adds the next range.
    pub fn add(&mut self, range: &Range) {
        let end = range.end.as_ref().map_or(&[][..], |end| &end.0);
        self.hasher
            .update(&(end.len() as u64).to_be_bytes())
            .update(end)
            .update(&range.rows.to_be_bytes())
            .update(&range.hash.0);
        // The hash tells, whatever rows a wrong answer claims.
        self.rows = self.rows.saturating_add(range.rows);
    }

    /// The digest of the table, once all ranges were added.
    #[must_use]
    pub fn finish(&self, table: &str) -> TableDigest {
        let hash = Hex(self.hasher.finalize().as_bytes().to_vec());
        TableDigest { name: table.to_owned(), rows: self.rows, hash }
    }
}
