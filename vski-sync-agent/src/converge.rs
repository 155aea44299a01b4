//! Making a copy equal to its master in place, when its log no longer leads there: 409, 410, a conflict, a change that
//! no log carries, a schema that cannot be reached.
//!
//! The file is being served, so it is never replaced. The master takes a snapshot and tells the hashes of its ranges;
//! only rows that differ are fetched, and everything happens in **one transaction**: the schema, the rows, and the log,
//! which from then on begins at the snapshot's position. Readers see the whole old state or the whole new one. Rows and
//! entries that vanish are written to `.vski/lost` before the commit. Fetched rows wait in a spool under their hash, so
//! that a restart does not fetch them again. Nothing is used before its hash was found right, from the overview's digest
//! down to each row's.

use std::path::PathBuf;

use vski_replication::datadir::DataDir;
use vski_replication::position::Position;
use vski_replication::ranges::{Overview, TableDigest, TableRanges};
use vski_replication::snapshot::Manifest;
use vski_replication::{changelog, connection, fault};

use crate::error::AgentError;
use crate::source::{Source, SourceError};
use crate::{blocking, lineage};

mod answers;
mod lost;
mod merge;
mod spool;

use merge::{Difference, Merge, Piece};

/// Neighbouring ranges whose row hashes are asked for at once.
const RANGES_AT_ONCE: usize = 64;

/// Rows that are asked for at once.
const PLACES_AT_ONCE: usize = 500;

/// What a converge did.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) position: Position,
    /// Tables that were set aside.
    pub(crate) kept: Vec<String>,
    pub(crate) deleted: u64,
    pub(crate) inserted: u64,
    pub(crate) fetched_bytes: u64,
    /// What vanished, if anything did.
    pub(crate) lost: Option<PathBuf>,
}

/// Makes the database `db`, which no [`crate::apply::LocalCopy`] has open, equal to a snapshot of the master that has the
/// entries up to `version`, where the copy could not go on.
#[tracing::instrument(name = "converge", skip_all, fields(db))]
pub(crate) async fn run(source: &Source, dir: &DataDir, db: &str, version: u64) -> Result<Report, AgentError> {
    let path = dir.database(db);
    let standing = {
        let path = path.clone();
        blocking::run(move || -> Result<_, AgentError> {
            let conn = connection::reader(&path)?;
            Ok((changelog::database_id(&conn)?, changelog::head(&conn)?.position))
        })
        .await?
    };
    let manifest = source.manifest(db, version).await.map_err(|error| match error {
        SourceError::NotFound { .. } => AgentError::MissingOnMaster,
        other => other.into(),
    })?;
    lineage::check(standing, (manifest.database_id, manifest.position))?;
    let overview = source.overview(&manifest.id).await?;
    check(&overview, &manifest)?;
    let agreed = agreed_version(source, &path, db, standing.1).await?;
    let (dir, name, target) = (dir.clone(), db.to_owned(), overview.clone());
    let mut merge = blocking::run(move || Merge::begin(&dir, &name, &target)).await?;
    for table in &overview.tables {
        merge = merge_table(source, merge, &manifest.id, table).await?;
    }
    blocking::run(move || merge.finish(&overview, agreed)).await
}

/// What the overview says of itself must be what the manifest said.
fn check(overview: &Overview, manifest: &Manifest) -> Result<(), AgentError> {
    let hash = vski_replication::schema::hash_objects(&overview.objects);
    if (overview.database_id, overview.position) == (manifest.database_id, manifest.position)
        && overview.schema_hash == hash
    {
        return Ok(());
    }
    Err(AgentError::Snapshot { reason: "its overview is of another database, position or schema".to_owned() })
}

