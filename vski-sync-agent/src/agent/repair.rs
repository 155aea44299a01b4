//! What an agent does about a copy that cannot go on as it is: converge, or put a damaged file aside.

use std::time::{Duration, Instant};

use tokio::select;
use vski_replication::node::SET_ASIDE;
use vski_replication::schema::diff::MigrateError;

use super::{Agent, Event, Listing};
use crate::error::{AgentError, ErrorKind};
use crate::{blocking, converge, fs};

/// A copy that was equal this long is not converging again and again.
const CALM: Duration = Duration::from_secs(10 * 60);

/// The pause before the second converge in a row; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause before another converge.
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);

/// How often a server is looked at that has a damaged file open.
const RELEASE_POLL: Duration = Duration::from_millis(100);

/// How long a server may take to let go of a damaged file before that is an error.
const RELEASE_LIMIT: Duration = Duration::from_secs(60);

/// Converges in a row, without a calm time between.
#[derive(Default)]
pub(super) struct Repeats {
    count: u32,
    last: Option<Instant>,
}

impl Repeats {
    /// How many so far.
    #[cfg(test)]
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// How long to wait before the next one, which is counted.
    fn next(&mut self, now: Instant) -> Duration {
        if self.last.is_none_or(|last| now.duration_since(last) >= CALM) {
            self.count = 0;
        }
        self.count += 1;
        self.last = Some(now);
        match self.count {
            1 => Duration::ZERO,
            count => FIRST_PAUSE.saturating_mul(1 << (count - 2).min(16)).min(LONGEST_PAUSE),
        }
    }
}

impl Agent {
    /// Logs why the copy is not the master's any more, and waits if that happens again and again.
    pub(super) async fn diverged(&mut self, error: &AgentError, detail: String) -> Event {
        let pause = self.repeats.next(Instant::now());
        let (db, repeats) = (self.db.as_str(), self.repeats.count);
        self.log_schema(error);
        let (state, error_name, remedy) = (error.state_name(), error.name(), error.remedy());
        tracing::error!(db, state, error_name, error = detail, remedy, repeats, pause = ?pause, "the copy has diverged, it will converge");
        if !pause.is_zero() {
            let waiting = format!("{detail}; converged {} times in a row, again in {} s", repeats - 1, pause.as_secs());
            self.publish(|state| state.detail = Some(waiting));
            select! {
                () = self.shutdown.cancelled() => {}
                () = self.inbox.arrived() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Event::Diverged
    }

    /// Makes the copy equal to a snapshot of the master, in place.
    pub(super) async fn converge(&mut self) -> Result<Event, AgentError> {
        self.answering.append(&mut self.inbox.take());
        let copy = self.copy.take();
        blocking::run(move || drop(copy)).await;
        let (started, head) = (Instant::now(), self.source_head.map_or(0, |head| head.version));
        let report = select! {
            () = self.shutdown.cancelled() => return Ok(Event::Retry),
            report = converge::run(&self.context.source, &self.context.dir, &self.db, head) => report?,
        };
        self.context.board.metrics.converged(&self.db, report.fetched_bytes, report.lost.is_some());
        tracing::warn!(
            db = self.db,
            version = report.position.version,
            deleted = report.deleted,
            inserted = report.inserted,
            fetched_bytes = report.fetched_bytes,
            set_aside = ?report.kept,
            lost = report.lost.map(|path| path.display().to_string()),
            seconds = started.elapsed().as_secs_f64(),
            "the copy has converged with the master"
        );
        self.publish(|state| {
            (state.state, state.detail) = ("catch_up".to_owned(), None);
            state.position = Some(report.position);
        });
        Ok(Event::Installed)
    }

    /// Whether a damaged file may be replaced: only if the master has that database.
    pub(super) fn may_set_aside(&self, error: &AgentError) -> bool {
        matches!(error, AgentError::Malformed { .. }) && matches!(&*self.listing.borrow(), Listing::Present(_))
    }

    pub(super) fn damaged(&mut self, detail: &str) -> Event {
        tracing::error!(
            db = self.db,
            state = ErrorKind::MalformedFile.state(),
            error_name = ErrorKind::MalformedFile.name(),
            error = detail,
            remedy = ErrorKind::MalformedFile.remedy(),
            "the file is damaged or no VSKI database: it is set aside and fetched anew"
        );
        self.copy = None;
        Event::Damaged
    }

    /// Moves the database's files to `.vski/lost` once every server has let go of them.
    pub(super) async fn set_aside(&mut self) -> Result<Event, AgentError> {
        self.publish(|state| SET_ASIDE.clone_into(&mut state.state));
        let deadline = Instant::now() + RELEASE_LIMIT;
        let kept = loop {
            let (dir, db) = (self.context.dir.clone(), self.db.clone());
            match blocking::run(move || fs::set_aside(&dir, &db)).await {
                Err(AgentError::InUse) if Instant::now() < deadline => {}
                done => break done?,
            }
            select! {
                () = self.shutdown.cancelled() => return Ok(Event::Retry),
                () = tokio::time::sleep(RELEASE_POLL) => {}
            }
        };
        tracing::warn!(db = self.db, kept = %kept.display(), "the file was set aside");
        self.publish(|state| {
            state.state = "bootstrap".to_owned();
            (state.bootstrapped, state.position) = (false, None);
        });
        Ok(Event::Installed)
    }

    pub(super) fn log_schema(&self, error: &AgentError) {
        let (AgentError::Schema { source, .. } | AgentError::Unreachable { source, .. }) = error else { return };
        let (statement, reason) = match source {
            MigrateError::Statement { statement, source } => (statement.as_str(), source.to_string()),
            other => ("none", other.to_string()),
        };
        tracing::error!(db = self.db, statement, error = reason, "schema migration failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_converge_is_at_once_and_each_further_one_waits_longer() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let pauses: Vec<u64> = (0..4).map(|_| repeats.next(now).as_secs()).collect();
        assert_eq!(pauses, [0, 5, 10, 20]);
        (0..20).for_each(|_| assert!(repeats.next(now) <= LONGEST_PAUSE));
        assert_eq!(repeats.next(now + CALM), Duration::ZERO);
    }
}
