//! node.db behind a thread of its own: its commits are fsynced and must not hold up a database or a worker.
//!
//! Changes that somebody acts on are written at once; progress at most once a second per database.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vski_replication::node::{DatabaseState, NodeDb};

use self::queue::Queue;

/// What is to be written, from the board to the thread.
mod queue;

/// The shortest time between two writes of one database's progress.
const THROTTLE: Duration = Duration::from_secs(1);

/// The shortest time between two writes of the clock's skew, which nobody acts on by itself.
const CLOCK_THROTTLE: Duration = Duration::from_secs(10);

enum Message {
    Update { state: Box<DatabaseState>, at_once: bool },
    Forget(String),
    ClockSkew(i64),
    Upstream(String),
    Deleted(BTreeSet<String>),
    Flush(Sender<()>),
}

/// The writing end. Dropping it writes what is left and waits for that.
pub(crate) struct NodeWriter {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl NodeWriter {
    /// Takes over the writing of node.db.
    pub(crate) fn start(node: NodeDb) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let worker = Arc::clone(&queue);
        let thread =
            std::thread::Builder::new().name("node.db".to_owned()).spawn(move || Worker::new(node).run(&worker))?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Records how a database is doing; `at_once` where somebody acts on it.
    pub(crate) fn update(&self, state: DatabaseState, at_once: bool) {
        self.send(Message::Update { state: Box::new(state), at_once });
    }

    /// Forgets a database.
    pub(crate) fn forget(&self, db: &str) {
        self.send(Message::Forget(db.to_owned()));
    }

    /// Records how far this node's clock is ahead of the master's.
    pub(crate) fn clock_skew(&self, skew_ms: i64) {
        self.send(Message::ClockSkew(skew_ms));
    }

    /// Records which nodes are between this one and its master.
    pub(crate) fn upstream(&self, path: &str) {
        self.send(Message::Upstream(path.to_owned()));
    }

    /// Records which databases the master has deleted.
    pub(crate) fn deleted(&self, names: BTreeSet<String>) {
        self.send(Message::Deleted(names));
    }

    /// Returns once everything so far is written. Blocks for an fsync.
    pub(crate) fn flush(&self) {
        let (written, done) = mpsc::channel();
        self.send(Message::Flush(written));
        // An error: the thread has ended, and wrote what was left before.
        let _ = done.recv();
    }

    fn send(&self, message: Message) {
        self.queue.push(message);
    }
}

impl Drop for NodeWriter {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    node: NodeDb,
    /// The newest state of each database that is not written yet.
    pending: BTreeMap<String, DatabaseState>,
    /// When each database was last written.
    written: HashMap<String, Instant>,
    /// The newest skew, if it is not written yet.
    skew_ms: Option<i64>,
    /// The skew that was written last, and when.
    skew_written: Option<(Instant, i64)>,
    /// Whether the last write failed, as on a full volume: told when that begins and ends.
    failing: bool,
}

impl Worker {
    fn new(node: NodeDb) -> Self {
        Self {
            node,
            pending: BTreeMap::new(),
            written: HashMap::new(),
            skew_ms: None,
            skew_written: None,
            failing: false,
        }
    }

    fn run(mut self, queue: &Queue) {
        loop {
            // What is pending is not due before a while has passed, and nor is what replaces it.
            let (messages, open) = queue.take(THROTTLE, !self.pending.is_empty());
            messages.into_iter().for_each(|message| self.handle(message));
            if !open {
                return self.write_due(Duration::ZERO);
            }
            self.write_due(THROTTLE);
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Update { state, at_once } => {
                let db = state.name.clone();
                self.pending.insert(db.clone(), *state);
                if at_once {
                    self.write(&db);
                }
            }
            Message::Forget(db) => {
                self.pending.remove(&db);
                self.written.remove(&db);
                let done = self.node.forget_database(&db);
                self.report(&done, &db);
            }
            Message::ClockSkew(skew_ms) => self.skew_ms = Some(skew_ms),
            Message::Deleted(names) => {
                let done = self.node.set_deleted(&names);
                self.report(&done, "*");
            }
            Message::Upstream(path) => {
                let done = self.node.set_upstream(&path);
                self.report(&done, "*");
            }
            Message::Flush(written) => {
                self.write_due(Duration::ZERO);
                // Whoever asked may have gone.
                let _ = written.send(());
            }
        }
    }

