//! How every database is doing: one place that the tasks write, and that reports, node.db and metrics follow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use vski_replication::clock;
use vski_replication::node::{DatabaseState, LastError};
use vski_replication::position::Position;

use crate::error::ErrorKind;
use crate::files::Progress;
use crate::metrics::AgentMetrics;
use crate::node_writer::NodeWriter;

/// The states of all databases.
pub(crate) struct Board {
    states: Mutex<BTreeMap<String, DatabaseState>>,
    /// `None` once closed.
    writer: Mutex<Option<NodeWriter>>,
    /// What node.db says is between this node and its master.
    upstream: Mutex<String>,
    /// Where each copy stood when rows of uploaded files were last changed, as far as can be told.
    file_rows: Mutex<BTreeMap<String, Position>>,
    /// Wakes whoever waits for other rows of uploaded files.
    moved: watch::Sender<()>,
    /// How far the uploaded files of each database are.
    files: watch::Sender<BTreeMap<String, Progress>>,
    /// Why uploaded files of a database are missing, as long as they are.
    file_troubles: Mutex<BTreeMap<String, String>>,
    /// Databases whose files are to be compared with their rows at once.
    rechecks: Mutex<BTreeSet<String>>,
    /// The agent's metrics.
    pub(crate) metrics: AgentMetrics,
}

impl Board {
    /// An empty board. What was between this node and its master before is not known to be so any more.
    pub(crate) fn new(writer: NodeWriter, metrics: AgentMetrics) -> Self {
        writer.upstream("");
        let (states, upstream) = (Mutex::default(), Mutex::default());
        let (moved, files) = (watch::Sender::new(()), watch::Sender::default());
        let (file_rows, file_troubles, rechecks) = (Mutex::default(), Mutex::default(), Mutex::default());
        let writer = Mutex::new(Some(writer));
        Self { states, writer, upstream, file_rows, moved, files, file_troubles, rechecks, metrics }
    }

    /// Adds a database unless it is there.
    pub(crate) fn register(&self, state: DatabaseState) {
        let mut states = lock(&self.states);
        if !states.contains_key(&state.name) {
            self.publish(&state, true);
            if let Some(position) = state.position {
                lock(&self.file_rows).insert(state.name.clone(), position);
            }
            states.insert(state.name.clone(), state);
        }
    }

    /// Changes what is known of a database. What somebody acts on reaches node.db at once.
    pub(crate) fn update(&self, db: &str, change: impl FnOnce(&mut DatabaseState)) {
        self.change(db, true, change);
    }

    /// Entries were applied up to `position`; `file_rows`: some of them may have changed rows of uploaded files.
    pub(crate) fn applied(&self, db: &str, position: Position, file_rows: bool) {
        self.change(db, file_rows, |state| state.position = Some(position));
    }

    fn change(&self, db: &str, file_rows: bool, change: impl FnOnce(&mut DatabaseState)) {
        let mut states = lock(&self.states);
        let Some(state) = states.get_mut(db) else { return };
        let before = state.clone();
        change(state);
        if state.detail.is_none() {
            // A database that does well is not well while its files are missing.
            state.detail = lock(&self.file_troubles).get(db).cloned();
        }
        if *state != before {
            let at_once = (&state.state, &state.detail, state.bootstrapped)
                != (&before.state, &before.detail, before.bootstrapped);
            self.publish(state, at_once);
            if file_rows && state.position != before.position {
                match state.position {
                    Some(position) => drop(lock(&self.file_rows).insert(db.to_owned(), position)),
                    None => drop(lock(&self.file_rows).remove(db)),
                }
                self.moved.send_replace(());
            }
        }
    }

    /// Where a copy stood when rows of uploaded files were last changed; `None` where there is no copy.
    pub(crate) fn file_rows(&self, db: &str) -> Option<Position> {
        lock(&self.file_rows).get(db).copied()
    }

