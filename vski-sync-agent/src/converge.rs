//! Making a copy equal to its master in place, when its log no longer leads there: 409, 410, a conflict, a change that
//! no log carries, a schema that cannot be reached.
//!
//! The file is being served, so it is never replaced. The master takes a snapshot and tells the hashes of its ranges;
//! only rows that differ are fetched, and everything happens in **one transaction**: the schema, the rows, and the log,
//! which from then on begins at the snapshot's position. Readers see the whole old state or the whole new one. Rows and
//! entries that vanish are written to `.vski/lost` before the commit. Fetched rows wait in a spool under their hash, so
//! that a restart does not fetch them again. Nothing is used before its hash was found right, from the overview's digest
//! down to each row's.
//!
//! Memory does not grow with the database: ranges are kept in files on both sides, answers are bounded, and rows are
//! taken a few at a time.

use std::path::{Path, PathBuf};

use rusqlite::InterruptHandle;
use tokio::join;
use vski_replication::datadir::DataDir;
use vski_replication::position::{DatabaseId, Position};
use vski_replication::ranges::{Listed, Overview, ROW_HASH_BYTES, TableDigest};
use vski_replication::snapshot::Manifest;
use vski_replication::{changelog, connection, fault};

use crate::error::AgentError;
use crate::source::{Source, SourceError};
use crate::{blocking, lineage};

pub(crate) mod answers;
mod lost;
mod merge;
mod spool;

use answers::Ranges;
use merge::{Merge, Missing};

/// Neighbouring ranges whose row hashes are asked for at once.
const RANGES_AT_ONCE: usize = 64;

/// Bytes of row hashes that are asked for at once, where more than one range is.
const HASHES_AT_ONCE: usize = 1 << 20;

/// Rows that are asked for at once.
const PLACES_AT_ONCE: usize = 1000;

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
    let (dir, name) = (dir.clone(), db.to_owned());
    let merge = blocking::run(move || Merge::begin(&dir, &name)).await?;
    // Whatever ends this early ends a step on another thread too, so that the next attempt finds the file unlocked.
    let interrupt = InterruptOnDrop(merge.interrupt());
    let (target, listed) = join!(
        async {
            let target = ask(source, &path, db, version).await;
            if target.is_err() {
                interrupt.0.interrupt();
            }
            target
        },
        step(merge, Merge::list)
    );
    let Target { manifest, overview, agreed } = target?;
    let schema = overview.clone();
    let (mut merge, ()) = step(listed?.0, move |merge| merge.migrate(&schema)).await?;
    for table in &overview.tables {
        if !merge.is_equal(table) {
            merge = merge_table(source, merge, &manifest.id, table).await?;
        }
    }
    blocking::run(move || merge.finish(&overview, agreed)).await
}

/// Interrupts the merge's connection; without effect once that is closed.
struct InterruptOnDrop(InterruptHandle);

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

/// What the copy is to be made equal to.
struct Target {
    manifest: Manifest,
    overview: Overview,
    /// The last version that both logs have alike.
    agreed: u64,
}

/// Asks the master for a snapshot and what is in it.
async fn ask(source: &Source, path: &Path, db: &str, version: u64) -> Result<Target, AgentError> {
    let standing = standing(path).await?;
    let manifest = source.manifest(db, version).await.map_err(|error| match error {
        SourceError::NotFound { .. } => AgentError::MissingOnMaster,
        other => other.into(),
    })?;
    lineage::check(standing, (manifest.database_id, manifest.position))?;
    let overview = source.overview(&manifest.id).await?;
    check(&overview, &manifest)?;
    let agreed = agreed_version(source, path, db, standing.1).await?;
    Ok(Target { manifest, overview, agreed })
}

