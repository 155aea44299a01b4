//! Work for SQLite and the disk, off the asynchronous workers, but for what is short where the runtime has little else to do.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Runs `work` on a blocking thread. A panic in it goes on in the caller, whose supervisor restarts the database.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down and never started it: nobody waits for the answer any more.
            Err(_) => std::future::pending().await,
        },
    }
}

/// How long a database has the runtime's own thread to itself after it has worked there.
const KEPT: Duration = Duration::from_secs(1);

/// The right to work on the runtime's own thread: going to another one and back costs more CPU than a short transaction. One
/// database has it at a time, so that no other waits for its disk, and answers to probes wait for one transaction at most.
#[derive(Default)]
pub(crate) struct OwnThread(Mutex<Option<(String, Instant)>>);

impl OwnThread {
    /// Whether `db` may work there now: no other database has lately.
    pub(crate) fn take(&self, db: &str) -> bool {
        self.take_at(Instant::now(), db)
    }

    fn take_at(&self, now: Instant, db: &str) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_anothers = |(owner, at): &(String, Instant)| owner != db && now.duration_since(*at) < KEPT;
        if kept.as_ref().is_some_and(is_anothers) {
            return false;
        }
        match &mut *kept {
            Some((owner, at)) if owner == db => *at = now,
            kept => *kept = Some((db.to_owned(), now)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_database_has_the_runtimes_thread_until_it_has_not_worked_there_for_a_while() {
        let (own, start) = (OwnThread::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(own.take_at(at(0), "a") && own.take_at(at(900), "a"));
        assert!(!own.take_at(at(1800), "b"), "a worked there 0.9 s ago");
        assert!(own.take_at(at(1900), "b"));
        assert!(!own.take_at(at(1901), "a"));
    }
}
