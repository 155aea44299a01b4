//! A log **entry**: what one committed transaction did, and its frame on the wire.
//!
//! Frame, integers big-endian: `length u32 | header (69 bytes) | chain (32 bytes) | payload`, where length counts
//! everything after itself. Header: `version u64 | kind u8 | generation u64 | epoch id 8 | schema hash 32 |
//! commit time i64 (ms since 1970) | payload length u32`. A batch is frames one after another.
//!
//! Payload by kind: `changes` is a SQLite changeset; `schema` is `length u32 | JSON of `SchemaChange` | changeset`;
//! `epoch` is the JSON of `EpochChange`.

use serde::{Deserialize, Serialize};

use crate::position::{Chain, Epoch, EpochId, Position, SchemaHash};
use crate::schema::Object;

const HEADER: usize = 8 + 1 + 8 + 8 + 32 + 8 + 4;
const CHAIN: usize = 32;

/// The longest payload an entry may have, bytes: the writer's capture cap stays far below it.
pub const MAX_PAYLOAD: usize = 1 << 30;

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rows: a changeset.
    Changes,
    /// DDL, and the catalogue rows that belong to it.
    Schema,
    /// A new epoch begins: a promotion, or a change that could not be captured.
    Epoch,
}

impl Kind {
    /// The name stored in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Schema => "schema",
            Self::Epoch => "epoch",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Changes, Self::Schema, Self::Epoch].into_iter().find(|kind| kind.name() == name)
    }

    fn code(self) -> u8 {
        match self {
            Self::Changes => 1,
            Self::Schema => 2,
            Self::Epoch => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Changes, Self::Schema, Self::Epoch].into_iter().find(|kind| kind.code() == code)
    }
}

/// One step of a database's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number: one more than that of the entry before.
    pub version: u64,
    /// What it does.
    pub kind: Kind,
    /// The epoch it belongs to; an `epoch` entry belongs to the one it begins.
    pub epoch: Epoch,
    /// The schema once it is applied.
    pub schema_hash: SchemaHash,
    /// When it was committed, ms since 1970 by the master's clock.
    pub committed_ms: i64,
    /// What to apply, by `kind`.
    pub payload: Vec<u8>,
    /// Digest of this entry and all before it.
    pub chain: Chain,
}

/// What a `schema` entry carries beside its changeset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaChange {
    /// The schema that the statements expect to find.
    pub before: SchemaHash,
    /// DDL, in order, as it ran on the master.
    pub statements: Vec<String>,
    /// The whole schema afterwards.
    pub objects: Vec<Object>,
}

/// Why an `epoch` entry was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochReason {
    /// A replica became the master. The rows before and after are the same.
    Promoted,
    /// Somebody else's connection changed the file: the log does not say what.
    ForeignEdit,
    /// A manual migration changed more, or otherwise, than an entry can carry.
    Uncaptured,
}

/// The payload of an `epoch` entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochChange {
    /// Why it began.
    pub reason: EpochReason,
}

