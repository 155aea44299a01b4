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

/// Answers that are kept: what is asked for again is asked for within moments.
const MAX_KEPT: usize = 64;

/// Bytes of all that are kept.
const MAX_BYTES: usize = 8 << 20;

/// How a replica reads entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// With their traces.
    pub traced: bool,
    /// Compressed.
    pub zstd: bool,
}

impl Form {
    /// These entries' frames, one after another.
    pub fn encode(self, entries: &[Entry]) -> io::Result<Bytes> {
        let encode = if self.traced { Entry::encode_traced } else { Entry::encode };
        let mut frames = Vec::new();
        entries.iter().for_each(|entry| encode(entry, &mut frames));
        if self.zstd {
            frames = zstd::bulk::compress(&frames, COMPRESSION_LEVEL)?;
        }
        // It may be kept: without the room that it was made in.
        frames.shrink_to_fit();
        Ok(frames.into())
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
    answers: VecDeque<(Range, Bytes)>,
    bytes: usize,
}

impl SharedFrames {
    /// The frames of this range, if somebody has asked for it lately.
    #[must_use]
    pub fn get(&self, range: &Range) -> Option<Bytes> {
        let kept = self.kept();
        let found = kept.answers.iter().rev().find(|(known, _)| known == range)?;
        Some(found.1.clone())
    }

    /// Keeps the frames of a range for those who ask next; the oldest ones make room.
    pub fn keep(&self, range: Range, frames: &Bytes) {
        let mut kept = self.kept();
        if frames.len() > MAX_BYTES || kept.answers.iter().any(|(known, _)| *known == range) {
            return;
        }
        kept.answers.push_back((range, frames.clone()));
        kept.bytes += frames.len();
        while kept.answers.len() > MAX_KEPT || kept.bytes > MAX_BYTES {
            let Some((_, oldest)) = kept.answers.pop_front() else { break };
            kept.bytes -= oldest.len();
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
            let plain = if zstd { ::zstd::bulk::decompress(&found, 1 << 20).unwrap() } else { found.to_vec() };
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
                shared.keep(range(number), &Bytes::from(number.to_be_bytes().repeat(size / 8)));
                let kept = shared.kept();
                let bytes: usize = kept.answers.iter().map(|(_, frames)| frames.len()).sum();
                prop_assert_eq!(bytes, kept.bytes);
                prop_assert!(kept.answers.len() <= MAX_KEPT && bytes <= MAX_BYTES);
            }
            for (number, size) in (0_u64..).zip(&sizes) {
                let expected = number.to_be_bytes().repeat(size / 8);
                prop_assert!(shared.get(&range(number)).is_none_or(|found| found == expected));
            }
        }
    }

    #[test]
    fn a_range_differs_by_each_of_its_parts() {
        let shared = SharedFrames::default();
        let forked = Position { chain: Chain([9; 32]), ..at(1) };
        shared.keep(range(1), &Bytes::from_static(b"frames"));
        for other in [
            Range { after: forked, ..range(1) },
            Range { head: at(2), ..range(1) },
            Range { form: Form { traced: true, ..PLAIN }, ..range(1) },
            Range { form: Form { zstd: true, ..PLAIN }, ..range(1) },
        ] {
            assert_eq!(shared.get(&other), None, "{other:?}");
        }
        assert_eq!(shared.get(&range(1)).unwrap(), "frames");
    }
}
