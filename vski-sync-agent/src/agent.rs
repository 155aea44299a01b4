//! One database: the state machine that brings it to the master's head and keeps it there.
//!
//! `Bootstrap -> CatchUp -> Follow`, `Converge` when the log no longer leads there, and `Stopped` from anywhere. A step does one thing and says what happened; all
//! transitions are in `state`. Trying again after an error is not a state: the step is repeated after a pause.
//! Invariant: nothing a master sends is applied before `crate::lineage` accepted that very answer and
//! `crate::verify` all of its bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vski_replication::changelog::Retention;
use vski_replication::datadir::DataDir;
use vski_replication::position::Position;

use crate::apply::LocalCopy;
use crate::backoff::{Backoff, Complaints};
use crate::blocking::OwnThread;
use crate::board::Board;
use crate::config::Schedule;
use crate::error::{self, AgentError, ErrorKind, Recovery};
use crate::round::{Answered, Ask, Inbox, Outcome, Verified, Waiting};
use crate::source::{Listed, Source};
use crate::{blocking, bootstrap};

mod ahead;
mod compare;
mod compare_files;
mod follow;
mod relayed;
mod repair;
mod state;

use ahead::Ahead;
use repair::Repeats;
use state::{Event, State, next};

/// How long a streaming replica lets the master wait for news: short, so that an idle one still knows that it is at
/// the head.
const STREAM_WAIT: Duration = Duration::from_secs(2);

/// How often a database that the master's word has stopped is looked at again, unless an interval is set.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What all databases of a node share.
pub(crate) struct Context {
    pub(crate) source: Source,
    pub(crate) dir: DataDir,
    pub(crate) board: Board,
    pub(crate) schedule: Schedule,
    pub(crate) retention: Retention,
    /// How long an uploaded file stays that no row names any more.
    pub(crate) file_grace: Duration,
    /// Where the runtime is there for the agent alone: who may apply what is short on its thread.
    pub(crate) own_thread: Option<OwnThread>,
}

/// What the master's latest list says of a database.
#[derive(Clone, Debug)]
pub(crate) enum Listing {
    /// No list came yet.
    Unknown,
    /// It is there.
    Present(Listed),
    /// It is not.
    Missing,
}

/// One database's task.
pub(crate) struct Agent {
    db: String,
    context: Arc<Context>,
    /// Ends this task.
    shutdown: CancellationToken,
    inbox: Arc<Inbox>,
    listing: watch::Receiver<Listing>,
    state: State,
    /// Open from the first step with a file on, but for the time of a blocking call.
    copy: Option<LocalCopy>,
    /// What follows the batch that is being applied, asked for while it is.
    ahead: Option<Ahead>,
    /// When the local log was last looked at for entries that are too old.
    pruned: Option<Instant>,
    /// Whether the last batch of the open copy took but a moment.
    was_short: bool,
    /// Requests that the step under way will answer.
    answering: Vec<Waiting>,
    /// The stop that was logged last, and whether the master's word alone may end it.
    stop: Option<(ErrorKind, bool)>,
    backoff: Backoff,
    complaints: Complaints,
    /// How often it has converged lately.
    repeats: Repeats,
    /// Where the node at MASTER_URL stood when it last answered, whether it is a master or not.
    source_head: Option<Position>,
    /// Where this copy stands, and since when as far as this task knows.
    stands: Option<(Position, Instant)>,
    /// The comparison that the requests under way asked for.
    verified: Option<Verified>,
    /// What a test makes the next step fail with.
    #[cfg(test)]
    fault: Option<AgentError>,
}

impl Agent {
    pub(crate) fn new(
        db: &str,
        context: Arc<Context>,
        shutdown: CancellationToken,
        inbox: Arc<Inbox>,
        listing: watch::Receiver<Listing>,
    ) -> Self {
        let state = if context.dir.database(db).exists() { State::CatchUp } else { State::Bootstrap };
        Self {
            db: db.to_owned(),
            context,
            shutdown,
            inbox,
            listing,
            state,
            copy: None,
            ahead: None,
            pruned: None,
            was_short: false,
            answering: Vec::new(),
            stop: None,
            backoff: Backoff::default(),
            complaints: Complaints::default(),
            repeats: Repeats::default(),
            source_head: None,
            stands: None,
            verified: None,
            #[cfg(test)]
            fault: None,
        }
    }

    /// Steps until it is told to end. A transaction under way is finished first.
    pub(crate) async fn run(mut self) {
        while !self.shutdown.is_cancelled() {
            self.turn().await;
        }
        let copy = self.copy.take();
        blocking::run(move || drop(copy)).await;
    }

    /// One step, what follows from its error if it had one, and the transition.
    async fn turn(&mut self) {
        let event = match self.step().await {
            Ok(event) => event,
            Err(error) => self.failed(&error).await,
        };
        self.state = next(self.state, event, || self.context.dir.database(&self.db).exists());
    }

    async fn step(&mut self) -> Result<Event, AgentError> {
        #[cfg(test)]
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        match (self.state, self.context.schedule) {
            (State::Bootstrap, _) => self.bootstrap().await,
            (State::CatchUp, _) => self.ask(Duration::ZERO).await,
            (State::Converge, _) => self.converge().await,
            (State::SetAside, _) => self.set_aside().await,
            (State::Follow, Schedule::Stream) => self.ask(STREAM_WAIT).await,
            (State::Follow, schedule) => Ok(self.until_due(schedule).await),
            (State::Stopped, schedule) => Ok(self.until_looked_at(schedule).await),
        }
    }

