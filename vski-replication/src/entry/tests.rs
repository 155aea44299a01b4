use proptest::prelude::*;

use super::*;
use crate::damage::damaged;
use crate::{chain, position::DatabaseId};

const TRACED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn entry() -> Entry {
    let mut entry = Entry {
        version: 1,
        kind: Kind::Changes,
        epoch: Epoch { generation: 1, id: EpochId([7; 8]) },
        schema_hash: SchemaHash([3; 32]),
        committed_ms: 1_700_000_000_000,
        payload: b"payload".to_vec(),
        chain: Chain([0; 32]),
        trace: None,
    };
    entry.chain = chain::next(chain::genesis(DatabaseId([1; 16])), &entry);
    entry
}

fn traced() -> Entry {
    Entry { trace: Trace::parse(TRACED.as_bytes()), ..entry() }
}

/// The frame of an entry of this length, with `bytes` where its trace belongs.
fn frame_with(entry: &Entry, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    entry.frame(bytes, &mut frame);
    frame
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
fn a_trace_travels_behind_its_entry_and_takes_no_part_in_the_chain() {
    let (entry, traced) = (entry(), traced());
    let genesis = chain::genesis(DatabaseId([1; 16]));
    assert_eq!(chain::next(genesis, &traced), entry.chain);
    let mut frames = Vec::new();
    traced.encode_traced(&mut frames);
    entry.encode_traced(&mut frames);
    traced.encode(&mut frames);
    let mut input = frames.as_slice();
    let decoded: Vec<Entry> = std::iter::from_fn(|| Entry::decode(&mut input).unwrap()).collect();
    assert_eq!(decoded, [traced, entry.clone(), entry]);
}

#[test]
fn a_trace_of_another_entry_is_none() {
    let (mut frame, mut other) = (Vec::new(), entry());
    traced().encode_traced(&mut frame);
    other.version = 2;
    other.chain = chain::next(entry().chain, &other);
    let moved = frame_with(&other, &frame[frame.len() - TRACE..]);
    assert_eq!(Entry::decode(&mut moved.as_slice()).unwrap(), Some(other));
}

/// What a reader takes of a frame: the entry if it is intact, without regard to its trace.
fn intact(frame: &[u8]) -> Option<Entry> {
    let mut input = frame;
    let entry = Entry::decode(&mut input).ok()??;
    let rest_is_whole = input.is_empty();
    (rest_is_whole && chain::next(chain::genesis(DatabaseId([1; 16])), &entry) == entry.chain).then_some(entry)
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_frame_is_detected() {
    for (what, frame) in damaged(&frame_with(&entry(), &[])) {
        assert_eq!(intact(&frame), None, "{what}");
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_frame_with_a_trace_is_detected_or_costs_the_trace() {
    let mut frame = Vec::new();
    traced().encode_traced(&mut frame);
    assert_eq!(intact(&frame), Some(traced()));
    let trace = frame.len() - TRACE;
    for (what, damaged) in damaged(&frame) {
        let only_the_trace = damaged.len() == frame.len() && damaged[..trace] == frame[..trace];
        assert_eq!(intact(&damaged), only_the_trace.then(entry), "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_entry_with_any_trace_comes_back_as_it_was(
        trace_id in any::<[u8; 16]>(),
        span_id in any::<[u8; 8]>(),
        flags in any::<u8>(),
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assume!(trace_id != [0; 16] && span_id != [0; 8]);
        let entry = Entry { trace: Some(Trace { trace_id, span_id, flags }), payload, ..entry() };
        let mut frame = Vec::new();
        entry.encode_traced(&mut frame);
        let mut input = frame.as_slice();
        prop_assert_eq!(Entry::decode(&mut input).unwrap(), Some(entry));
        prop_assert!(input.is_empty());
    }

    #[test]
    fn any_bytes_where_a_trace_belongs_leave_the_entry_readable(bytes in prop::collection::vec(any::<u8>(), TRACE)) {
        prop_assert_eq!(intact(&frame_with(&entry(), &bytes)), Some(entry()));
    }

    #[test]
    fn a_frame_has_room_for_a_trace_and_for_nothing_else(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
        prop_assume!(bytes.len() != TRACE);
        prop_assert!(Entry::decode(&mut frame_with(&entry(), &bytes).as_slice()).is_err());
    }
}

#[test]
fn frames_tell_where_they_claim_to_lead_and_torn_ones_nothing() {
    let entries = [1, 2, 3].map(|version| Entry { version, chain: Chain([version as u8; 32]), ..entry() });
    let mut frames = Vec::new();
    entries.iter().for_each(|entry| entry.encode(&mut frames));
    assert_eq!(claimed_end(&frames), Some(entries[2].position()));
    assert_eq!(claimed_end(&[]), None);
    assert_eq!(claimed_end(&frames[..frames.len() - 1]), None);
    assert_eq!(claimed_end(&[0, 0, 0, 1, 7]), None);
}
