//! Read-your-writes: waiting until this node's log contains an entry that some node has acknowledged.

use std::time::Instant;

use tokio::sync::watch;
use vski_replication::changelog::{self, Contains, Head};
use vski_replication::position::Epoch;

use crate::app::{App, Databases};
use crate::store::error::StoreError;

/// Whether an entry is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A read that begins now sees it.
    Here,
    /// It did not come within MIN_POSITION_WAIT.
    Late,
    /// This node's history is another one, or no longer tells.
    Never,
    /// This is the master, its history is the entry's, and ends before it.
    Beyond {
        /// The master's last version.
        head: u64,
    },
}

/// Waits for `version` of `epoch`, at most MIN_POSITION_WAIT.
pub async fn wait(app: &App, db: &str, epoch: Epoch, version: u64) -> Result<Arrival, StoreError> {
    let started = Instant::now();
    let mut found = find(app, db, epoch, version).await?;
    if let (Contains::NotYet, Databases::Master(master)) = (found, &app.databases) {
        // It tells a position only once that is in its log, and nobody else extends it: waiting would not help.
        let head = master.database(db)?.writer.head().borrow().position;
        return Ok(if head.epoch == epoch { Arrival::Beyond { head: head.version } } else { Arrival::Never });
    }
    if found == Contains::NotYet {
        let waited = tokio::time::timeout(app.freshness.min_position_wait, come(app, db, epoch, version)).await;
        // Too late: what was found before still holds.
        found = waited.unwrap_or(Ok(found))?;
    }
    app.metrics.min_position_wait.observe(started.elapsed().as_secs_f64());
    Ok(match found {
        Contains::Yes => Arrival::Here,
        Contains::No => Arrival::Never,
        Contains::NotYet => {
            app.metrics.min_position_timeouts.inc();
            Arrival::Late
        }
    })
}

/// Looks once.
async fn find(app: &App, db: &str, epoch: Epoch, version: u64) -> Result<Contains, StoreError> {
    let reader = match (app.reader(db), &app.databases) {
        (Ok(reader), _) => reader,
        // A database that was just made, and that the agent has not heard of or copied yet.
        (Err(StoreError::NotFound(_) | StoreError::NotReady(_)), Databases::Replica(replica)) if replica.offers(db) => {
            return Ok(Contains::NotYet);
        }
        (Err(error), _) => return Err(error),
    };
    reader.read(move |conn| Ok(changelog::contains(conn, epoch, version)?)).await
}

/// Returns once the answer is known, on a replica.
async fn come(app: &App, db: &str, epoch: Epoch, version: u64) -> Result<Contains, StoreError> {
    // As long as this holds, `contains` would say so too: no need to look.
    let is_ahead = |head: &Head| {
        let at = head.position;
        epoch.generation > at.epoch.generation || (epoch == at.epoch && version > at.version)
    };
    loop {
        if let Databases::Replica(replica) = &app.databases {
            until(app, replica.heads(db), |head| head.is_some_and(|head| !is_ahead(&head))).await?;
        }
        let found = find(app, db, epoch, version).await?;
        if found != Contains::NotYet {
            return Ok(found);
        }
    }
}

async fn until<H>(app: &App, mut heads: watch::Receiver<H>, holds: impl FnMut(&H) -> bool) -> Result<(), StoreError> {
    tokio::select! {
        held = heads.wait_for(holds) => held.map(|_| ()).map_err(|_| StoreError::ShuttingDown),
        () = app.shutdown.cancelled() => Err(StoreError::ShuttingDown),
    }
}
