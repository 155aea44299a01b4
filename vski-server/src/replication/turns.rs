//! Turns of long polls: where many replicas wait for the next entry, they do not all get it at once.
//!
//! Each answer costs about the same whether it carries one entry or fifty. A thousand replicas that are each answered
//! for every single commit take more than a machine has, and the more of it they take the later the next write is. So
//! answers to long polls have a rate: what comes in between is in the answer when its turn has come. A few replicas, or
//! many after a quiet time, come nowhere near the rate and never wait.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Time between two answers where all wait: with a thousand replicas each of them is answered every 0.4 s, and all of
/// these answers take less than half a processor.
const EACH: Duration = Duration::from_micros(400);

/// Answers that may go at once after a time with fewer.
const AT_ONCE: u32 = 40;

/// Hands out turns, in the order in which they are asked for.
pub struct Turns {
    /// When the next turn would be, had nobody ever been early.
    next: Mutex<Instant>,
}

impl Default for Turns {
    fn default() -> Self {
        let now = Instant::now();
        Self { next: Mutex::new(now.checked_sub(EACH * AT_ONCE).unwrap_or(now)) }
    }
}

impl Turns {
    /// When to answer whoever asks at `now`: then, or a little later where many have asked just before.
    #[must_use]
    pub fn take(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = now.checked_sub(EACH * AT_ONCE).map_or(*next, |earliest| earliest.max(*next));
        *next = turn + EACH;
        turn.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_replicas_never_wait_at_hundreds_of_commits_a_second() {
        let (turns, began) = (Turns::default(), Instant::now());
        for commit in 0..400 {
            let now = began + Duration::from_millis(5) * commit;
            for _replica in 0..12 {
                assert_eq!(turns.take(now), now);
            }
        }
    }

    #[test]
    fn many_are_answered_in_order_at_a_rate_and_after_a_quiet_time_the_first_ones_at_once() {
        let (turns, mut now) = (Turns::default(), Instant::now());
        for _ in 0..3 {
            let all: Vec<_> = (0..1_000).map(|_| turns.take(now)).collect();
            assert!(all.is_sorted());
            assert_eq!(all.iter().filter(|turn| **turn == now).count(), AT_ONCE as usize + 1);
            assert_eq!(all[999] - now, EACH * (999 - AT_ONCE));
            now += Duration::from_secs(3_600);
        }
    }

    #[test]
    fn whoever_asks_again_after_each_turn_gets_one_for_every_turn_of_the_others() {
        let (turns, began) = (Turns::default(), Instant::now());
        let mut due: Vec<Instant> = (0..1_000).map(|_| turns.take(began)).collect();
        for round in 1..=4 {
            due = due.into_iter().map(|at| turns.take(at)).collect();
            let last = *due.last().unwrap();
            assert_eq!(last - began, EACH * ((round + 1) * 1_000 - 1 - AT_ONCE), "round {round}");
        }
    }
}
