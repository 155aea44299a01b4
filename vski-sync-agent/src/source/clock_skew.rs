//! How far this node's clock is from the master's, as NTP estimates it: each answer tells when the master was asked
//! and when it answered, so that neither the way nor a long poll's wait counts. Lag does not depend on it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Answers that are remembered: the one with the shortest way is the best witness.
const SAMPLES: usize = 8;

/// The estimate.
#[derive(Default)]
pub(super) struct ClockSkew {
    samples: Mutex<VecDeque<Sample>>,
}

#[derive(Clone, Copy)]
struct Sample {
    /// Time on the way, both directions.
    way_ms: i64,
    /// This clock minus the master's.
    skew_ms: i64,
}

impl ClockSkew {
    /// Takes in the master's `<asked>,<answered>` and when this node asked and was answered, all ms since 1970.
    /// What makes no sense is left out: a clock was set in between.
    pub(super) fn heard(&self, told: &str, asked_ms: i64, answered_ms: i64) {
        let Some(sample) = sample(told, asked_ms, answered_ms) else { return };
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.truncate(SAMPLES - 1);
        samples.push_front(sample);
    }

    /// This clock minus the master's, ms, by the best of the last answers.
    pub(super) fn ms(&self) -> Option<i64> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().min_by_key(|sample| sample.way_ms).map(|sample| sample.skew_ms)
    }
}

fn sample(told: &str, asked_ms: i64, answered_ms: i64) -> Option<Sample> {
    let (was_asked, has_answered) = told.split_once(',')?;
    let (was_asked_ms, has_answered_ms): (i64, i64) = (was_asked.parse().ok()?, has_answered.parse().ok()?);
    let there_ms = asked_ms.checked_sub(was_asked_ms)?;
    let back_ms = answered_ms.checked_sub(has_answered_ms)?;
    let way_ms = back_ms.checked_sub(there_ms)?;
    // Each of the four times is cut to a whole millisecond.
    (way_ms >= -2).then_some(Sample { way_ms, skew_ms: there_ms.checked_add(back_ms)? / 2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_way_nor_the_masters_wait_counts() {
        let skew = ClockSkew::default();
        assert_eq!(skew.ms(), None);
        // Ahead by 1,000: 30 ms there, 2,000 of waiting, 30 ms back.
        skew.heard("10030,12030", 11_000, 13_060);
        assert_eq!(skew.ms(), Some(1_000));
        // A slow way back misleads by half of its delay, so the earlier answer stays the witness.
        skew.heard("20030,20030", 21_000, 21_530);
        assert_eq!(skew.ms(), Some(1_000));
        for number in 0..8 {
            let asked = 30_000 + number;
            skew.heard(&format!("{asked},{asked}"), asked - 500, asked - 499);
        }
        assert_eq!(skew.ms(), Some(-499), "the clock was set, and older answers are forgotten");
    }

    #[test]
    fn nonsense_is_left_out() {
        let skew = ClockSkew::default();
        for told in ["", "1", "1,", "a,b", "1.5,2", "9223372036854775807,-9223372036854775808", "100,500"] {
            skew.heard(told, 100, 200);
        }
        assert_eq!(skew.ms(), None);
    }
}
