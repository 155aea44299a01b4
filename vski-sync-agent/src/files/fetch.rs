use vski_replication::fault;
use vski_replication::files::{FileRow, Part, is_file_name};

use crate::agent::Context;
use crate::blocking;
use crate::error::AgentError;
use crate::source::FileBody;

/// Bytes that are collected before they are written.
const BUFFER: usize = 256 << 10;

/// Fetches one file, verified before it gets its name. What an earlier attempt left is not fetched again.
pub(super) async fn file(context: &Context, db: &str, row: &FileRow) -> Result<(), AgentError> {
    if !is_file_name(&row.name) {
        return Err(differs(row, "its name cannot be that of a file"));
    }
    let part = opened(context, db, row).await?;
    let (from, name) = (part.size(), row.name.clone());
    fault::point("fetch:ask");
    let part = if from == row.size && from > 0 {
        part
    } else {
        match context.source.file(db, &name, from).await {
            Ok(body) => received(context, db, row, part, body).await?,
            Err(error) => {
                // An empty part is no beginning, only something to sweep.
                if from == 0 {
                    blocking::run(move || part.discard()).await?;
                }
                return Err(error);
            }
        }
    };
    let row = row.clone();
    blocking::run(move || {
        if part.size() != row.size || part.hash() != row.blake3 {
            let found = format!("{} bytes with hash {}", part.size(), part.hash());
            part.discard()?;
            return Err(differs(&row, &found));
        }
        fault::io("fetch:verified").map_err(|source| AgentError::Io {
            action: "install",
            path: row.name.clone().into(),
            source,
        })?;
        Ok(part.install()?)
    })
    .await?;
    context.board.metrics.file_fetched(db);
    Ok(())
}

/// What is here of it so far: nothing, if that is more than there can be.
async fn opened(context: &Context, db: &str, row: &FileRow) -> Result<Part, AgentError> {
    let (dir, db, row) = (context.dir.clone(), db.to_owned(), row.clone());
    blocking::run(move || {
        let mut part = Part::open(&dir, &db, &row.name)?;
        if part.size() > row.size {
            part.restart()?;
        }
        Ok(part)
    })
    .await
}

async fn received(
    context: &Context,
    db: &str,
    row: &FileRow,
    mut part: Part,
    mut body: FileBody,
) -> Result<Part, AgentError> {
    if !body.continues() && part.size() > 0 {
        part.restart()?;
    }
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let piece = body.next().await?;
        let ended = piece.is_none();
        buffer.extend_from_slice(&piece.unwrap_or_default());
        if part.size() + buffer.len() as u64 > row.size {
            part.discard()?;
            return Err(differs(row, &format!("more than {} bytes", row.size)));
        }
        if ended || buffer.len() >= BUFFER {
            let bytes = std::mem::take(&mut buffer);
            context.board.metrics.file_bytes(db, bytes.len() as u64);
            part = blocking::run(move || part.write(&bytes).map(|()| part)).await?;
        }
        if ended {
            return Ok(part);
        }
    }
}

fn differs(row: &FileRow, reason: &str) -> AgentError {
    AgentError::FileDiffers { name: row.name.clone(), reason: reason.to_owned() }
}
