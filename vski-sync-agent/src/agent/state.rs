//! What a database is doing, what may happen to it, and all transitions.

/// What a database is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is no local copy: fetch a snapshot.
    Bootstrap,
    /// There may be entries after the local head: ask without waiting.
    CatchUp,
    /// The local log does not lead to the master's head: compare, and make it equal in place.
    Converge,
    /// The file is damaged or a stranger's: put it aside.
    SetAside,
    /// At the head when last asked, or ahead of the replica that was asked: wait until it is time to ask again.
    Follow,
    /// Trying again would not help: wait until something changes.
    Stopped,
}

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Installed,
    Behind,
    AtHead,
    ParentBehind,
    Due,
    Retry,
    Diverged,
    Damaged,
    Stop,
}

/// What a database does after that.
pub(super) fn next(state: State, event: Event, copy_exists: impl FnOnce() -> bool) -> State {
    match (state, event) {
        (_, Event::Stop) => State::Stopped,
        (_, Event::Diverged) => State::Converge,
        (_, Event::Damaged) => State::SetAside,
        (State::Bootstrap, Event::Installed) => State::CatchUp,
        (_, Event::AtHead | Event::ParentBehind) => State::Follow,
        (State::Follow, Event::Due) | (_, Event::Behind) => State::CatchUp,
        (_, Event::Retry | Event::Due | Event::Installed) => {
            if copy_exists() {
                State::CatchUp
            } else {
                State::Bootstrap
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_bootstrapped_caught_up_and_followed() {
        assert_eq!(next(State::Bootstrap, Event::Installed, || true), State::CatchUp);
        assert_eq!(next(State::CatchUp, Event::Behind, || true), State::CatchUp);
        assert_eq!(next(State::CatchUp, Event::AtHead, || true), State::Follow);
        assert_eq!(next(State::Follow, Event::Due, || true), State::CatchUp);
        assert_eq!(next(State::Follow, Event::Behind, || true), State::CatchUp);
        assert_eq!(next(State::Follow, Event::AtHead, || true), State::Follow);
        assert_eq!(next(State::CatchUp, Event::ParentBehind, || true), State::Follow);
    }

    #[test]
    fn a_parted_history_converges_and_a_damaged_file_is_put_aside_from_anywhere() {
        for state in [State::Bootstrap, State::CatchUp, State::Follow, State::Stopped, State::Converge] {
            assert_eq!(next(state, Event::Diverged, || true), State::Converge);
            assert_eq!(next(state, Event::Damaged, || true), State::SetAside);
        }
        assert_eq!(next(State::Converge, Event::Installed, || true), State::CatchUp);
        assert_eq!(next(State::SetAside, Event::Installed, || false), State::Bootstrap);
    }

    #[test]
    fn a_stop_is_left_only_to_look_again() {
        for state in [State::Bootstrap, State::CatchUp, State::Follow, State::Stopped] {
            assert_eq!(next(state, Event::Stop, || true), State::Stopped);
        }
        assert_eq!(next(State::Stopped, Event::Due, || true), State::CatchUp);
        assert_eq!(next(State::Stopped, Event::Due, || false), State::Bootstrap);
        assert_eq!(next(State::Stopped, Event::Diverged, || true), State::Converge);
    }

    #[test]
    fn a_retry_begins_with_what_is_on_the_disk() {
        for state in [State::Bootstrap, State::CatchUp, State::Follow] {
            assert_eq!(next(state, Event::Retry, || true), State::CatchUp);
            assert_eq!(next(state, Event::Retry, || false), State::Bootstrap);
        }
    }
}