    /// Wakes when rows of any database's uploaded files may have changed, or a whole copy came.
    pub(crate) fn moved(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// How far the uploaded files of a database are.
    pub(crate) fn files(&self, db: &str, progress: Progress) {
        self.metrics.files_waiting(db, progress.waiting);
        self.update(db, |state| state.files_waiting = state.position.map(|_| progress.waiting));
        self.files_are(db, progress);
    }

    /// The same, for those who wait for it only.
    fn files_are(&self, db: &str, progress: Progress) {
        self.files.send_modify(|files| drop(files.insert(db.to_owned(), progress)));
    }

    /// Waits until all uploaded files that the rows name are here, or an attempt failed: why. Of one database, or of all.
    pub(crate) async fn files_settled(&self, only: Option<&str>) -> Option<String> {
        let mut files = self.files.subscribe();
        loop {
            let open = |(name, position): (String, Option<Position>), files: &BTreeMap<String, Progress>| {
                let progress = files.get(&name).cloned().unwrap_or_default();
                position.is_some()
                    && progress.error.is_none()
                    && (progress.position != self.file_rows(&name) || progress.waiting > 0)
            };
            let asked = |name: &str| only.is_none_or(|only| only == name);
            let states = self.states().into_iter().filter(|state| asked(&state.name));
            let states: Vec<_> = states.map(|state| (state.name, state.position)).collect();
            let settled = {
                let known = files.borrow_and_update();
                let settled = !states.into_iter().any(|state| open(state, &known));
                let mut known = known.iter().filter(|(name, _)| asked(name));
                settled.then(|| known.find_map(|(_, progress)| progress.error.clone()))
            };
            match settled {
                Some(error) => return error,
                None => drop(files.changed().await),
            }
        }
    }

    /// An uploaded file could not be fetched: the database itself is followed all the same.
    pub(crate) fn file_failed(&self, db: &str, kind: ErrorKind, text: &str) {
        self.metrics.failed(db, kind);
        let (name, remedy) = (kind.name().to_owned(), kind.remedy().to_owned());
        let error = LastError { name, text: text.to_owned(), remedy, at_ms: clock::now_ms() };
        let before = lock(&self.file_troubles).insert(db.to_owned(), text.to_owned());
        self.update(db, |state| {
            state.last_error = Some(error);
            state.detail.take_if(|detail| before.as_ref() == Some(detail));
        });
    }

    /// No uploaded file is missing for a reason worth telling any more.
    pub(crate) fn files_well(&self, db: &str) {
        // The lock is let go first: an update takes it.
        let before = lock(&self.file_troubles).remove(db);
        if let Some(before) = before {
            self.update(db, |state| drop(state.detail.take_if(|detail| *detail == before)));
        }
    }

    /// Has all files of a database compared with its rows, and fetched where they are missing.
    pub(crate) fn recheck_files(&self, db: &str) {
        lock(&self.rechecks).insert(db.to_owned());
        self.files_are(db, Progress { position: None, waiting: 1, error: None });
        self.moved.send_replace(());
    }

    /// Whether that is asked for; `take`: and is begun now.
    pub(crate) fn is_recheck_asked(&self, db: &str, take: bool) -> bool {
        let mut rechecks = lock(&self.rechecks);
        if take { rechecks.remove(db) } else { rechecks.contains(db) }
    }

    /// A database's agent met an error: counts it, and tells state, error and remedy.
    pub(crate) fn failed(&self, db: &str, kind: ErrorKind, text: &str) {
        self.metrics.failed(db, kind);
        let (name, remedy) = (kind.name().to_owned(), kind.remedy().to_owned());
        let error = LastError { name, text: text.to_owned(), remedy, at_ms: clock::now_ms() };
        self.update(db, |state| {
            (state.state, state.detail) = (kind.state().to_owned(), Some(text.to_owned()));
            state.last_error = Some(error);
        });
    }

    /// How far this node's clock is ahead of the master's.
    pub(crate) fn clock_skew(&self, skew_ms: i64) {
        self.metrics.clock_skew(skew_ms);
        if let Some(writer) = &*lock(&self.writer) {
            writer.clock_skew(skew_ms);
        }
    }

    /// The nodes between this one and its master.
    pub(crate) fn upstream(&self, path: &str) {
        let mut known = lock(&self.upstream);
        if *known != path {
            path.clone_into(&mut known);
            if let Some(writer) = &*lock(&self.writer) {
                writer.upstream(path);
            }
        }
    }

    /// The databases that the master has deleted.
    pub(crate) fn deleted(&self, names: &BTreeSet<String>) {
        if let Some(writer) = &*lock(&self.writer) {
            writer.deleted(names.clone());
        }
    }

    /// Removes a database that is not this node's business.
    pub(crate) fn forget(&self, db: &str) {
        lock(&self.states).remove(db);
        lock(&self.file_rows).remove(db);
        lock(&self.file_troubles).remove(db);
        self.metrics.forget(db);
        if let Some(writer) = &*lock(&self.writer) {
            writer.forget(db);
        }
    }

    /// All databases, by name.
    pub(crate) fn states(&self) -> Vec<DatabaseState> {
        lock(&self.states).values().cloned().collect()
    }

    /// Writes what node.db does not have yet. Blocks for an fsync.
    pub(crate) fn flush(&self) {
        if let Some(writer) = &*lock(&self.writer) {
            writer.flush();
        }
    }

    /// Writes what node.db does not have yet, and closes it. Blocks for an fsync.
    pub(crate) fn close(&self) {
        drop(lock(&self.writer).take());
    }

    /// Called with the states locked, so that node.db sees the changes of a database in order.
    fn publish(&self, state: &DatabaseState, at_once: bool) {
        self.metrics.observe(state);
        if let Some(writer) = &*lock(&self.writer) {
            writer.update(state.clone(), at_once);
        }
    }
}

/// What is behind these locks is whole after each statement, so a panic elsewhere does not make it unusable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
