//! The local log is cut from below.

use vski_replication::changelog::{self, Cut, Pruned, Retention};
use vski_replication::datadir::DataDir;
use vski_replication::fault;
use vski_replication::lease::{self, LEASE_FACTOR};

use super::LocalCopy;
use super::transaction::Immediate;
use crate::error::AgentError;

/// Steps of pruning between two batches: the next batch must not wait long.
const PRUNE_STEPS: usize = 8;

impl LocalCopy {
    /// Removes what the log has too much of, in bounded steps, as many as one pause between batches may hold.
    /// Without `by_age` only once the log is a tenth larger than it may be. What follows a snapshot that a server on
    /// `dir` has given out stays, up to a bound.
    pub(crate) fn prune(
        &mut self,
        retention: Retention,
        by_age: bool,
        now_ms: i64,
        dir: &DataDir,
    ) -> Result<Pruned, AgentError> {
        let mut total = Pruned::default();
        for _ in 0..PRUNE_STEPS {
            // Nobody else appends or removes: what was counted and noted since is what there is.
            let bytes = match self.size.at(self.head.position) {
                Some(bytes) => bytes,
                None => self.size.refresh(&self.conn)?,
            };
            if !by_age && bytes <= retention.max_bytes.saturating_add(retention.max_bytes / 10) {
                break;
            }
            let up_to = self.needed(dir, retention, bytes)?;
            let transaction = Immediate::begin(&self.conn)?;
            fault::sql("prune:begin")?;
            let step = changelog::prune(&transaction, Cut { up_to, ..Cut::of(retention, bytes, now_ms) })?;
            fault::sql("prune:before-commit")?;
            transaction.commit()?;
            fault::sql("prune:after-commit")?;
            self.size.refresh(&self.conn)?;
            (total.entries, total.bytes, total.more) =
                (total.entries + step.entries, total.bytes + step.bytes, step.more);
            if !step.more {
                break;
            }
        }
        Ok(total)
    }

    /// The version after which entries stay for the sake of a leased snapshot.
    fn needed(&self, dir: &DataDir, retention: Retention, log_bytes: u64) -> Result<u64, AgentError> {
        let failed = |source| AgentError::Io { action: "look at the leases in", path: dir.snapshots(), source };
        if log_bytes > retention.max_bytes.saturating_mul(LEASE_FACTOR) {
            let broken = lease::break_all(dir, &self.db).map_err(failed)?;
            if broken > 0 {
                tracing::warn!(
                    db = self.db,
                    version = self.head.position.version,
                    log_bytes,
                    "snapshot lease broken: the log grew too large meanwhile"
                );
            }
        }
        Ok(lease::oldest_needed(dir, &self.db).map_err(failed)?.unwrap_or(u64::MAX))
    }
}
