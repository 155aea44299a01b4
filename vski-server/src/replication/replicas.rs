//! The replicas that were heard of: their positions are kept in memory, and on a master written to node.db once a
//! second. A replica's node.db is the agent's to write, so a replica's server forgets its own replicas when it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vski_replication::changelog::Retention;
use vski_replication::clock;
use vski_replication::node::{NodeDb, ReplicaSeen};
use vski_replication::position::Position;

use super::verdict::{Counted, Counts};

/// Two processes under one id show by calling in turn within this time, ms.
const ALTERNATING_MS: i64 = 60_000;

/// How often what was heard is written down.
const FLUSH: Duration = Duration::from_secs(1);

/// Replicas by id and database; a replica that is not on this list is added when it calls.
pub struct Replicas {
    heard: Mutex<Heard>,
    /// `None` on a replica.
    node: Option<Mutex<NodeDb>>,
    /// What the logs keep.
    retention: Retention,
    /// A replica that was silent for this long is forgotten.
    forget_after: Duration,
    /// Bytes that each replica lacks, counted on at each look.
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Heard {
    seen: BTreeMap<(String, String), ReplicaSeen>,
    /// Keys that node.db does not know yet.
    dirty: BTreeSet<(String, String)>,
    /// By replica: the processes that call under its id.
    boots: BTreeMap<String, Boots>,
}

/// Two processes under one id take turns; a restart never goes back.
#[derive(Default)]
struct Boots {
    /// The process that called last, and since when.
    current: Option<(String, i64)>,
    /// The one before it.
    before: Option<String>,
    /// When one came back last, ms since 1970.
    alternated_ms: Option<i64>,
}

impl Boots {
    fn hear(&mut self, boot_id: &str, now_ms: i64) {
        if self.current.as_ref().is_some_and(|(current, _)| current == boot_id) {
            return;
        }
        let since_ms = self.current.as_ref().map(|(_, since_ms)| *since_ms);
        if self.before.as_deref() == Some(boot_id) && since_ms.is_some_and(|since| now_ms - since < ALTERNATING_MS) {
            self.alternated_ms = Some(now_ms);
        }
        self.before = self.current.replace((boot_id.to_owned(), now_ms)).map(|(before, _)| before);
    }

    fn alternate(&self, now_ms: i64) -> bool {
        self.alternated_ms.is_some_and(|at| now_ms - at < ALTERNATING_MS)
    }
}

/// Who called.
pub trait Calling {
    /// The replica's id.
    fn id(&self) -> &str;
    /// Its public address.
    fn public_url(&self) -> Option<&str>;
    /// Its process.
    fn boot_id(&self) -> Option<&str>;
    /// The version of its program.
    fn version(&self) -> Option<&str>;
}

impl Replicas {
    /// Starts from what node.db remembers.
    pub fn new(node: NodeDb, retention: Retention, forget_after: Duration) -> rusqlite::Result<Self> {
        let seen = node.replicas()?.into_iter().map(|seen| ((seen.replica.clone(), seen.db.clone()), seen)).collect();
        let heard = Mutex::new(Heard { seen, ..Heard::default() });
        Ok(Self { heard, node: Some(Mutex::new(node)), retention, forget_after, counts: Mutex::default() })
    }

    /// Starts with none, and keeps them in memory only.
    #[must_use]
    pub fn in_memory(retention: Retention, forget_after: Duration) -> Self {
        Self { heard: Mutex::default(), node: None, retention, forget_after, counts: Mutex::default() }
    }

    /// What the logs keep.
    #[must_use]
    pub fn retention(&self) -> Retention {
        self.retention
    }

    /// Everybody not forgotten, by id and database, and whether two processes use the id.
    #[must_use]
    pub fn seen(&self, now_ms: i64) -> Vec<(ReplicaSeen, bool)> {
        let (heard, oldest) = (lock(&self.heard), self.oldest_ms(now_ms));
        let duplicate = |id: &str| heard.boots.get(id).is_some_and(|boots| boots.alternate(now_ms));
        let seen = heard.seen.values().filter(|seen| seen.last_contact_ms >= oldest);
        seen.map(|seen| (seen.clone(), duplicate(&seen.replica))).collect()
    }

