use crate::agent::Context;
use crate::error::AgentError;
use crate::source::SourceError;

/// Gives the master the files that it has lost and this node has: after a promotion, those that had not arrived there.
/// Returns how many it took. It tells for itself whether they are the right ones.
pub(super) async fn back(context: &Context, db: &str) -> Result<u64, AgentError> {
    let mut all = 0;
    loop {
        let before = all;
        for name in context.source.lost_files(db).await? {
            all += u64::from(one(context, db, &name).await?);
        }
        // It names some at a time.
        if all == before {
            return Ok(all);
        }
    }
}

/// Whether a file was here and is there now.
async fn one(context: &Context, db: &str, name: &str) -> Result<bool, AgentError> {
    let Some(path) = context.dir.file(db, name) else { return Ok(false) };
    let is_file = tokio::fs::symlink_metadata(&path).await.is_ok_and(|found| found.is_file());
    if !is_file {
        return Ok(false);
    }
    // It may be swept just now.
    let Ok(file) = tokio::fs::File::open(&path).await else { return Ok(false) };
    let Ok(metadata) = file.metadata().await else { return Ok(false) };
    match context.source.give_file(db, name, metadata.len(), file).await {
        Ok(()) => {
            tracing::info!(db, file = name, "gave the master an uploaded file that it had lost");
            Ok(true)
        }
        Err(error @ (SourceError::Refused { .. } | SourceError::NotFound { .. })) => {
            let error = crate::error::chain(&error);
            tracing::warn!(db, file = name, error, "the master does not take an uploaded file that it has lost");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}
