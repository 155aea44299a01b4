//! A **snapshot** is a finished copy of a database file; its **manifest** says what every part of it must hash to.
//!
//! Chunks are checked one by one as they arrive, the whole file before it is used, and the manifest by its own digest:
//! SQLite never opens a byte that was not verified.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::position::{DatabaseId, Position, hex};

/// Bytes per chunk; the last one may be shorter.
pub const CHUNK_BYTES: u64 = 1 << 20;

/// What a master promises about a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Names the snapshot, and its lease, on the master.
    pub id: String,
    /// The database's name.
    pub db: String,
    /// The database's identity.
    pub database_id: DatabaseId,
    /// Where the copy stands, read from the finished copy.
    pub position: Position,
    /// Bytes of the file.
    pub size: u64,
    /// BLAKE3 of each [`CHUNK_BYTES`], hex.
    pub chunks: Vec<String>,
    /// BLAKE3 of the whole file, hex.
    pub blake3: String,
    /// SHA-256 over everything above, hex.
    pub sha256: String,
}

/// A manifest or a file that is not what it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// The manifest's own digest does not match.
    #[error("the snapshot manifest is damaged: its digest does not match")]
    Digest,
    /// Size and number of chunks contradict each other.
    #[error("the snapshot manifest lists {found} chunks for {size} bytes")]
    Chunks {
        /// Chunks listed.
        found: usize,
        /// Bytes of the file.
        size: u64,
    },
}

impl Manifest {
    /// Fills in the digest, once the rest is complete.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.sha256 = self.digest();
        self
    }

    /// Checks the manifest against itself. What it says of the file is checked by whoever has the file.
    pub fn verify(&self) -> Result<(), ManifestError> {
        if self.sha256 != self.digest() {
            return Err(ManifestError::Digest);
        }
        if self.size.div_ceil(CHUNK_BYTES) != self.chunks.len() as u64 {
            return Err(ManifestError::Chunks { found: self.chunks.len(), size: self.size });
        }
        Ok(())
    }

    /// Whether these are the bytes of chunk `index`.
    #[must_use]
    pub fn is_chunk(&self, index: usize, bytes: &[u8]) -> bool {
        self.chunks.get(index).is_some_and(|hash| blake3::hash(bytes).to_hex().as_str() == hash)
    }

    /// The byte range of chunk `index`: first byte and length.
    #[must_use]
    pub fn range(&self, index: usize) -> (u64, u64) {
        let start = index as u64 * CHUNK_BYTES;
        (start, CHUNK_BYTES.min(self.size.saturating_sub(start)))
    }

    fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        let head = format!(
            "{}\n{}\n{}\n{}\n{}\n{}\n",
            self.id, self.db, self.database_id, self.position, self.size, self.blake3
        );
        hasher.update(head);
        self.chunks.iter().for_each(|chunk| hasher.update(format!("{chunk}\n")));
        hex(&hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::damage::damaged;
    use crate::position::{Chain, Epoch, EpochId};

    fn manifest() -> Manifest {
        Manifest {
            id: "s1".into(),
            db: "default".into(),
            database_id: DatabaseId([1; 16]),
            position: Position {
                epoch: Epoch { generation: 1, id: EpochId([2; 8]) },
                version: 3,
                chain: Chain([4; 32]),
            },
            size: CHUNK_BYTES + 10,
            chunks: vec!["aa".into(), "bb".into()],
            blake3: "cc".into(),
            sha256: String::new(),
        }
        .sealed()
    }

    #[test]
    fn a_changed_manifest_is_noticed() {
        manifest().verify().unwrap();
        let mut changed = manifest();
        changed.chunks[1] = "bc".into();
        assert_eq!(changed.verify(), Err(ManifestError::Digest));
        let mut short = manifest();
        short.chunks.pop();
        assert_eq!(short.sealed().verify(), Err(ManifestError::Chunks { found: 1, size: CHUNK_BYTES + 10 }));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_a_manifest_is_detected_or_means_the_same() {
        let json = serde_json::to_vec(&manifest()).unwrap();
        for (what, json) in damaged(&json) {
            // A flip may make a hex digit a capital one.
            let found = serde_json::from_slice::<Manifest>(&json).ok().filter(|found| found.verify().is_ok());
            assert!(found.is_none_or(|found| found == manifest()), "{what}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_a_chunk_is_detected() {
        let chunk: Vec<u8> = (0..300_u16).map(|n| n.to_be_bytes()[1]).collect();
        let hash = blake3::hash(&chunk).to_hex().to_string();
        let manifest = Manifest { size: 300, chunks: vec![hash], ..manifest() };
        assert!(manifest.is_chunk(0, &chunk) && !manifest.is_chunk(1, &chunk));
        for (what, chunk) in damaged(&chunk) {
            assert!(!manifest.is_chunk(0, &chunk), "{what}");
        }
    }

    #[test]
    fn the_last_chunk_ends_with_the_file() {
        assert_eq!(manifest().range(0), (0, CHUNK_BYTES));
        assert_eq!(manifest().range(1), (CHUNK_BYTES, 10));
    }
}
