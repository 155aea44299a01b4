//! Catching up, the next batch is asked for while the last one is applied: two batches are in memory, and neither the
//! master nor this node waits for the other.

use tokio::task::JoinHandle;
use vski_replication::entry;
use vski_replication::position::Position;

use super::Agent;
use crate::source::{Answer, Changes, SourceError};

/// A batch that is worth it, bytes: a smaller one is applied before an answer could come.
const MIN_BYTES: usize = 1 << 20;

/// A question under way, which ends with this.
pub(super) struct Ahead {
    /// Where the copy stands once the batch before is applied, if that batch is what it says.
    from: Position,
    answer: JoinHandle<Result<Answer, SourceError>>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

impl Agent {
    /// Asks for what follows `frames`, where they do not lead to the head.
    pub(super) fn ask_ahead(&mut self, frames: &[u8], head: Position) {
        let end = entry::claimed_end(frames).filter(|end| frames.len() >= MIN_BYTES && end.version < head.version);
        self.ahead = end.map(|from| {
            let (source, db) = (self.context.source.clone(), self.db.clone());
            let answer = tokio::spawn(async move { source.changeset_ahead(&db, from).await });
            Ahead { from, answer }
        });
    }
}

/// The entries after `position`, if just these were asked for. Whatever else came is asked for again, as where the copy
/// then is.
pub(super) async fn answer(ahead: Option<Ahead>, position: Position) -> Option<Answer> {
    let mut ahead = ahead.filter(|ahead| ahead.from == position)?;
    let answer = (&mut ahead.answer).await.ok()?.ok()?;
    matches!(answer.changes, Changes::Entries(_)).then_some(answer)
}
