//! A new database: ask for a snapshot, download it, look into it, install it, tell the master.
//!
//! Restarted at any point it goes on with the chunks that are there: see `crate::fs` and `crate::download`.

use std::sync::Arc;
use std::time::Instant;

use vski_replication::datadir::DataDir;
use vski_replication::schema::gate;
use vski_replication::snapshot::Manifest;
use vski_replication::{changelog, connection, fault};

use crate::error::AgentError;
use crate::fs::Incoming;
use crate::metrics::AgentMetrics;
use crate::source::{Source, SourceError};
use crate::{blocking, download};

/// How many snapshots are tried whose lease ends while they are fetched, as when the master restarts.
const MANIFESTS: usize = 5;

/// Brings the database `db`, which is not there, into the data directory.
#[tracing::instrument(name = "bootstrap", skip_all, fields(db))]
pub(crate) async fn run(source: &Source, dir: &DataDir, db: &str, metrics: &AgentMetrics) -> Result<(), AgentError> {
    let started = Instant::now();
    for _ in 0..MANIFESTS {
        let manifest = match source.manifest(db, 0).await {
            Ok(manifest) => Arc::new(manifest),
            Err(SourceError::NotFound { .. }) => return Err(AgentError::MissingOnMaster),
            Err(error) => return Err(error.into()),
        };
        fault::point("bootstrap:manifest");
        let (bytes, version) = (manifest.size, manifest.position.version);
        tracing::info!(db, bytes, version, "bootstrap started");
        let fetched = match fetch(source, dir, &manifest, metrics).await {
            Err(AgentError::Source(error @ SourceError::NotFound { .. })) => {
                tracing::info!(db, version, %error, "the snapshot is gone, asking for a new one");
                continue;
            }
            fetched => fetched?,
        };
        metrics.bootstrapped(db);
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(db, bytes, fetched, version, seconds, "bootstrap finished");
        // The next changeset request carries the position too: this one only comes earlier.
        if let Err(error) = source.session(db, manifest.position).await {
            tracing::debug!(db, %error, "the master was not told where this copy starts");
        }
        return Ok(());
    }
    Err(AgentError::Snapshot { reason: format!("the master dropped it {MANIFESTS} times while it was fetched") })
}

async fn fetch(
    source: &Source,
    dir: &DataDir,
    manifest: &Arc<Manifest>,
    metrics: &AgentMetrics,
) -> Result<u64, AgentError> {
    let opened = {
        let (dir, manifest) = (dir.clone(), Arc::clone(manifest));
        blocking::run(move || Incoming::open(&dir, &manifest)).await?
    };
    let incoming = Arc::new(opened);
    let fetched = download::run(source, &incoming, manifest, metrics).await?;
    let incoming = Arc::into_inner(incoming).expect("all fetches are done, and each held its own reference");
    let (dir, manifest) = (dir.clone(), Arc::clone(manifest));
    blocking::run(move || install(incoming, &dir, &manifest)).await?;
    Ok(fetched)
}

fn install(incoming: Incoming, dir: &DataDir, manifest: &Manifest) -> Result<(), AgentError> {
    fault::point("bootstrap:fetched");
    if incoming.finish()?.to_hex().as_str() != manifest.blake3 {
        incoming.discard()?;
        return Err(AgentError::Snapshot { reason: "the hash of the whole file differs".to_owned() });
    }
    inspect(&incoming, manifest)?;
    incoming.install(dir, &manifest.db)
}

/// What the file itself says must be what the manifest says, and it must be possible to follow it.
fn inspect(incoming: &Incoming, manifest: &Manifest) -> Result<(), AgentError> {
    fault::sql("bootstrap:inspect")?;
    let conn = connection::finished_copy(incoming.path())?;
    let (database_id, head) = (changelog::database_id(&conn)?, changelog::head(&conn)?.position);
    if database_id != manifest.database_id || head != manifest.position {
        let reason = format!("it holds database {database_id} at {head}");
        return Err(AgentError::Snapshot { reason });
    }
    let problems: Vec<String> = gate::problems(&conn)?.iter().map(ToString::to_string).collect();
    if problems.is_empty() { Ok(()) } else { Err(AgentError::Unsafe { problems: problems.join("; ") }) }
}

#[cfg(test)]
mod tests;
