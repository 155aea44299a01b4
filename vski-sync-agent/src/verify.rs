//! Entries checked before SQLite sees a byte of them: frames, versions, epochs and the chain.
//!
//! A changeset has no checksum of its own, and most flipped bits apply as wrong data without an error. So a batch is
//! taken whole or not at all.

use vski_replication::chain;
use vski_replication::entry::{DecodeError, Entry, Kind};
use vski_replication::position::Position;

/// A batch that is not what a master sends after `position`. Asking again is right: the transport may have torn it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VerifyError {
    /// The bytes are no frames.
    #[error("decode the entries")]
    Decode(#[from] DecodeError),
    /// The master announced entries and sent none.
    #[error("the batch is empty")]
    Empty,
    /// An entry is missing, repeated or out of order.
    #[error("entry {found} came where {expected} follows")]
    Version {
        /// The version that follows.
        expected: u64,
        /// The version that came.
        found: u64,
    },
    /// An entry does not follow from the one before.
    #[error("the chain of entry {0} does not follow from the entry before it")]
    Chain(u64),
    /// An entry belongs to an epoch that no `epoch` entry began.
    #[error("entry {0} belongs to an epoch that has not begun")]
    Epoch(u64),
}

/// The entries in `frames`, once all of them are known to follow `position`.
pub(crate) fn entries(position: Position, mut frames: &[u8]) -> Result<Vec<Entry>, VerifyError> {
    let (mut entries, mut previous) = (Vec::new(), position);
    while let Some(entry) = Entry::decode(&mut frames)? {
        follows(previous, &entry)?;
        previous = entry.position();
        entries.push(entry);
    }
    if entries.is_empty() { Err(VerifyError::Empty) } else { Ok(entries) }
}

fn follows(previous: Position, entry: &Entry) -> Result<(), VerifyError> {
    let expected = previous.version + 1;
    if entry.version != expected {
        return Err(VerifyError::Version { expected, found: entry.version });
    }
    if chain::next(previous.chain, entry) != entry.chain {
        return Err(VerifyError::Chain(entry.version));
    }
    let begun = match entry.kind {
        Kind::Epoch => entry.epoch.generation > previous.epoch.generation,
        Kind::Changes | Kind::Schema => entry.epoch == previous.epoch,
    };
    if begun { Ok(()) } else { Err(VerifyError::Epoch(entry.version)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Master;

    fn batch() -> (Position, Vec<Entry>) {
        let mut master = Master::new();
        let start = master.position();
        master.schema(&["CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL)"]);
        master.changes("INSERT INTO t VALUES ('a')");
        master.changes("INSERT INTO t VALUES ('b')");
        (start, master.entries_after(0))
    }

    fn frames<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<u8> {
        let mut frames = Vec::new();
        entries.into_iter().for_each(|entry| entry.encode(&mut frames));
        frames
    }

    #[test]
    fn an_intact_batch_passes() {
        let (start, batch) = batch();
        assert_eq!(entries(start, &frames(&batch)), Ok(batch));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let (start, batch) = batch();
        let intact = frames(&batch);
        for bit in 0..intact.len() * 8 {
            let mut flipped = intact.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(entries(start, &flipped).is_err(), "bit {bit}");
        }
        let ends: Vec<usize> = (1..=3).map(|count| frames(&batch[..count]).len()).collect();
        for length in 0..intact.len() {
            assert_eq!(entries(start, &intact[..length]).is_ok(), ends.contains(&length), "cut at {length}");
        }
    }

    #[test]
    fn a_missing_repeated_or_swapped_entry_is_refused() {
        let (start, batch) = batch();
        for order in [&[1, 2][..], &[0, 2], &[0, 0, 1], &[0, 2, 1]] {
            let batch: Vec<&Entry> = order.iter().map(|&index| &batch[index]).collect();
            assert!(matches!(entries(start, &frames(batch)), Err(VerifyError::Version { .. })), "{order:?}");
        }
        assert_eq!(entries(start, &[]), Err(VerifyError::Empty));
    }

    #[test]
    fn another_history_of_the_same_length_is_refused() {
        let (start, _) = batch();
        let (_, other) = batch();
        assert_eq!(entries(start, &frames(&other)), Err(VerifyError::Chain(1)));
    }

    #[test]
    fn an_epoch_must_be_begun_by_an_entry() {
        let (start, batch) = batch();
        let mut forged = batch[0].clone();
        forged.epoch.generation += 1;
        forged.chain = chain::next(start.chain, &forged);
        assert_eq!(entries(start, &frames([&forged])), Err(VerifyError::Epoch(1)));
    }
}