/// Bytes that are not the entry they claim to be. Nothing of them may reach SQLite.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end in the middle of a frame.
    #[error("an entry is cut short: {needed} bytes needed, {found} there")]
    Truncated {
        /// Bytes that the frame announces.
        needed: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// The lengths or the kind contradict each other.
    #[error("an entry's frame is malformed: {0}")]
    Malformed(&'static str),
    /// A `schema` or `epoch` payload is not the JSON it should be.
    #[error("an entry's payload is malformed: {0}")]
    Payload(String),
}

impl Entry {
    /// Where a node stands once it has applied this entry.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, version: self.version, chain: self.chain }
    }

    /// The fixed part that the chain covers, payload length included so that no two entries hash alike.
    #[must_use]
    pub fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let length = u32::try_from(self.payload.len()).expect("a payload is at most MAX_PAYLOAD long");
        let parts: [&[u8]; 7] = [
            &self.version.to_be_bytes(),
            &[self.kind.code()],
            &self.epoch.generation.to_be_bytes(),
            &self.epoch.id.0,
            &self.schema_hash.0,
            &self.committed_ms.to_be_bytes(),
            &length.to_be_bytes(),
        ];
        let mut at = 0;
        for part in parts {
            header[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        header
    }

    /// Appends this entry's frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let length = HEADER + CHAIN + self.payload.len();
        out.reserve(4 + length);
        out.extend(u32::try_from(length).expect("a payload is at most MAX_PAYLOAD long").to_be_bytes());
        out.extend(self.header());
        out.extend(self.chain.0);
        out.extend(&self.payload);
    }

    /// Takes one frame off the front of `input`; `None` at its end.
    pub fn decode(input: &mut &[u8]) -> Result<Option<Self>, DecodeError> {
        if input.is_empty() {
            return Ok(None);
        }
        let truncated = |needed| DecodeError::Truncated { needed, found: input.len() };
        let (length, rest) = input.split_first_chunk::<4>().ok_or_else(|| truncated(4))?;
        let length = u32::from_be_bytes(*length) as usize;
        if !(HEADER + CHAIN..=HEADER + CHAIN + MAX_PAYLOAD).contains(&length) {
            return Err(DecodeError::Malformed("its length is out of range"));
        }
        if rest.len() < length {
            return Err(truncated(4 + length));
        }
        let (frame, rest) = rest.split_at(length);
        let entry = Self::decode_frame(frame)?;
        *input = rest;
        Ok(Some(entry))
    }

    fn decode_frame(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields(frame);
        let version = fields.u64();
        let kind = Kind::from_code(fields.take::<1>()[0]).ok_or(DecodeError::Malformed("its kind is unknown"))?;
        let epoch = Epoch { generation: fields.u64(), id: EpochId(fields.take()) };
        let schema_hash = SchemaHash(fields.take());
        let committed_ms = i64::from_be_bytes(fields.take());
        let payload_length = u32::from_be_bytes(fields.take()) as usize;
        let chain = Chain(fields.take());
        if fields.0.len() != payload_length {
            return Err(DecodeError::Malformed("its lengths disagree"));
        }
        Ok(Self { version, kind, epoch, schema_hash, committed_ms, payload: fields.0.to_vec(), chain })
    }

    /// The parts of a `schema` entry: what to run, then what to apply.
    pub fn schema_change(&self) -> Result<(SchemaChange, &[u8]), DecodeError> {
        let (length, rest) = self.payload.split_first_chunk::<4>().ok_or(DecodeError::Malformed("no schema change"))?;
        let length = u32::from_be_bytes(*length) as usize;
        if rest.len() < length {
            return Err(DecodeError::Malformed("its schema change is cut short"));
        }
        let (json, changeset) = rest.split_at(length);
        let change = serde_json::from_slice(json).map_err(|error| DecodeError::Payload(error.to_string()))?;
        Ok((change, changeset))
    }

    /// What an `epoch` entry says.
    pub fn epoch_change(&self) -> Result<EpochChange, DecodeError> {
        serde_json::from_slice(&self.payload).map_err(|error| DecodeError::Payload(error.to_string()))
    }
}

/// The payload of a `schema` entry.
#[must_use]
pub fn schema_payload(change: &SchemaChange, changeset: &[u8]) -> Vec<u8> {
    let json = serde_json::to_vec(change).expect("strings and hashes always serialise");
    let length = u32::try_from(json.len()).expect("a schema is far below 4 GiB");
    [&length.to_be_bytes()[..], &json, changeset].concat()
}

/// Reads fixed-width fields off a frame whose length was checked to hold them all.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the frame is at least HEADER + CHAIN long");
        self.0 = rest;
        *field
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{chain, position::DatabaseId};

    fn entry() -> Entry {
        let mut entry = Entry {
            version: 1,
            kind: Kind::Changes,
            epoch: Epoch { generation: 1, id: EpochId([7; 8]) },
            schema_hash: SchemaHash([3; 32]),
            committed_ms: 1_700_000_000_000,
            payload: b"payload".to_vec(),
            chain: Chain([0; 32]),
        };
        entry.chain = chain::next(chain::genesis(DatabaseId([1; 16])), &entry);
        entry
    }

    #[test]
    fn a_frame_decodes_to_the_entry_it_was_made_of() {
        let (mut frames, expected) = (Vec::new(), entry());
        expected.encode(&mut frames);
        expected.encode(&mut frames);
        let mut input = frames.as_slice();
        assert_eq!(Entry::decode(&mut input).unwrap().as_ref(), Some(&expected));
        assert_eq!(Entry::decode(&mut input).unwrap().as_ref(), Some(&expected));
        assert_eq!(Entry::decode(&mut input).unwrap(), None);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_of_a_frame_is_detected() {
        let (mut frame, original) = (Vec::new(), entry());
        original.encode(&mut frame);
        let genesis = chain::genesis(DatabaseId([1; 16]));
        for length in 1..frame.len() {
            assert!(Entry::decode(&mut &frame[..length]).is_err(), "cut at {length}");
        }
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let intact = match Entry::decode(&mut flipped.as_slice()) {
                Ok(Some(entry)) => chain::next(genesis, &entry) == entry.chain,
                _ => false,
            };
            assert!(!intact, "bit {bit}");
        }
    }
}
