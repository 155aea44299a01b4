use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Pause between two probes: short at first, because most conditions hold at once.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What a probe reports: not yet, or a value.
pub trait Progress {
    /// What there is once the condition holds.
    type Value;

    /// The value, or `None` for not yet.
    fn value(self) -> Option<Self::Value>;
}

impl Progress for bool {
    type Value = ();

    fn value(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Progress for Option<T> {
    type Value = T;

    fn value(self) -> Self {
        self
    }
}

/// Probes until the answer is `true` or `Some`. An error counts as "not yet"; the last one is part of the final error.
///
/// The last probe begins after the deadline: what came to be while the machine had no time for this thread is seen.
pub fn eventually<P: Progress>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<P>,
) -> Result<P::Value> {
    let (started, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        let last = started.elapsed() >= deadline;
        let failure = match probe().map(Progress::value) {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => anyhow!("it is simply not so"),
            Err(error) => error,
        };
        if last {
            return Err(failure.context(format!("not within {deadline:?}: {what}")));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_the_first_probe_that_has_one_is_returned() {
        let mut left = 3;
        let found = eventually("three probes", Duration::from_secs(5), || {
            left -= 1;
            Ok((left == 0).then_some("here"))
        });
        assert_eq!(found.unwrap(), "here");
    }

    #[test]
    fn a_missed_deadline_names_the_condition_and_the_last_failure() {
        let error = eventually::<bool>("pigs fly", Duration::ZERO, || Err(anyhow!("no wings"))).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("pigs fly") && text.contains("no wings"), "{text}");
    }
}