    /// What was counted for a replica's copy at this very position.
    pub(super) fn counted(&self, replica: &str, db: &str, position: Position) -> Option<Counted> {
        let key = (replica.to_owned(), db.to_owned());
        lock(&self.counts).get(&key).copied().filter(|counted| counted.from == position)
    }

    /// Keeps a count for the next look.
    pub(super) fn count(&self, replica: &str, db: &str, counted: Counted) {
        lock(&self.counts).insert((replica.to_owned(), db.to_owned()), counted);
    }

    fn oldest_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(i64::try_from(self.forget_after.as_millis()).unwrap_or(i64::MAX))
    }

    /// Drops those that were silent for too long. Whether there were any.
    fn forget(&self, oldest_ms: i64) -> bool {
        let mut guard = lock(&self.heard);
        let heard = &mut *guard;
        let before = heard.seen.len();
        heard.seen.retain(|_, seen| seen.last_contact_ms >= oldest_ms);
        let Heard { seen, boots, .. } = heard;
        let is_seen = |id: &String| {
            let next = seen.range((id.clone(), String::new())..).next();
            next.is_some_and(|((replica, _), _)| replica == id)
        };
        boots.retain(|id, _| is_seen(id));
        lock(&self.counts).retain(|key, _| seen.contains_key(key));
        seen.len() < before
    }

    /// Notes a replica's position: its own, whatever it was before.
    pub fn heard(&self, peer: &impl Calling, db: &str, position: Position) {
        let seen = ReplicaSeen {
            replica: peer.id().to_owned(),
            db: db.to_owned(),
            position,
            last_contact_ms: clock::now_ms(),
            public_url: peer.public_url().map(str::to_owned),
            boot_id: peer.boot_id().map(str::to_owned),
            version: peer.version().map(str::to_owned),
        };
        let key = (seen.replica.clone(), seen.db.clone());
        let mut heard = lock(&self.heard);
        if let Some(boot_id) = &seen.boot_id {
            heard.boots.entry(seen.replica.clone()).or_default().hear(boot_id, seen.last_contact_ms);
        }
        heard.dirty.insert(key.clone());
        heard.seen.insert(key, seen);
    }

    /// Writes down what was heard, every second until shutdown, and once more then.
    pub async fn keep(self: Arc<Self>, shutdown: CancellationToken) {
        let mut failing = Failing::default();
        loop {
            let ended = tokio::select! {
                () = tokio::time::sleep(FLUSH) => false,
                () = shutdown.cancelled() => true,
            };
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.flush()).await {
                Ok(written) => failing.tell(&written),
                Err(error) if error.is_panic() => {
                    tracing::error!(%error, "writing down the replicas' positions panicked");
                }
                // The process ends, and whoever asks next is heard anew.
                Err(_) => return,
            }
            if ended {
                return;
            }
        }
    }

    fn flush(&self) -> rusqlite::Result<()> {
        let oldest_ms = self.oldest_ms(clock::now_ms());
        let forgotten = self.forget(oldest_ms);
        let Some(node) = &self.node else { return Ok(()) };
        if forgotten {
            lock(node).forget_replicas(oldest_ms)?;
        }
        let (dirty, news) = {
            let mut heard = lock(&self.heard);
            let dirty = std::mem::take(&mut heard.dirty);
            let news: Vec<_> = dirty.iter().filter_map(|key| heard.seen.get(key).cloned()).collect();
            (dirty, news)
        };
        if news.is_empty() {
            return Ok(());
        }
        let written = lock(node).set_replicas(&news);
        if written.is_err() {
            lock(&self.heard).dirty.extend(dirty);
        }
        written
    }
}

/// Whether what was heard cannot be written down, as on a full volume: told when that begins and ends.
#[derive(Default)]
struct Failing(bool);

