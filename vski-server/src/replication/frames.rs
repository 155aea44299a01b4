//! Entries as they are sent, encoded once for all replicas that ask for the same ones.
//!
//! What was encoded for one is right for another that stands at the same position while the log ends at the same head:
//! a position's chain is a digest of all entries up to it, so that two logs with that head, or one log at two times,
//! have the same entries up to there. Whether the log still keeps them is for the caller to judge each time.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use vski_replication::entry::Entry;
use vski_replication::position::Position;

/// zstd's level for entries: fast, and most of the gain.
const COMPRESSION_LEVEL: i32 = 1;

/// Frames below this fit into a packet as they are, bytes: packing and unpacking them costs more than sending them.
const MIN_PACKED_BYTES: usize = 1024;

/// Answers that are kept: what is asked for again is asked for within moments.
const MAX_KEPT: usize = 64;

/// Bytes of all that are kept.
const MAX_BYTES: usize = 8 << 20;

/// How a replica reads entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// With their traces.
    pub traced: bool,
    /// Compressed, where there are many.
    pub zstd: bool,
}

/// Frames as they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    /// The frames, one after another.
    pub bytes: Bytes,
    /// Whether they are compressed.
    pub zstd: bool,
}

impl Form {
    /// These entries' frames.
    pub fn encode(self, entries: &[Entry]) -> io::Result<Frames> {
        let encode = if self.traced { Entry::encode_traced } else { Entry::encode };
        let mut frames = Vec::new();
        entries.iter().for_each(|entry| encode(entry, &mut frames));
        let zstd = self.zstd && frames.len() >= MIN_PACKED_BYTES;
        if zstd {
            frames = zstd::bulk::compress(&frames, COMPRESSION_LEVEL)?;
        }
        // It may be kept: without the room that it was made in.
        frames.shrink_to_fit();
        Ok(Frames { bytes: frames.into(), zstd })
    }
}

/// What the frames of an answer follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where the replica stands.
    pub after: Position,
    /// Where the log ends.
    pub head: Position,
    /// How the replica reads it.
    pub form: Form,
}

/// The frames of the last answers.
#[derive(Default)]
pub struct SharedFrames {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The oldest first.
    answers: VecDeque<(Range, Frames)>,
    bytes: usize,
}

impl SharedFrames {
    /// The frames of this range, if somebody has asked for it lately.
    #[must_use]
    pub fn get(&self, range: &Range) -> Option<Frames> {
        let kept = self.kept();
        let found = kept.answers.iter().rev().find(|(known, _)| known == range)?;
        Some(found.1.clone())
    }

    /// Keeps the frames of a range for those who ask next; the oldest ones make room.
    pub fn keep(&self, range: Range, frames: &Frames) {
        let mut kept = self.kept();
        if frames.bytes.len() > MAX_BYTES || kept.answers.iter().any(|(known, _)| *known == range) {
            return;
        }
        kept.answers.push_back((range, frames.clone()));
        kept.bytes += frames.bytes.len();
        while kept.answers.len() > MAX_KEPT || kept.bytes > MAX_BYTES {
            let Some((_, oldest)) = kept.answers.pop_front() else { break };
            kept.bytes -= oldest.bytes.len();
        }
    }

    /// What is behind this lock is right after each statement, but for a count of bytes that may be too high.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vski_replication::changelog::Head;
    use vski_replication::entry::Kind;
    use vski_replication::position::{Chain, Epoch, EpochId, SchemaHash};
    use vski_replication::trace::Trace;

    use super::*;

    const TRACE: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const PLAIN: Form = Form { traced: false, zstd: false };

    fn at(version: u64) -> Position {
        Position { epoch: Epoch { generation: 1, id: EpochId([1; 8]) }, version, chain: Chain([2; 32]) }
    }

    fn range(after: u64) -> Range {
        Range { after: at(after), head: at(1_000_000), form: PLAIN }
    }

    fn frames(bytes: impl Into<Bytes>) -> Frames {
        Frames { bytes: bytes.into(), zstd: false }
    }

    fn entries(payloads: Vec<Vec<u8>>) -> Vec<Entry> {
        let mut head = Head { position: at(7), schema_hash: SchemaHash([3; 32]), committed_ms: 0 };
        let next = |payload: Vec<u8>| {
            let trace = payload.first().is_some_and(|byte| byte % 2 == 0).then(|| Trace::parse(TRACE)).flatten();
            let entry = Entry { trace, ..head.next(Kind::Changes, head.position.epoch, head.schema_hash, payload) };
            head = Head::after(&entry);
            entry
        };
        payloads.into_iter().map(next).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_shared_is_byte_for_byte_what_is_made_alone_and_reads_as_the_entries(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            traced in any::<bool>(),
            zstd in any::<bool>(),
        ) {
            let (entries, form) = (entries(payloads), Form { traced, zstd });
            let (shared, range) = (SharedFrames::default(), Range { form, ..range(7) });
            prop_assert_eq!(shared.get(&range), None);
            shared.keep(range, &form.encode(&entries).unwrap());
            let found = shared.get(&range).unwrap();
            prop_assert_eq!(&found, &form.encode(&entries).unwrap());
            let bytes = &found.bytes;
            let plain = if found.zstd { ::zstd::bulk::decompress(bytes, 1 << 20).unwrap() } else { bytes.to_vec() };
            prop_assert_eq!(found.zstd, zstd && plain.len() >= MIN_PACKED_BYTES);
            let (mut rest, mut read) = (plain.as_slice(), Vec::new());
            while let Some(entry) = Entry::decode(&mut rest).unwrap() {
                read.push(entry);
            }
            let trace = |entry: &Entry| if traced { entry.trace } else { None };
            let expected: Vec<_> = entries.iter().map(|entry| Entry { trace: trace(entry), ..entry.clone() }).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn what_is_kept_is_bounded_and_never_given_to_another_range(
            sizes in prop::collection::vec(prop_oneof![9 => 0..1_000_usize, 1 => (1_usize << 20)..(9 << 20)], 1..150),
        ) {
            let shared = SharedFrames::default();
            for (number, size) in (0_u64..).zip(&sizes) {
                shared.keep(range(number), &frames(number.to_be_bytes().repeat(size / 8)));
                let kept = shared.kept();
                let bytes: usize = kept.answers.iter().map(|(_, frames)| frames.bytes.len()).sum();
                prop_assert_eq!(bytes, kept.bytes);
                prop_assert!(kept.answers.len() <= MAX_KEPT && bytes <= MAX_BYTES);
            }
            for (number, size) in (0_u64..).zip(&sizes) {
                let expected = frames(number.to_be_bytes().repeat(size / 8));
                prop_assert!(shared.get(&range(number)).is_none_or(|found| found == expected));
            }
        }
    }

    #[test]
    fn a_range_differs_by_each_of_its_parts() {
        let shared = SharedFrames::default();
        let forked = Position { chain: Chain([9; 32]), ..at(1) };
        shared.keep(range(1), &frames("frames"));
        for other in [
            Range { after: forked, ..range(1) },
            Range { head: at(2), ..range(1) },
            Range { form: Form { traced: true, ..PLAIN }, ..range(1) },
            Range { form: Form { zstd: true, ..PLAIN }, ..range(1) },
        ] {
            assert_eq!(shared.get(&other), None, "{other:?}");
        }
        assert_eq!(shared.get(&range(1)), Some(frames("frames")));
    }
}