/// The last version of the local log that the master's log has too: what is beyond it is lost. A chain that is in the
/// master's log at one version is so at every one before it, so halving finds the place.
async fn agreed_version(source: &Source, path: &std::path::Path, db: &str, head: Position) -> Result<u64, AgentError> {
    if source.holds(db, head).await? {
        return Ok(head.version);
    }
    let at = |version: u64| {
        let path = path.to_owned();
        blocking::run(move || -> Result<_, AgentError> {
            Ok(changelog::position_at(&connection::reader(&path)?, version)?)
        })
    };
    let base = {
        let path = path.to_owned();
        blocking::run(move || -> Result<_, AgentError> { Ok(changelog::base(&connection::reader(&path)?)?.position) })
            .await?
    };
    let (mut held, mut missing) = (base.version, head.version);
    while missing - held > 1 {
        let middle = held + (missing - held) / 2;
        match at(middle).await? {
            Some(position) if source.holds(db, position).await? => held = middle,
            _ => missing = middle,
        }
    }
    Ok(held)
}

/// Finds the rows of one table that differ, fetches those that are missing, and puts them in place.
async fn merge_table(source: &Source, merge: Merge, snapshot: &str, table: &TableDigest) -> Result<Merge, AgentError> {
    let name = table.name.clone();
    let (merge, local) = step(merge, move |merge| merge.ranges(&name)).await?;
    if local.hash == table.hash {
        return Ok(merge);
    }
    let ranges = source.ranges(snapshot, table).await?;
    let differing = ranges.differing(&local);
    let mut merge = merge;
    for run in runs(&differing) {
        merge = merge_run(source, merge, snapshot, table, &ranges, run).await?;
    }
    let name = table.name.clone();
    let (merge, ()) = step(merge, move |merge| merge.insert_and_check(&name, &ranges, &differing)).await?;
    Ok(merge)
}

async fn merge_run(
    source: &Source,
    mut merge: Merge,
    snapshot: &str,
    table: &TableDigest,
    ranges: &TableRanges,
    (first, last): (usize, usize),
) -> Result<Merge, AgentError> {
    let body = source.row_hashes(snapshot, &table.name, first, last).await?;
    merge.fetched_bytes += body.len() as u64;
    for (at, theirs) in (first..=last).zip(answers::row_hashes(&body, ranges, (first, last))?) {
        let piece = Piece { start: ranges.start(at).cloned(), end: ranges.ranges[at].end.clone() };
        let name = table.name.clone();
        let (next, difference) = step(merge, move |merge| merge.compare(&name, &piece, &theirs)).await?;
        merge = fetch(source, next, snapshot, &table.name, at, difference).await?;
    }
    Ok(merge)
}

async fn fetch(
    source: &Source,
    mut merge: Merge,
    snapshot: &str,
    table: &str,
    range: usize,
    difference: Difference,
) -> Result<Merge, AgentError> {
    for wanted in difference.missing.chunks(PLACES_AT_ONCE) {
        let places = wanted.iter().map(|(place, _)| place.to_string()).collect::<Vec<_>>().join(",");
        let body = source.rows(snapshot, table, range, &places).await?;
        merge.fetched_bytes += body.len() as u64;
        let rows = answers::rows(&body, wanted)?;
        (merge, ()) = step(merge, move |merge| merge.keep(&rows)).await?;
        fault::sql("converge:fetched")?;
    }
    Ok(merge)
}

/// One blocking step of the merge. An error drops it, which rolls its transaction back.
async fn step<T: Send + 'static>(
    mut merge: Merge,
    work: impl FnOnce(&mut Merge) -> Result<T, AgentError> + Send + 'static,
) -> Result<(Merge, T), AgentError> {
    blocking::run(move || {
        let value = work(&mut merge)?;
        Ok((merge, value))
    })
    .await
}

/// Neighbouring indexes as first and last, at most [`RANGES_AT_ONCE`] together.
fn runs(indexes: &[usize]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &at in indexes {
        match runs.last_mut() {
            Some((first, last)) if *last + 1 == at && at - *first < RANGES_AT_ONCE => *last = at,
            _ => runs.push((at, at)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ranges_are_asked_for_together() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[1, 2, 3, 7, 9, 10]), [(1, 3), (7, 7), (9, 10)]);
        let many: Vec<usize> = (0..100).collect();
        assert_eq!(runs(&many), [(0, 63), (64, 99)]);
    }
}