    fn write_due(&mut self, throttle: Duration) {
        let due = |db: &&String| self.written.get(*db).is_none_or(|at| at.elapsed() >= throttle);
        let due: Vec<String> = self.pending.keys().filter(due).cloned().collect();
        due.iter().for_each(|db| self.write(db));
        let skew_due = self.skew_written.is_none_or(|(at, _)| throttle.is_zero() || at.elapsed() >= CLOCK_THROTTLE);
        if skew_due {
            self.write_skew();
        }
    }

    fn write_skew(&mut self) {
        let Some(skew_ms) = self.skew_ms.take() else { return };
        if self.skew_written.is_none_or(|(_, written)| written != skew_ms) {
            let done = self.node.set_clock_skew_ms(skew_ms);
            self.report(&done, "*");
            self.skew_written = Some((Instant::now(), skew_ms));
        }
    }

    /// A failed write is not repeated by itself: the next change of that database writes all of its row.
    fn write(&mut self, db: &str) {
        if let Some(state) = self.pending.remove(db) {
            let done = self.node.set_database(&state);
            self.report(&done, db);
            self.written.insert(db.to_owned(), Instant::now());
        }
    }

    /// Tells when writing begins to fail, and when it works again.
    fn report(&mut self, result: &rusqlite::Result<()>, db: &str) {
        match result {
            Err(error) if self.is_news(true) => {
                tracing::warn!(db, %error, "cannot write node.db: the server beside this agent sees an old state");
            }
            Ok(()) if self.is_news(false) => {
                tracing::info!("node.db is written again: the server beside this agent sees the state");
            }
            _ => {}
        }
    }

    fn is_news(&mut self, failing: bool) -> bool {
        std::mem::replace(&mut self.failing, failing) != failing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vski_replication::datadir::DataDir;

    #[test]
    fn what_is_throttled_is_written_when_asked_for() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let writer = NodeWriter::start(NodeDb::open(&dir).unwrap()).unwrap();
        let state = |at_head_ms| DatabaseState { at_head_ms: Some(at_head_ms), ..DatabaseState::new("a", "follow") };
        (0..100).for_each(|at_head_ms| writer.update(state(at_head_ms), false));
        (0..100).for_each(|skew_ms| writer.clock_skew(skew_ms));
        writer.flush();
        let written = NodeDb::read(&dir).unwrap().unwrap();
        assert_eq!(written.databases().unwrap(), [state(99)]);
        assert_eq!(written.clock_skew_ms().unwrap(), Some(99));
    }

    #[test]
    fn what_is_throttled_is_written_at_the_end() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let writer = NodeWriter::start(NodeDb::open(&dir).unwrap()).unwrap();
        let mut state = DatabaseState::new("a", "follow");
        for at_head_ms in 0..100 {
            state.at_head_ms = Some(at_head_ms);
            writer.update(state.clone(), at_head_ms == 0);
        }
        writer.update(DatabaseState::new("b", "follow"), false);
        writer.forget("b");
        drop(writer);
        assert_eq!(NodeDb::read(&dir).unwrap().unwrap().databases().unwrap(), [state]);
    }

    #[test]
    fn only_the_first_failure_and_the_first_success_after_it_are_news() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let mut worker = Worker::new(NodeDb::open(&dir).unwrap());
        let news = [false, true, true, false, false, true].map(|failing| worker.is_news(failing));
        assert_eq!(news, [false, true, false, true, false, true]);
    }
}
