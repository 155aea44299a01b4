//! All databases of a replica: opened when they are first asked for, once the agent has put them in place.
//!
//! There is no writer here, so nothing that a replica serves can change what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vski_replication::changelog::{self, Head};
use vski_replication::datadir::DataDir;
use vski_replication::names;
use vski_replication::node::{DatabaseState, MISSING_ON_MASTER, NodeDb, SET_ASIDE};

use super::error::StoreError;
use super::heads::Heads;
use super::master::unknown;
use super::reader::Reader;

/// How often the agent's wish for a file is looked for.
const RELEASE_POLL: Duration = Duration::from_millis(200);

/// How old an answer from node.db may be: short against any lag, long against the time between two requests.
const ACCOUNT_AGE: Duration = Duration::from_millis(200);

/// The databases, open for reading.
pub struct Replica {
    dir: DataDir,
    /// Databases that this replica does not offer, whatever lies in the directory.
    omitted: BTreeSet<String>,
    readers: RwLock<BTreeMap<String, Reader>>,
    heads: Heads,
    node: Mutex<Node>,
}

/// node.db and what it said last.
#[derive(Default)]
struct Node {
    /// `None` until there is one.
    db: Option<NodeDb>,
    account: Option<(Instant, Account)>,
}

/// The agent's account of itself.
#[derive(Clone, Default)]
pub struct Account {
    /// How each offered database is doing.
    pub databases: Arc<[DatabaseState]>,
    /// How far this node's clock is ahead of the master's, ms.
    pub clock_skew_ms: Option<i64>,
    /// The nodes between this one and its master, the nearest first, with commas.
    pub upstream: Arc<str>,
    /// Names of databases that its master has deleted: their files stay, and are not served.
    pub deleted: Arc<[String]>,
}

/// The offered databases, as replicas of this replica see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Those that can be followed.
    pub present: Vec<String>,
    /// Those that the agent has not copied yet, or is about to copy anew.
    pub awaited: Vec<String>,
}

impl Offer {
    /// By the agent's account; `None` before it has copied any, because then it may not know which there are.
    #[must_use]
    pub fn of(states: &[DatabaseState]) -> Option<Self> {
        let (mut offer, mut known) = (Self::default(), false);
        for state in states {
            known |= state.bootstrapped;
            if state.bootstrapped && state.state != SET_ASIDE && state.state != MISSING_ON_MASTER {
                offer.present.push(state.name.clone());
            } else if state.state != MISSING_ON_MASTER {
                offer.awaited.push(state.name.clone());
            }
        }
        known.then_some(offer)
    }
}

impl Replica {
    /// The databases of a directory that an agent fills, now or later.
    pub fn new(dir: &DataDir, omitted: BTreeSet<String>) -> Self {
        Self { dir: dir.clone(), omitted, readers: RwLock::default(), heads: Heads::default(), node: Mutex::default() }
    }

    /// The directory.
    pub fn dir(&self) -> &DataDir {
        &self.dir
    }

    /// A reader of a database that has arrived; `NotReady` for one that is still to come.
    pub fn reader(&self, name: &str) -> Result<Reader, StoreError> {
        if !self.offers(name) {
            return Err(unknown(name));
        }
        if let Some(reader) = self.readers.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(reader.clone());
        }
        self.open(name)
    }

    /// Whether a database of that name may be served here, now or later.
    pub fn offers(&self, name: &str) -> bool {
        !self.omitted.contains(name) && names::is_database_name(name)
    }

    /// The head of a database, and a wake-up for each new one; also for a database that is still to come.
    pub fn heads(self: &Arc<Self>, name: &str) -> watch::Receiver<Option<Head>> {
        let (replica, wanted) = (Arc::clone(self), name.to_owned());
        self.heads.watch(name, move || replica.reader(&wanted))
    }

    /// The head at the last look, where somebody waits for the next one.
    pub fn known_head(&self, name: &str) -> Option<Head> {
        self.heads.known(name)
    }

    /// How each offered database is doing, by the agent's own account.
    pub fn states(&self) -> Result<Arc<[DatabaseState]>, StoreError> {
        Ok(self.account()?.databases)
    }

    /// What the agent last wrote down of itself. Cheap: node.db is read a few times a second at most.
    pub fn account(&self) -> Result<Account, StoreError> {
        let mut node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, account)) = node.account.as_ref().filter(|(read, _)| read.elapsed() < ACCOUNT_AGE) {
            return Ok(account.clone());
        }
        if node.db.is_none() {
            node.db = NodeDb::read(&self.dir)?;
        }
        let Some(db) = &node.db else { return Ok(Account::default()) };
        let mut states = db.databases()?;
        states.retain(|state| !self.omitted.contains(&state.name));
        let (clock_skew_ms, upstream) = (db.clock_skew_ms()?, db.upstream()?.into());
        let deleted = db.deleted()?.into_iter().collect();
        let account = Account { databases: states.into(), clock_skew_ms, upstream, deleted };
        node.account = Some((Instant::now(), account.clone()));
        Ok(account)
    }

    /// Lets go of files that the agent wants to set aside; they answer 503 until new ones are in place.
    pub async fn release_files(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RELEASE_POLL) => {}
            }
            let this = Arc::clone(&self);
            let done = tokio::task::spawn_blocking(move || this.release_once()).await;
            if let Ok(Err(error)) = done {
                tracing::warn!(error = error.describe(), "cannot read node.db");
            }
        }
    }

    fn release_once(&self) -> Result<(), StoreError> {
        for state in self.states()?.iter().filter(|state| state.state == SET_ASIDE) {
            let gone = self.readers.write().unwrap_or_else(PoisonError::into_inner).remove(&state.name);
            if gone.is_some() {
                tracing::warn!(db = state.name, "its file is damaged and let go of; a new copy is on its way");
            }
        }
        for name in self.account()?.deleted.iter() {
            if self.readers.write().unwrap_or_else(PoisonError::into_inner).remove(name).is_some() {
                tracing::info!(db = name, "its master has deleted it: it is not served any more, and its file stays");
            }
        }
        Ok(())
    }

    fn open(&self, name: &str) -> Result<Reader, StoreError> {
        let path = self.dir.database(name);
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = readers.get(name) {
            return Ok(reader.clone());
        }
        let account = self.account()?;
        if account.deleted.iter().any(|deleted| deleted == name) {
            return Err(unknown(name));
        }
        if account.databases.iter().any(|state| state.name == name && state.state == SET_ASIDE) {
            return Err(StoreError::NotReady(name.to_owned()));
        }
        // The agent renames a file into place only when it is whole. Looked for first: asking for the lock of a file
        // that is not there would get in the agent's way.
        let open = if path.exists() { self.dir.share_database(name)? } else { None };
        let Some(open) = open else { return Err(self.absent(name)) };
        let reader = Reader::new(name, &path, open);
        changelog::database_id(&reader.dedicated()?)?;
        readers.insert(name.to_owned(), reader.clone());
        Ok(reader)
    }

    /// Before the first contact nobody knows which databases there are; afterwards the unlisted do not exist.
    fn absent(&self, name: &str) -> StoreError {
        let states = self.states().unwrap_or_default();
        let contacted = states.iter().any(|state| state.last_contact_ms.is_some());
        let listed = name == names::DEFAULT_DATABASE || states.iter().any(|state| state.name == name);
        if contacted && !listed { unknown(name) } else { StoreError::NotReady(name.to_owned()) }
    }
}
