//! The replicas that were heard of: their positions are kept in memory and written to node.db once a second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vski_replication::clock;
use vski_replication::node::{NodeDb, ReplicaSeen};
use vski_replication::position::Position;

/// How often what was heard is written down.
const FLUSH: Duration = Duration::from_secs(1);

/// Replicas by id and database; a replica that is not on this list is added when it calls.
pub struct Replicas {
    heard: Mutex<Heard>,
    node: Mutex<NodeDb>,
}

#[derive(Default)]
struct Heard {
    seen: BTreeMap<(String, String), ReplicaSeen>,
    /// Keys that node.db does not know yet.
    dirty: BTreeSet<(String, String)>,
}

/// Who called.
pub trait Calling {
    /// The replica's id.
    fn id(&self) -> &str;
    /// Its public address.
    fn public_url(&self) -> Option<&str>;
    /// Its process.
    fn boot_id(&self) -> Option<&str>;
}

impl Replicas {
    /// Starts from what node.db remembers.
    pub fn new(node: NodeDb) -> rusqlite::Result<Self> {
        let seen = node.replicas()?.into_iter().map(|seen| ((seen.replica.clone(), seen.db.clone()), seen)).collect();
        Ok(Self { heard: Mutex::new(Heard { seen, dirty: BTreeSet::new() }), node: Mutex::new(node) })
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
        };
        let key = (seen.replica.clone(), seen.db.clone());
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.dirty.insert(key.clone());
        heard.seen.insert(key, seen);
    }

    /// Writes down what was heard, every second until shutdown, and once more then.
    pub async fn keep(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let ended = tokio::select! {
                () = tokio::time::sleep(FLUSH) => false,
                () = shutdown.cancelled() => true,
            };
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.flush()).await {
                Ok(Err(error)) => tracing::warn!(%error, "could not write down the replicas' positions"),
                Ok(Ok(())) => {}
                Err(error) => tracing::error!(%error, "writing down the replicas' positions panicked"),
            }
            if ended {
                return;
            }
        }
    }

    fn flush(&self) -> rusqlite::Result<()> {
        let news: Vec<_> = {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let dirty = std::mem::take(&mut heard.dirty);
            dirty.iter().filter_map(|key| heard.seen.get(key).cloned()).collect()
        };
        if news.is_empty() {
            return Ok(());
        }
        self.node.lock().unwrap_or_else(PoisonError::into_inner).set_replicas(&news)
    }
}