async fn standing(path: &Path) -> Result<(DatabaseId, Position), AgentError> {
    let path = path.to_owned();
    blocking::run(move || {
        let conn = connection::reader(&path)?;
        Ok((changelog::database_id(&conn)?, changelog::head(&conn)?.position))
    })
    .await
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
async fn agreed_version(source: &Source, path: &Path, db: &str, head: Position) -> Result<u64, AgentError> {
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
async fn merge_table(
    source: &Source,
    mut merge: Merge,
    snapshot: &str,
    table: &TableDigest,
) -> Result<Merge, AgentError> {
    merge = note_ranges(source, merge, snapshot, table).await?;
    let mut from = 0;
    loop {
        let name = table.name.clone();
        let (next, ranges) = step(merge, move |merge| merge.differing(&name, from, 16 * RANGES_AT_ONCE)).await?;
        merge = next;
        let Some(last) = ranges.last() else { break };
        from = last.at + 1;
        merge = merge_ranges(source, merge, snapshot, &table.name, ranges).await?;
    }
    let name = table.name.clone();
    let (merge, ()) = step(merge, move |merge| merge.insert_and_check(&name)).await?;
    Ok(merge)
}

/// Fetches the ranges of a snapshot's table, and proves that they are what the overview promised.
async fn note_ranges(
    source: &Source,
    mut merge: Merge,
    snapshot: &str,
    table: &TableDigest,
) -> Result<Merge, AgentError> {
    let mut ranges = Ranges::default();
    while !ranges.is_complete() {
        let page = ranges.add(source.ranges(snapshot, &table.name, ranges.count()).await?)?;
        (merge, ()) = step(merge, move |merge| merge.note(&page)).await?;
    }
    ranges.check(table)?;
    Ok(merge)
}

/// Compares ranges row by row. While some are compared, the hashes of the next ones are on their way.
async fn merge_ranges(
    source: &Source,
    mut merge: Merge,
    snapshot: &str,
    table: &str,
    ranges: Vec<Listed>,
) -> Result<Merge, AgentError> {
    let hashes_of = async |run: Option<&Vec<Listed>>| match run.and_then(|run| run.first().zip(run.last())) {
        Some((first, last)) => source.row_hashes(snapshot, table, first.at, last.at).await,
        None => Ok(Vec::new()),
    };
    let mut runs = runs(ranges).into_iter().peekable();
    let mut body = hashes_of(runs.peek()).await?;
    while let Some(run) = runs.next() {
        merge.fetched_bytes += body.len() as u64;
        let name = table.to_owned();
        let comparing = step(merge, move |merge| compare(merge, &name, &run, &body));
        let (compared, following) = join!(comparing, hashes_of(runs.peek()));
        let (next, missing) = compared?;
        merge = fetch(source, next, snapshot, table, missing).await?;
        body = following?;
    }
    Ok(merge)
}

fn compare(merge: &mut Merge, table: &str, run: &[Listed], body: &[u8]) -> Result<Vec<Missing>, AgentError> {
    let lists = answers::row_hashes(body, run)?;
    run.iter().zip(lists).map(|(listed, theirs)| merge.compare(table, listed, &theirs)).collect()
}

/// Fetches missing rows. The master may answer with the first of them only.
async fn fetch(
    source: &Source,
    mut merge: Merge,
    snapshot: &str,
    table: &str,
    missing: Vec<Missing>,
) -> Result<Merge, AgentError> {
    let wanted: Vec<(usize, usize, _)> = missing
        .into_iter()
        .flat_map(|Missing { range, rows }| rows.into_iter().map(move |(place, hash)| (range, place, hash)))
        .collect();
    let mut rest = &wanted[..];
    while !rest.is_empty() {
        let some = &rest[..rest.len().min(PLACES_AT_ONCE)];
        let body = source.rows(snapshot, table, places(some.iter().map(|(range, place, _)| (*range, *place)))).await?;
        merge.fetched_bytes += body.len() as u64;
        let hashes: Vec<_> = some.iter().map(|(.., hash)| *hash).collect();
        let count;
        (merge, count) = step(merge, move |merge| {
            let rows = answers::rows(&body, &hashes)?;
            merge.keep(&rows).map(|()| rows.len())
        })
        .await?;
        rest = &rest[count..];
        fault::sql("converge:fetched")?;
    }
    Ok(merge)
}

/// Ranges with places in them, as a master understands them: `3:1,5;4:0`.
fn places(wanted: impl Iterator<Item = (usize, usize)>) -> String {
    let (mut text, mut before) = (String::new(), None);
    for (range, place) in wanted {
        match before {
            Some(before) if before == range => text.push_str(&format!(",{place}")),
            Some(_) => text.push_str(&format!(";{range}:{place}")),
            None => text.push_str(&format!("{range}:{place}")),
        }
        before = Some(range);
    }
    text
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

/// Neighbouring ranges, at most [`RANGES_AT_ONCE`] and about [`HASHES_AT_ONCE`] together.
fn runs(ranges: Vec<Listed>) -> Vec<Vec<Listed>> {
    let bytes = |range: &Listed| usize::try_from(range.range.rows).unwrap_or(usize::MAX).saturating_mul(ROW_HASH_BYTES);
    let (mut runs, mut held): (Vec<Vec<Listed>>, usize) = (Vec::new(), 0);
    for range in ranges {
        held = held.saturating_add(bytes(&range));
        match runs.last_mut() {
            Some(run)
                if run.len() < RANGES_AT_ONCE
                    && held <= HASHES_AT_ONCE
                    && run.last().is_some_and(|last| last.at + 1 == range.at) =>
            {
                run.push(range);
            }
            _ => {
                held = bytes(&range);
                runs.push(vec![range]);
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use vski_replication::ranges::{Hex, Range};

    use super::*;

    fn cut(at: &[usize], rows: u64) -> Vec<(usize, usize)> {
        let range = || Range { end: None, rows, hash: Hex(Vec::new()) };
        let ranges = at.iter().map(|&at| Listed { at, start: None, range: range() }).collect();
        runs(ranges).iter().map(|run| (run[0].at, run[run.len() - 1].at)).collect()
    }

    #[test]
    fn neighbouring_ranges_are_asked_for_together() {
        assert_eq!(cut(&[], 1), []);
        assert_eq!(cut(&[1, 2, 3, 7, 9, 10], 1000), [(1, 3), (7, 7), (9, 10)]);
        let many: Vec<usize> = (0..100).collect();
        assert_eq!(cut(&many, 1000), [(0, 63), (64, 99)]);
    }

    #[test]
    fn ranges_of_many_rows_are_asked_for_a_few_at_a_time() {
        assert_eq!(cut(&[0, 1, 2, 3, 4], 40_000), [(0, 1), (2, 3), (4, 4)]);
        assert_eq!(cut(&[0, 1], 1_000_000), [(0, 0), (1, 1)]);
    }

    #[test]
    fn places_are_told_range_by_range() {
        assert_eq!(places([(3, 1), (3, 5), (4, 0)].into_iter()), "3:1,5;4:0");
    }
}
