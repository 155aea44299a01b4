//! Pruning of the logs on a master (the agent prunes its own): by age every minute, by size as soon as a log has grown
//! by a tenth of what it may have.
//!
//! Deciding reads; only removing takes the writer's turn, a bounded step at a time. A leased snapshot keeps the
//! entries after it until the log holds `LEASE_FACTOR` times its limit; then the lease breaks. A replica that is
//! merely away keeps nothing: it converges when it is back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use vski_replication::changelog::{self, Cut, Pruned, Retention};
use vski_replication::clock;

use super::snapshot::Snapshots;
use crate::store::database::Database;
use crate::store::error::StoreError;
use crate::store::master::Master;

/// How often the sizes are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often a log is pruned that does not grow.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

pub use vski_replication::lease::LEASE_FACTOR;

/// Keeps the logs of a master within their limits.
pub struct Keeper {
    master: Arc<Master>,
    snapshots: Arc<Snapshots>,
    retention: Retention,
    /// When each log was pruned last, and what it held then.
    done: HashMap<String, (Instant, u64)>,
}

impl Keeper {
    /// A keeper that has looked at nothing yet.
    pub fn new(master: Arc<Master>, snapshots: Arc<Snapshots>, retention: Retention) -> Self {
        Self { master, snapshots, retention, done: HashMap::new() }
    }

    /// Prunes until shutdown.
    pub async fn keep(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            for database in self.master.all() {
                let pruned = tokio::select! {
                    () = shutdown.cancelled() => return,
                    pruned = self.look_at(&database) => pruned,
                };
                match pruned {
                    // The next look tries again.
                    Ok(()) | Err(StoreError::Overloaded | StoreError::ShuttingDown) => {}
                    Err(error) => tracing::warn!(db = database.name, error = error.describe(), "could not prune a log"),
                }
            }
        }
    }

    async fn look_at(&mut self, database: &Database) -> Result<(), StoreError> {
        let bytes = size(database).await?;
        if let Some((at, before)) = self.done.get(&database.name)
            && at.elapsed() < PRUNE_EVERY
            && bytes <= before.saturating_add(self.retention.max_bytes / 10)
        {
            return Ok(());
        }
        let pruned = prune(database, &self.snapshots, self.retention).await?;
        self.done.insert(database.name.clone(), (Instant::now(), bytes.saturating_sub(pruned.bytes)));
        Ok(())
    }
}

/// Removes what the log of `database` has too much of.
pub async fn prune(database: &Database, snapshots: &Snapshots, retention: Retention) -> Result<Pruned, StoreError> {
    let mut total = Pruned::default();
    loop {
        let cut = cut(database, snapshots, retention).await?;
        let due = database.reader.read(move |conn| Ok(changelog::exceeds(conn, cut)?)).await?;
        if !due {
            break;
        }
        let step = database.writer.upkeep(move |conn| Ok(changelog::prune(conn, cut)?)).await?;
        (total.entries, total.bytes) = (total.entries + step.entries, total.bytes + step.bytes);
        if !step.more {
            break;
        }
    }
    if total.entries > 0 {
        tracing::info!(db = database.name, entries = total.entries, bytes = total.bytes, "log pruned");
    }
    Ok(total)
}

/// What may go now: the leases are looked at before each step, because a copy may have been finished meanwhile.
async fn cut(database: &Database, snapshots: &Snapshots, retention: Retention) -> Result<Cut, StoreError> {
    let bytes = size(database).await?;
    if bytes > retention.max_bytes.saturating_mul(LEASE_FACTOR) {
        snapshots.break_leases(&database.name, bytes);
    }
    let needed = snapshots.oldest_needed(&database.name).unwrap_or(u64::MAX);
    Ok(Cut { up_to: needed, ..Cut::of(retention, bytes, clock::now_ms()) })
}

async fn size(database: &Database) -> Result<u64, StoreError> {
    let reader = database.reader.clone();
    database.reader.read(move |conn| reader.log_bytes(conn)).await
}
