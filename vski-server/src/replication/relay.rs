//! What a replica that serves others passes on: the master's head as its agent knows it and since when, how far its own
//! copy is behind that, and which nodes are in between. Ages instead of times, because only one clock may be asked.

use axum::http::{HeaderMap, HeaderValue};
use vski_replication::clock;
use vski_replication::names::header;
use vski_replication::node::DatabaseState;
use vski_replication::position::Position;

use crate::app::{App, Databases};
use crate::store::error::StoreError;

/// One database, by the account of the agent beside this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The master's head, and how long ago it was known to be that, ms.
    head: Option<(Position, i64)>,
    /// How long ago this copy was known to hold the master's head, ms.
    lag_ms: Option<i64>,
    state: String,
}

impl Relay {
    /// Of one database; `None` on a master, which speaks for itself. Read it **before** the log: the log then holds at
    /// least what is said of it here.
    pub fn of(app: &App, db: &str) -> Result<Option<Self>, StoreError> {
        let Databases::Replica(replica) = &app.databases else { return Ok(None) };
        let states = replica.states()?;
        let state = states.iter().find(|state| state.name == db);
        Ok(Some(state.map_or_else(Self::unknown, |state| Self::from_state(state, clock::now_ms()))))
    }

    fn unknown() -> Self {
        Self { head: None, lag_ms: None, state: "unknown".to_owned() }
    }

    fn from_state(state: &DatabaseState, now_ms: i64) -> Self {
        // A time to come, after the clock was set back, says nothing of what is newer than what.
        let age_ms = state.head_ms.map(|at_ms| now_ms - at_ms).filter(|age_ms| *age_ms >= 0);
        Self {
            head: state.head.zip(age_ms),
            lag_ms: state.at_head_ms.map(|at_ms| (now_ms - at_ms).max(0)),
            state: state.state.clone(),
        }
    }

    /// Whether a caller that stands at `peer`, where this node's log stands at `head`, is to wait for this node: it is
    /// further, and has not stood there for so long (`held_ms`) that the master was asked since and is behind it too.
    pub fn asks_to_wait(&self, peer: Position, head: Position, held_ms: i64) -> bool {
        is_ahead(peer, head) && !self.head.is_some_and(|(known, age_ms)| age_ms < held_ms && is_ahead(peer, known))
    }

    /// Adds what is passed on to an answer.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let mut set = |name: &'static str, value: String| {
            // Numbers, hex digits and words, unless somebody else has written node.db: then it is left out.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        };
        if let Some((head, age_ms)) = self.head {
            set(header::MASTER_HEAD, head.to_string());
            set(header::MASTER_HEAD_AGE, age_ms.to_string());
        }
        if let Some(lag_ms) = self.lag_ms {
            set(header::LAG, lag_ms.to_string());
        }
        set(header::STATE, self.state.clone());
    }
}

/// Whether `peer` has entries that a log ending at `head` lacks, if both are of one history.
pub fn is_ahead(peer: Position, head: Position) -> bool {
    peer.epoch.generation > head.epoch.generation || (peer.epoch == head.epoch && peer.version > head.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vski_replication::position::{Chain, Epoch, EpochId};

    fn at(generation: u64, version: u64) -> Position {
        let epoch = Epoch { generation, id: EpochId([u8::try_from(generation).unwrap(); 8]) };
        Position { epoch, version, chain: Chain([0; 32]) }
    }

    fn relay(head: Option<(Position, i64)>) -> Relay {
        Relay { head, ..Relay::unknown() }
    }

    #[test]
    fn a_caller_that_is_further_waits_until_the_master_was_asked_since_and_is_behind_it_too() {
        let (peer, here) = (at(2, 9), at(2, 5));
        for (known, waits) in [
            // Nothing is known of the master, or nothing since the caller came to where it is.
            (None, true),
            (Some((at(2, 5), 1_000)), true),
            (Some((at(2, 5), 999)), false),
            (Some((at(1, 50), 0)), false),
            // The master has what the caller has, or has begun a new generation.
            (Some((at(2, 9), 0)), true),
            (Some((at(3, 6), 0)), true),
        ] {
            assert_eq!(relay(known).asks_to_wait(peer, here, 1_000), waits, "{known:?}");
        }
    }

    #[test]
    fn only_a_caller_that_is_further_waits() {
        for (peer, here, waits) in [
            (at(2, 5), at(2, 5), false),
            (at(2, 4), at(2, 5), false),
            (at(1, 9), at(2, 5), false),
            (at(2, 3), at(1, 5), true),
        ] {
            assert_eq!(relay(None).asks_to_wait(peer, here, 0), waits, "{peer} {here}");
        }
        let other = Epoch { generation: 2, id: EpochId([7; 8]) };
        let split = Position { epoch: other, ..at(2, 9) };
        assert!(!relay(None).asks_to_wait(split, at(2, 5), 0), "two masters of one generation: no waiting helps");
    }

    #[test]
    fn ages_are_told_and_what_is_not_known_is_not() {
        let mut state = DatabaseState::new("default", "retrying");
        (state.head, state.head_ms, state.at_head_ms) = (Some(at(1, 7)), Some(4_000), Some(6_500));
        let mut headers = HeaderMap::new();
        Relay::from_state(&state, 5_000).tell(&mut headers);
        assert_eq!(headers[header::MASTER_HEAD], at(1, 7).to_string());
        assert_eq!(headers[header::MASTER_HEAD_AGE], "1000");
        assert_eq!(headers[header::LAG], "0", "a clock that was set back");
        assert_eq!(headers[header::STATE], "retrying");
        let later = Relay::from_state(&state, 3_999);
        assert!(later.head.is_none() && later.asks_to_wait(at(1, 8), at(1, 7), i64::MAX));
        let mut headers = HeaderMap::new();
        Relay::unknown().tell(&mut headers);
        assert_eq!(headers.len(), 1);
    }
}
