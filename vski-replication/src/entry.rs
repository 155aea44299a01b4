//! A log **entry**: what one committed transaction did, and its frame on the wire.
//!
//! Frame, integers big-endian: `length u32 | header (69 bytes) | chain (32 bytes) | payload | trace`, where length counts
//! everything after itself. Header: `version u64 | kind u8 | generation u64 | epoch id 8 | schema hash 32 |
//! commit time i64 (ms since 1970) | payload length u32`. A batch is frames one after another.
//!
//! Payload by kind: `changes` is a SQLite changeset; `schema` is `length u32 | JSON of `SchemaChange` | changeset`;
//! `epoch` is the JSON of `EpochChange`.
//!
//! Trace: nothing, or, where the reader said that it knows of it, 63 bytes: a W3C traceparent (55) and the first 8 of
//! BLAKE3 over `chain | traceparent`. The chain does not cover it; 63 bytes that are anything else are an entry
//! without a trace, never an error.

use serde::{Deserialize, Serialize};

use crate::position::{Chain, Epoch, EpochId, Position, SchemaHash};
use crate::schema::Object;
use crate::trace::{TRACE_BYTES, Trace};

const HEADER: usize = 8 + 1 + 8 + 8 + 32 + 8 + 4;
const CHAIN: usize = 32;

/// A trace and the digest that ties it to its entry.
const TRACE: usize = TRACE_BYTES + TRACE_CHECK;
const TRACE_CHECK: usize = 8;

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
    /// The trace of the write, where somebody records it. A diagnostic: the chain does not cover it.
    pub trace: Option<Trace>,
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

    /// Appends this entry's frame to `out`, without its trace: the form that every version of this program reads.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.frame(&[], out);
    }

    /// Appends this entry's frame to `out`, with its trace if it has one.
    pub fn encode_traced(&self, out: &mut Vec<u8>) {
        match self.trace {
            Some(trace) => self.frame(&seal(self.chain, trace), out),
            None => self.frame(&[], out),
        }
    }

    fn frame(&self, trace: &[u8], out: &mut Vec<u8>) {
        let length = HEADER + CHAIN + self.payload.len() + trace.len();
        out.reserve(4 + length);
        out.extend(u32::try_from(length).expect("a payload is at most MAX_PAYLOAD long").to_be_bytes());
        out.extend(self.header());
        out.extend(self.chain.0);
        out.extend(&self.payload);
        out.extend(trace);
    }

    /// Takes one frame off the front of `input`; `None` at its end.
    pub fn decode(input: &mut &[u8]) -> Result<Option<Self>, DecodeError> {
        if input.is_empty() {
            return Ok(None);
        }
        let truncated = |needed| DecodeError::Truncated { needed, found: input.len() };
        let (length, rest) = input.split_first_chunk::<4>().ok_or_else(|| truncated(4))?;
        let length = u32::from_be_bytes(*length) as usize;
        if !(HEADER + CHAIN..=HEADER + CHAIN + MAX_PAYLOAD + TRACE).contains(&length) {
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
        let trace_length = fields.0.len().checked_sub(payload_length);
        if !matches!(trace_length, Some(0 | TRACE)) {
            return Err(DecodeError::Malformed("its lengths disagree"));
        }
        let (payload, trace) = fields.0.split_at(payload_length);
        let trace = unseal(chain, trace);
        Ok(Self { version, kind, epoch, schema_hash, committed_ms, payload: payload.to_vec(), chain, trace })
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

/// Where the last of `frames` says that it leads. Nothing of it is verified: it is good for asking what follows, and for
/// nothing else.
#[must_use]
pub fn claimed_end(mut frames: &[u8]) -> Option<Position> {
    let mut last = None;
    while let Some((length, rest)) = frames.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        (last, frames) = (Some(frame), rest);
    }
    let mut fields = Fields(last.filter(|frame| frame.len() >= HEADER + CHAIN)?);
    let version = fields.u64();
    let _kind = fields.take::<1>();
    let epoch = Epoch { generation: fields.u64(), id: EpochId(fields.take()) };
    let _schema_hash = fields.take::<32>();
    let (_committed_ms, _payload_length) = (fields.take::<8>(), fields.take::<4>());
    Some(Position { epoch, version, chain: Chain(fields.take()) })
}

/// The payload of a `schema` entry.
#[must_use]
pub fn schema_payload(change: &SchemaChange, changeset: &[u8]) -> Vec<u8> {
    let json = serde_json::to_vec(change).expect("strings and hashes always serialise");
    let length = u32::try_from(json.len()).expect("a schema is far below 4 GiB");
    [&length.to_be_bytes()[..], &json, changeset].concat()
}

/// A trace as it travels behind the entry with this chain.
fn seal(chain: Chain, trace: Trace) -> Vec<u8> {
    let mut sealed = trace.to_string().into_bytes();
    let check = trace_check(chain, &sealed);
    sealed.extend(check);
    sealed
}

/// The trace behind an entry, if it is one, and this entry's.
fn unseal(chain: Chain, sealed: &[u8]) -> Option<Trace> {
    let (text, check) = sealed.split_at_checked(TRACE_BYTES)?;
    if check == trace_check(chain, text) { Trace::parse(text) } else { None }
}

fn trace_check(chain: Chain, text: &[u8]) -> [u8; TRACE_CHECK] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&chain.0).update(text);
    let mut check = [0; TRACE_CHECK];
    hasher.finalize_xof().fill(&mut check);
    check
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
mod tests;