    async fn bootstrap(&mut self) -> Result<Event, AgentError> {
        self.answering.append(&mut self.inbox.take());
        self.check_listed()?;
        let Context { source, dir, board, .. } = &*self.context;
        board.update(&self.db, |state| "bootstrap".clone_into(&mut state.state));
        select! {
            () = self.shutdown.cancelled() => Ok(Event::Retry),
            done = bootstrap::run(source, dir, &self.db, &board.metrics) => done.map(|()| Event::Installed),
        }
    }

    /// Looks at the master's latest list, for whether this database is in it and nothing else: the position in it may be
    /// older than this copy's. Whose history may be followed, the answer to the copy's own position tells.
    fn check_listed(&mut self) -> Result<(), AgentError> {
        // A file that the master does not list is none of its databases, whatever is in it.
        if matches!(&*self.listing.borrow_and_update(), Listing::Missing) {
            return Err(AgentError::MissingOnMaster);
        }
        Ok(())
    }

    /// At the head: waits for the interval, a request, or a list that shows something else.
    async fn until_due(&mut self, schedule: Schedule) -> Event {
        let pause = match schedule {
            Schedule::Every(pause) => Some(pause),
            Schedule::Manual | Schedule::Stream => None,
        };
        let timer = sleep(pause);
        tokio::pin!(timer);
        loop {
            select! {
                () = self.shutdown.cancelled() => return Event::Due,
                () = self.inbox.arrived() => return Event::Due,
                () = &mut timer => return Event::Due,
                Ok(()) = self.listing.changed() => {
                    if self.listing_differs() {
                        return Event::Due;
                    }
                }
            }
        }
    }

    fn listing_differs(&self) -> bool {
        let here = self.copy.as_ref().map(|copy| (copy.database_id(), copy.position()));
        match &*self.listing.borrow() {
            Listing::Unknown => false,
            Listing::Present(listed) => here != Some((listed.database_id, listed.head())),
            Listing::Missing => true,
        }
    }

    /// Stopped: waits for a request, and for another word of the master if its word is the reason.
    async fn until_looked_at(&mut self, schedule: Schedule) -> Event {
        let masters_word = self.stop.is_some_and(|(_, masters_word)| masters_word);
        let pause = if let Schedule::Every(interval) = schedule { interval } else { LOOK_AGAIN };
        select! {
            () = self.shutdown.cancelled() => {}
            () = self.inbox.arrived() => {}
            () = sleep(masters_word.then_some(pause)) => {}
            Ok(()) = self.listing.changed(), if masters_word => {}
        }
        // The log up to here led to a snapshot that was refused: that is what has to be asked for again.
        let refused = self.stop.is_some_and(|(kind, _)| kind == ErrorKind::SnapshotUnsafe);
        if refused && self.context.dir.database(&self.db).exists() { Event::Diverged } else { Event::Due }
    }

    /// Logs, records and answers a failure; waits if the step is to be tried again.
    async fn failed(&mut self, error: &AgentError) -> Event {
        let (kind, detail) = (error.kind(), error::chain(error));
        self.ahead = None;
        self.context.board.failed(&self.db, kind, &detail);
        match kind.recovery() {
            Recovery::Retry => return self.retry(error, detail).await,
            Recovery::Converge => return self.diverged(error, detail).await,
            Recovery::Stop if self.may_set_aside(error) => return self.damaged(&detail),
            Recovery::Stop => {}
        }
        if self.stop.is_none_or(|(before, _)| before != kind) {
            self.log_stop(error, &detail);
        }
        self.stop = Some((kind, error.is_the_masters_word()));
        self.answer(&Outcome::Stopped(format!("{}: {}: {detail}", self.db, kind.state())));
        Event::Stop
    }

    async fn retry(&mut self, error: &AgentError, detail: String) -> Event {
        let asked = if let AgentError::Source(error) = error { error.retry_after() } else { None };
        if asked.is_none() && !matches!(error, AgentError::Source(_)) {
            // Opened anew, in case what is in memory is the reason.
            self.copy = None;
        }
        let pause = self.backoff.next(asked);
        if self.complaints.worth_logging(&detail, Instant::now()) {
            let (db, error_name, remedy) = (self.db.as_str(), error.name(), error.remedy());
            tracing::error!(db, error_name, error = detail, remedy, retry_in = ?pause, "sync failed");
        }
        self.answer(&Outcome::Failed(format!("{}: {detail}", self.db)));
        select! {
            () = self.shutdown.cancelled() => {}
            () = self.inbox.arrived() => {}
            () = tokio::time::sleep(pause) => {}
        }
        Event::Retry
    }

    fn log_stop(&self, error: &AgentError, detail: &str) {
        let (db, state, error_name, remedy) = (self.db.as_str(), error.state_name(), error.name(), error.remedy());
        self.log_schema(error);
        if matches!(error, AgentError::MissingOnMaster) {
            tracing::warn!(
                db,
                state,
                error_name,
                remedy,
                "the master does not list this database any more, its copy stays"
            );
        } else {
            tracing::error!(db, state, error_name, error = detail, remedy, "sync stopped");
        }
    }

    fn publish(&self, change: impl FnOnce(&mut vski_replication::node::DatabaseState)) {
        self.context.board.update(&self.db, change);
    }

    fn answer(&mut self, outcome: &Outcome) {
        for waiting in self.answering.drain(..) {
            let verified = if waiting.ask == Ask::Sync { None } else { self.verified.clone() };
            // Whoever asked may have gone.
            let _ = waiting.reply.send(Answered { outcome: outcome.clone(), verified });
        }
        self.verified = None;
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod fault_tests;
