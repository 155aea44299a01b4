//! Following a master through a replica in between: what is known of the master then, and waiting for a replica that is
//! behind this copy.

use std::time::{Duration, Instant};

use vski_replication::names::PARENT_BEHIND;
use vski_replication::node::DatabaseState;
use vski_replication::position::{DatabaseId, Position};

use super::{Agent, Event};
use crate::error::AgentError;
use crate::lineage;
use crate::round::Outcome;
use crate::source::{Answer, Changes};

/// What an answer tells of the master, by this node's clock.
pub(super) struct Seen {
    /// Its head.
    head: Position,
    /// When that was its head, ms since 1970; `None` where that is not known.
    head_ms: Option<i64>,
    /// When the log that answered was last known to have the master's head, likewise.
    pub(super) at_head_ms: Option<i64>,
    /// The state of the replica in between, where it is none of the good ones.
    trouble: Option<String>,
}

impl Seen {
    /// `wait`: how long the answer was allowed to take. A log that had nothing new all that time was at the head until
    /// the end of it.
    pub(super) fn of(answer: &Answer, wait: Duration) -> Self {
        let at_once = wait.is_zero() && !matches!(answer.changes, Changes::Entries(_));
        let moment_ms = if at_once { answer.asked_ms } else { answer.answered_ms };
        let Some(relay) = &answer.relay else {
            let (head, head_ms) = (answer.head, Some(answer.asked_ms));
            return Self { head, head_ms, at_head_ms: Some(moment_ms), trouble: None };
        };
        let further = relay.head.filter(|(head, _)| order(*head) > order(answer.head));
        let trouble = !matches!(relay.state.as_str(), "follow" | "catch_up" | "bootstrap");
        Self {
            head: further.map_or(answer.head, |(head, _)| head),
            head_ms: relay.head.map(|(_, age_ms)| answer.asked_ms - age_ms),
            at_head_ms: relay.lag_ms.map(|lag_ms| moment_ms - lag_ms),
            trouble: trouble.then(|| relay.state.clone()),
        }
    }

    /// Writes down the master's head, unless something newer is known from elsewhere.
    pub(super) fn note_head(&self, state: &mut DatabaseState) {
        if self.head_ms >= state.head_ms || state.head.is_none() {
            (state.head, state.head_ms) = (Some(self.head), self.head_ms);
        }
    }

    /// What to say of a copy that follows.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.as_ref().map(|state| format!("the replica at MASTER_URL is in state {state} itself"))
    }
}

impl Agent {
    /// For how long this copy is known to stand at `position`.
    pub(super) fn held(&mut self, position: Position) -> Duration {
        match self.stands {
            Some((at, since)) if at == position => since.elapsed(),
            _ => {
                self.stands = Some((position, Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Waits for the replica at MASTER_URL, which has not come to where this copy stands: nothing is undone.
    pub(super) fn wait_for_parent(
        &mut self,
        (database_id, position): (DatabaseId, Position),
        answer: &Answer,
    ) -> Result<Event, AgentError> {
        // Which generation it is in will show when it has caught up.
        lineage::check((database_id, position), (answer.database_id, position))?;
        let seen = Seen::of(answer, Duration::ZERO);
        let (parent, detail) = (answer.head, told(answer.head, position));
        let mut waited = false;
        self.publish(|state| {
            waited = state.state == PARENT_BEHIND;
            (state.state, state.detail) = (PARENT_BEHIND.to_owned(), Some(detail.clone()));
            seen.note_head(state);
            if seen.head == position {
                // The parent has it on the master's word that this copy lacks nothing.
                state.at_head_ms = state.at_head_ms.max(seen.head_ms);
            }
        });
        if !waited {
            tracing::warn!(db = self.db, %position, %parent, "the replica at MASTER_URL is behind this copy, which waits");
        }
        self.backoff.reset();
        self.complaints.clear();
        self.stop = None;
        self.answer(&Outcome::Failed(format!("{}: {PARENT_BEHIND}: {detail}", self.db)));
        Ok(Event::ParentBehind)
    }
}

fn told(parent: Position, here: Position) -> String {
    format!(
        "the replica at MASTER_URL is at version {} of generation {}, this copy at {} of {}",
        parent.version, parent.epoch.generation, here.version, here.epoch.generation
    )
}

/// Which of two positions of one lineage is the later one.
fn order(position: Position) -> (u64, u64) {
    (position.epoch.generation, position.version)
}

#[cfg(test)]
mod tests {
    use vski_replication::position::{Chain, Epoch, EpochId};

    use super::*;
    use crate::source::Relay;

    fn at(generation: u64, version: u64) -> Position {
        Position { epoch: Epoch { generation, id: EpochId([0; 8]) }, version, chain: Chain([0; 32]) }
    }

    /// Asked at 10 s and answered at 12 s by a log that ends at version 5.
    fn answer(relay: Option<Relay>, changes: Changes) -> Answer {
        let database_id = DatabaseId([1; 16]);
        Answer { database_id, head: at(1, 5), relay, asked_ms: 10_000, answered_ms: 12_000, changes, pulled: None }
    }

    fn relay(head: Option<(Position, i64)>, lag_ms: Option<i64>) -> Option<Relay> {
        Some(Relay { head, lag_ms, state: "follow".to_owned() })
    }

    #[test]
    fn a_master_speaks_for_itself() {
        let seen = Seen::of(&answer(None, Changes::AtHead), Duration::ZERO);
        assert_eq!((seen.head, seen.head_ms, seen.at_head_ms), (at(1, 5), Some(10_000), Some(10_000)));
        let waited = Seen::of(&answer(None, Changes::AtHead), Duration::from_secs(2));
        assert_eq!(waited.at_head_ms, Some(12_000), "nothing new came while it was waited for");
        let entries = Seen::of(&answer(None, Changes::Entries(Vec::new())), Duration::ZERO);
        assert_eq!(entries.at_head_ms, Some(12_000));
    }

    #[test]
    fn what_a_replica_passes_on_is_as_old_as_it_says() {
        let known = relay(Some((at(1, 9), 4_000)), Some(6_000));
        let seen = Seen::of(&answer(known, Changes::AtHead), Duration::ZERO);
        assert_eq!((seen.head, seen.head_ms, seen.at_head_ms), (at(1, 9), Some(6_000), Some(4_000)));
        // Its log may be further than what it wrote down of the master.
        let older = Seen::of(&answer(relay(Some((at(1, 3), 4_000)), None), Changes::AtHead), Duration::ZERO);
        assert_eq!((older.head, older.head_ms, older.at_head_ms), (at(1, 5), Some(6_000), None));
        let nothing = Seen::of(&answer(relay(None, None), Changes::AtHead), Duration::ZERO);
        assert_eq!((nothing.head, nothing.head_ms, nothing.at_head_ms), (at(1, 5), None, None));
    }

    #[test]
    fn older_knowledge_of_the_master_does_not_replace_newer() {
        let mut state = DatabaseState::new("default", "follow");
        for (head, age_ms, expected) in [
            (at(1, 9), 4_000, at(1, 9)),
            (at(1, 8), 4_001, at(1, 9)),
            // The master was asked since, and had lost its tail.
            (at(1, 7), 3_999, at(1, 7)),
            (at(2, 6), 3_998, at(2, 6)),
        ] {
            let known = relay(Some((head, age_ms)), None);
            Seen::of(&answer(known, Changes::AtHead), Duration::ZERO).note_head(&mut state);
            assert_eq!(state.head, Some(expected), "{head} {age_ms}");
        }
        state.position = Some(at(1, 5));
        assert_eq!(state.entries_behind(), Some(1));
    }
}
