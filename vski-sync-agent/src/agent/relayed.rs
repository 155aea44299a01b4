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
