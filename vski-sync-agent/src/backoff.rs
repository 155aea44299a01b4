//! How long to wait before trying again, and how often to complain about the same thing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The first pause.
const FIRST: Duration = Duration::from_millis(250);

/// The longest pause, unless the master asks for a longer one.
const LONGEST: Duration = Duration::from_secs(5);

/// The longest pause that a master may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// How long an error that was logged is not logged again.
const QUIET: Duration = Duration::from_secs(60);

/// Errors remembered at once; more distinct ones than that are all worth a line.
const REMEMBERED: usize = 16;

/// Exponential pauses with jitter, so that many replicas do not come back to a restarted master at one moment.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure: between half and all of 250 ms, 500 ms, 1 s … 5 s, and not less than
    /// what the master asked for.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let pause = whole.mul_f64(rand::random_range(0.5..=1.0));
        pause.max(asked.unwrap_or_default().min(LONGEST_ASKED))
    }

    /// It worked: the next failure starts anew.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Decides which errors are worth a log line: new ones at once, the same one again after [`QUIET`].
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    logged: HashMap<String, Instant>,
}

impl Complaints {
    /// Whether to log `error` at `now`.
    pub(crate) fn worth_logging(&mut self, error: &str, now: Instant) -> bool {
        self.logged.retain(|_, at| now.duration_since(*at) < QUIET);
        if self.logged.contains_key(error) {
            return false;
        }
        if self.logged.len() < REMEMBERED {
            self.logged.insert(error.to_owned(), now);
        }
        true
    }

    /// It worked: whatever comes next is news.
    pub(crate) fn clear(&mut self) {
        self.logged.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_a_quarter_of_a_second_to_five_seconds() {
        let mut backoff = Backoff::default();
        for expected in [250, 500, 1000, 2000, 4000, 5000, 5000] {
            let pause = backoff.next(None).as_millis();
            assert!((expected / 2..=expected).contains(&pause), "{pause} is not about {expected}");
        }
        backoff.reset();
        assert!(backoff.next(None) <= FIRST);
    }

    #[test]
    fn the_master_may_ask_for_a_longer_pause_within_reason() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(Some(Duration::from_secs(5))), Duration::from_secs(5));
        assert_eq!(backoff.next(Some(Duration::from_secs(86_400))), LONGEST_ASKED);
    }

    #[test]
    fn an_error_is_logged_at_once_and_then_once_a_minute() {
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        assert!(complaints.worth_logging("a", start));
        assert!(!complaints.worth_logging("a", start + Duration::from_secs(59)));
        assert!(complaints.worth_logging("b", start + Duration::from_secs(59)));
        assert!(complaints.worth_logging("a", start + Duration::from_secs(61)));
        complaints.clear();
        assert!(complaints.worth_logging("a", start + Duration::from_secs(62)));
    }
}