impl Failing {
    fn tell(&mut self, written: &rusqlite::Result<()>) {
        match written {
            Err(error) if self.is_news(true) => {
                tracing::warn!(%error, "could not write down the replicas' positions: they are kept in memory until that works");
            }
            Ok(()) if self.is_news(false) => tracing::info!("the replicas' positions are written down again"),
            _ => {}
        }
    }

    fn is_news(&mut self, failing: bool) -> bool {
        std::mem::replace(&mut self.0, failing) != failing
    }
}

/// What is behind these locks is whole after each statement.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use vski_replication::datadir::DataDir;
    use vski_replication::position::{Chain, Epoch, EpochId};

    use super::*;

    struct Caller(&'static str, &'static str);

    impl Calling for Caller {
        fn id(&self) -> &str {
            self.0
        }

        fn public_url(&self) -> Option<&str> {
            None
        }

        fn boot_id(&self) -> Option<&str> {
            Some(self.1)
        }

        fn version(&self) -> Option<&str> {
            Some("1.2.3")
        }
    }

    fn position() -> Position {
        Position { epoch: Epoch { generation: 1, id: EpochId([0; 8]) }, version: 1, chain: Chain([0; 32]) }
    }

    #[test]
    fn two_processes_that_take_turns_are_told_from_one_that_was_restarted() {
        for (calls, expected) in [
            (&[("a", 0), ("a", 1), ("b", 2), ("b", 3)][..], false),
            (&[("a", 0), ("b", 1), ("a", 2)][..], true),
            (&[("a", 0), ("b", 1), ("c", 2)][..], false),
            (&[("a", 0), ("b", 1), ("a", 90)][..], false),
        ] {
            let mut boots = Boots::default();
            calls.iter().for_each(|(id, second)| boots.hear(id, second * 1_000));
            assert_eq!(boots.alternate(91_000.min(calls[calls.len() - 1].1 * 1_000 + 1)), expected, "{calls:?}");
        }
        let mut boots = Boots::default();
        ["a", "b", "a"].iter().for_each(|id| boots.hear(id, 0));
        assert!(!boots.alternate(ALTERNATING_MS), "it stops being said once it stops");
    }

    #[test]
    fn who_was_silent_for_too_long_is_forgotten_in_memory_and_on_disk() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let retention = Retention { max_age: Duration::from_secs(1), max_bytes: 1 };
        let open = || Replicas::new(NodeDb::open(&dir).unwrap(), retention, Duration::from_secs(60)).unwrap();
        let replicas = open();
        replicas.heard(&Caller("r1", "a"), "default", position());
        replicas.flush().unwrap();
        let now_ms = clock::now_ms();
        assert_eq!(open().seen(now_ms)[0].0.version.as_deref(), Some("1.2.3"));
        assert!(replicas.seen(now_ms + 61_000).is_empty());
        assert!(replicas.forget(now_ms + 1) && !replicas.forget(now_ms + 1));
        lock(replicas.node.as_ref().unwrap()).forget_replicas(now_ms + 1).unwrap();
        assert!(open().seen(now_ms).is_empty());
    }

    #[test]
    fn positions_that_could_not_be_written_down_are_once_that_works_and_both_are_news_once() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let retention = Retention { max_age: Duration::from_secs(1), max_bytes: 1 };
        let open = || Replicas::new(NodeDb::open(&dir).unwrap(), retention, Duration::from_secs(60)).unwrap();
        let replicas = open();
        let other = rusqlite::Connection::open(dir.private().join("node.db")).unwrap();
        let full = "CREATE TRIGGER full BEFORE INSERT ON replicas BEGIN SELECT RAISE(ABORT, 'no room'); END";
        other.execute_batch(full).unwrap();
        replicas.heard(&Caller("r1", "a"), "default", position());
        let mut failing = Failing::default();
        let mut news = |written: rusqlite::Result<()>| failing.is_news(written.is_err());
        assert_eq!([(); 2].map(|()| news(replicas.flush())), [true, false]);
        other.execute_batch("DROP TRIGGER full").unwrap();
        assert_eq!([(); 2].map(|()| news(replicas.flush())), [true, false]);
        assert_eq!(open().seen(clock::now_ms()).len(), 1);
    }
}
