//! Verifying: the master names a version by a snapshot, the copy is brought to exactly that one, and every table is
//! compared in one read transaction.

use std::path::Path;
use std::time::Duration;

use vski_replication::ranges::{Overview, RangeList, Shape, TableDigest};
use vski_replication::{changelog, connection, schema};

use super::{Agent, Ask};
use crate::converge::answers::Ranges;
use crate::error::AgentError;
use crate::round::{Outcome, TableDifference, Verified};
use crate::source::{Changes, Source};
use crate::{blocking, lineage};

/// Differing ranges that a report names; it counts the others.
const RANGES_NAMED: usize = 1000;

/// Whose ranges the snapshot's are in the list.
const THERE: &str = "there";

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
        let mut verified = self.compare().await?;
        if verified.differences.is_empty() {
            self.compare_files(&mut verified, asked.contains(&true)).await?;
        }
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
        let (equal, rows_equal) = (verified.is_equal(), verified.differences.is_empty());
        self.verified = Some(verified);
        if equal {
            return Ok(());
        }
        // A converge would not bring files.
        if !rows_equal && asked.contains(&true) {
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
        let list = self.context.dir.incoming().join(format!("{}.verify", self.db));
        let (mut list, differing) = blocking::run(move || differing_tables(&path, &list, &target)).await?;
        let mut differences = Vec::new();
        for (there, here) in differing {
            let (next, difference) = difference(&self.context.source, &manifest.id, list, &there, &here).await?;
            list = next;
            differences.push(difference);
        }
        Ok(Verified {
            db: self.db.clone(),
            version: overview.position.version,
            tables: overview.tables.len(),
            rows: overview.tables.iter().map(|table| table.rows).sum(),
            differences,
            files: 0,
            files_differing: 0,
            file_differences: Vec::new(),
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

/// The tables that differ, as the master has them and as they are here, with the ranges here in a list; all of it in one
/// read transaction.
fn differing_tables(path: &Path, list: &Path, target: &Overview) -> Result<(RangeList, Vec<Differing>), AgentError> {
    let conn = connection::reader(path)?;
    let transaction = conn.unchecked_transaction()?;
    if changelog::head(&transaction)?.position != target.position {
        return Err(AgentError::Meddled);
    }
    if schema::hash(&transaction)? != target.schema_hash {
        return Err(AgentError::Unequal { told: "the schema is another one".to_owned() });
    }
    let (list, mut differing) = (RangeList::create(list)?, Vec::new());
    for digest in &target.tables {
        let owner = here(&digest.name);
        let found = list.cut(&owner, &Shape::read(&transaction, &digest.name)?, &transaction, false)?;
        if found.hash == digest.hash {
            list.forget(&owner)?;
        } else {
            differing.push((digest.clone(), found));
        }
    }
    Ok((list, differing))
}

/// A table as the master has it, and as it is here.
type Differing = (TableDigest, TableDigest);

/// Fetches the ranges of a snapshot's table and tells which ones the list has otherwise.
async fn difference(
    source: &Source,
    snapshot: &str,
    mut list: RangeList,
    there: &TableDigest,
    here_rows: &TableDigest,
) -> Result<(RangeList, TableDifference), AgentError> {
    let mut ranges = Ranges::default();
    while !ranges.is_complete() {
        let page = ranges.add(source.ranges(snapshot, &there.name, ranges.count()).await?)?;
        list = blocking::run(move || -> Result<_, AgentError> {
            page.iter().try_for_each(|listed| list.put(THERE, listed, None))?;
            Ok(list)
        })
        .await?;
    }
    ranges.check(there)?;
    let of = ranges.count();
    let (owner, table, rows_here, rows_on_master) = (here(&there.name), there.name.clone(), here_rows.rows, there.rows);
    blocking::run(move || {
        let named = list.differing(THERE, &owner, 0, RANGES_NAMED)?;
        let ranges = named.into_iter().map(|listed| listed.at).collect();
        let differing = list.count_differing(THERE, &owner)?;
        list.forget(THERE)?;
        Ok((list, TableDifference { table, ranges, differing, of, rows_here, rows_on_master }))
    })
    .await
}

/// A table as it is here, in the list of ranges.
fn here(table: &str) -> String {
    format!("here {table}")
}
