//! A queue that wakes its thread only for what cannot wait: waking it costs more than all else that a small entry leaves
//! to write down.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Message;

/// Messages in the order in which they came.
#[derive(Default)]
pub(super) struct Queue {
    queued: Mutex<Queued>,
    told: Condvar,
}

#[derive(Default)]
struct Queued {
    messages: VecDeque<Message>,
    /// Whether one of them cannot wait.
    urgent: bool,
    /// Whether the thread looks by itself before long.
    resting: bool,
    closed: bool,
}

impl Queue {
    /// Adds a message. Progress that follows older progress of the same kind takes its place.
    pub(super) fn push(&self, message: Message) {
        let mut queued = self.lock();
        let urgent = !is_progress(&message);
        match queued.messages.back_mut() {
            Some(last) if replaces(&message, last) => *last = message,
            _ => queued.messages.push_back(message),
        }
        queued.urgent |= urgent;
        if urgent || !queued.resting {
            self.told.notify_one();
        }
    }

    /// No message follows.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.told.notify_one();
    }

    /// What came, and whether more may come. Waits for it up to `patience`, where it is `resting` for all of it unless
    /// something urgent comes.
    pub(super) fn take(&self, patience: Duration, resting: bool) -> (VecDeque<Message>, bool) {
        let until = Instant::now() + patience;
        let mut queued = self.lock();
        queued.resting = resting;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let enough = queued.urgent || queued.closed || !(resting || queued.messages.is_empty());
            if enough || left.is_zero() {
                queued.urgent = false;
                return (std::mem::take(&mut queued.messages), !queued.closed);
            }
            queued = self.told.wait_timeout(queued, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Each change of what is behind the lock is whole.
    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_progress(message: &Message) -> bool {
    matches!(message, Message::Update { at_once: false, .. } | Message::ClockSkew(_))
}

fn replaces(message: &Message, last: &Message) -> bool {
    match (message, last) {
        (Message::Update { state, at_once: false }, Message::Update { state: last, at_once: false }) => {
            state.name == last.name
        }
        (Message::ClockSkew(_), Message::ClockSkew(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use vski_replication::node::DatabaseState;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn update(db: &str, at_once: bool) -> Message {
        Message::Update { state: Box::new(DatabaseState::new(db, "follow")), at_once }
    }

    #[test]
    fn progress_waits_for_a_thread_that_rests_and_takes_the_place_of_older_progress() {
        let queue = Queue::default();
        (0..100).for_each(|_| queue.push(update("a", false)));
        queue.push(update("b", false));
        let (messages, open) = queue.take(Duration::from_millis(1), true);
        assert_eq!((messages.len(), open), (2, true));
    }

    #[test]
    fn what_cannot_wait_is_taken_at_once_with_all_that_came_before() {
        let queue = Queue::default();
        queue.push(update("a", false));
        queue.push(update("a", true));
        queue.push(Message::Forget("b".to_owned()));
        let (messages, _) = queue.take(LONG, true);
        assert_eq!(messages.len(), 3);
        queue.push(Message::ClockSkew(1));
        assert_eq!(queue.take(LONG, false).0.len(), 1, "a thread that does not rest takes progress, too");
    }

    #[test]
    fn the_last_messages_come_with_the_end() {
        let queue = Queue::default();
        queue.push(update("a", false));
        queue.close();
        let (messages, open) = queue.take(LONG, true);
        assert_eq!((messages.len(), open), (1, false));
    }
}
