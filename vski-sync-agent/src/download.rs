//! Chunks of a snapshot: fetched in parallel, each verified before it is written.

use std::sync::Arc;

use futures_util::StreamExt;
use vski_replication::snapshot::Manifest;

use crate::backoff::Backoff;
use crate::blocking;
use crate::error::AgentError;
use crate::fs::Incoming;
use crate::metrics::AgentMetrics;
use crate::source::{Source, SourceError};

/// Chunks under way at once.
const PARALLEL: usize = 4;

/// How often one chunk is fetched before the download is given up for now.
const ATTEMPTS: usize = 5;

/// Fetches what is missing of a snapshot. Returns the bytes fetched.
pub(crate) async fn run(
    source: &Source,
    incoming: &Arc<Incoming>,
    manifest: &Arc<Manifest>,
    metrics: &AgentMetrics,
) -> Result<u64, AgentError> {
    let missing = {
        let (incoming, manifest) = (Arc::clone(incoming), Arc::clone(manifest));
        blocking::run(move || incoming.missing(&manifest)).await?
    };
    let fetches = missing.into_iter().map(|index| async move {
        let bytes = fetch(source, manifest, index).await?;
        let length = bytes.len() as u64;
        let (incoming, start) = (Arc::clone(incoming), manifest.range(index).0);
        blocking::run(move || incoming.write(start, &bytes)).await?;
        metrics.bootstrap_bytes(&manifest.db, length);
        Ok::<u64, AgentError>(length)
    });
    let mut fetches = futures_util::stream::iter(fetches).buffer_unordered(PARALLEL);
    let mut fetched = 0;
    while let Some(length) = fetches.next().await {
        fetched += length?;
    }
    Ok(fetched)
}

/// One chunk, verified. A broken connection or a damaged chunk does not cost the whole download: a new manifest may
/// mean a new copy on the master.
async fn fetch(source: &Source, manifest: &Manifest, index: usize) -> Result<Vec<u8>, AgentError> {
    let (start, length) = manifest.range(index);
    let mut backoff = Backoff::default();
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match source.chunk(&manifest.id, start, length).await {
            Ok(bytes) if manifest.is_chunk(index, &bytes) => return Ok(bytes),
            Ok(_) => last = None,
            Err(error @ (SourceError::NotFound { .. } | SourceError::Unauthorized { .. })) => return Err(error.into()),
            Err(error) => {
                tokio::time::sleep(backoff.next(error.retry_after())).await;
                last = Some(error);
            }
        }
    }
    Err(last.map_or_else(
        || AgentError::Snapshot { reason: format!("chunk {index} came damaged {ATTEMPTS} times") },
        AgentError::Source,
    ))
}
