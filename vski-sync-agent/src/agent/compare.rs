//! Verifying: the master names a version by a snapshot, the copy is brought to exactly that one, and every table is
//! compared in one read transaction.

use std::time::Duration;

use vski_replication::ranges::{Overview, Shape, TableDigest, TableRanges};
use vski_replication::{changelog, connection, schema};

use super::{Agent, Ask};
use crate::error::AgentError;
use crate::round::{Outcome, TableDifference, Verified};
use crate::source::Changes;
use crate::{blocking, lineage};

impl Agent {
    /// Compares the copy with the master if a request under way wants that. Differences are an error where one wants
    /// them repaired, which leads to a converge; else they are the answer.
    pub(super) async fn verify_if_asked(&mut self) -> Result<(), AgentError> {
        let asked: Vec<bool> = self
            .answering
            .iter()
            .filter_map(|waiting| match waiting.ask {
                Ask::Verify { repair } => Some(repair),
                Ask::Sync => None,
            })
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        let verified = self.compare().await?;
        self.context.board.metrics.verified(&verified);
        let told = verified.told();
        tracing::info!(
            db = self.db,
            version = verified.version,
            tables = verified.tables,
            rows = verified.rows,
            differences = told,
            "verified"
        );
        let equal = verified.differences.is_empty();
        self.verified = Some(verified);
        if equal {
            return Ok(());
        }
        if asked.contains(&true) {
            return Err(AgentError::Unequal { told });
        }
        self.answer(&Outcome::Stopped(format!("{}: diverged: {told}", self.db)));
        Ok(())
    }

    async fn compare(&mut self) -> Result<Verified, AgentError> {
        let (database_id, position) = self.open().await?;
        let manifest = self.context.source.manifest(&self.db, position.version).await?;
        lineage::check((database_id, position), (manifest.database_id, manifest.position))?;
        let overview = self.context.source.overview(&manifest.id).await?;
        if overview.position != manifest.position {
            return Err(AgentError::Snapshot { reason: "its overview is of another position".to_owned() });
        }
        self.advance_to(manifest.position).await?;
        let (path, target) = (self.context.dir.database(&self.db), overview.clone());
        let local = blocking::run(move || differing_tables(&path, &target)).await?;
        let mut differences = Vec::new();
        for (digest, here) in local {
            let there = self.context.source.ranges(&manifest.id, &digest).await?;
            differences.push(TableDifference {
                ranges: there.differing(&here),
                of: there.ranges.len(),
                rows_here: here.rows,
                rows_on_master: digest.rows,
                table: digest.name,
            });
        }
        Ok(Verified {
            db: self.db.clone(),
            version: overview.position.version,
            tables: overview.tables.len(),
            rows: overview.tables.iter().map(|table| table.rows).sum(),
            differences,
        })
    }

    /// Applies the entries up to exactly that position.
    async fn advance_to(&mut self, target: vski_replication::position::Position) -> Result<(), AgentError> {
        loop {
            let (_, position) = self.open().await?;
            if position.version >= target.version {
                // Another history at the same version.
                return if position == target { Ok(()) } else { Err(AgentError::Lost { common: None }) };
            }
            let held = self.held(position);
            let answer = self.context.source.changeset(&self.db, position, held, Duration::ZERO).await?;
            match answer.changes {
                Changes::Entries(frames) => _ = self.apply(frames, target.version, answer.pulled).await?,
                Changes::ParentBehind => return Err(AgentError::ParentBehind),
                Changes::AtHead => return Err(AgentError::Lost { common: None }),
                Changes::Diverged { common } => return Err(AgentError::Lost { common }),
                Changes::BelowBase { base } => return Err(AgentError::Pruned { base }),
            }
        }
    }
}

/// The tables that differ, with their ranges here; all of it in one read transaction.
fn differing_tables(path: &std::path::Path, target: &Overview) -> Result<Vec<(TableDigest, TableRanges)>, AgentError> {
    let conn = connection::reader(path)?;
    let transaction = conn.unchecked_transaction()?;
    if changelog::head(&transaction)?.position != target.position {
        return Err(AgentError::Meddled);
    }
    if schema::hash(&transaction)? != target.schema_hash {
        return Err(AgentError::Unequal { told: "the schema is another one".to_owned() });
    }
    let mut differing = Vec::new();
    for digest in &target.tables {
        let here = Shape::read(&transaction, &digest.name)?.ranges(&transaction)?;
        if here.hash != digest.hash {
            differing.push((digest.clone(), here));
        }
    }
    Ok(differing)
}
