use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::{eventually, offline};
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::Method;
use vski_replication::entry::Kind;
use vski_replication::position::Position;
use vski_replication::{changelog, connection, session};

use crate::options::Options;
use crate::pair::{PATIENCE, Pair};
use crate::posts;
use crate::report::{Bound, Report, VSKI, metric};
use crate::usage::Usage;

const ROWS: u64 = 1_000_000;

/// Rows of each request, and so of each entry.
const ROWS_PER_ENTRY: u64 = 100;

/// Changesets that are applied in one transaction, bytes.
const BYTES_PER_TRANSACTION: usize = 8 << 20;

const CASE: &str = "catch up";
const RAW: &str = "bare changesets";
const ROWS_PER_SECOND: &str = "rows/s";

/// Measures it. Each round begins with the same copy of a replica that was stopped before the rows came.
pub fn run(options: &Options) -> Result<Report> {
    let rows = options.scaled(ROWS.div_ceil(ROWS_PER_ENTRY)) * ROWS_PER_ENTRY;
    let mut report =
        Report::new("catch-up", format!("a replica catches up {rows} rows in entries of {ROWS_PER_ENTRY}"));
    let mut pair = Pair::start()?;
    pair.replica.stop()?;
    let before = pair.cluster.path().join("before");
    offline::copy(pair.replica.dir(), &before)?;
    write(&pair, rows)?;
    let head = offline::position(&pair.master.file("default"))?;
    for round in 1..=options.rounds {
        offline::restore(&before, pair.replica.dir())?;
        let seconds = apply_bare(&pair.master.file("default"), &pair.replica.file("default"))?;
        report.add(CASE, RAW, ROWS_PER_SECOND, rows as f64 / seconds);
        report.add(CASE, RAW, metric::SECONDS, seconds);
        offline::restore(&before, pair.replica.dir())?;
        follow(&mut report, &mut pair, head, rows)?;
        eprintln!("catch-up: round {round} of {}", options.rounds);
    }
    pair.master.stop()?;
    report.note(format!(
        "Bare changesets: `sqlite3changeset_apply` of the same entries on the same file, read before, in transactions of \
         {} MiB, synchronous=FULL; no network, nothing verified, no log written.",
        BYTES_PER_TRANSACTION >> 20
    ));
    report.note(
        "VSKI: from the start of the agent's process to the last commit. Its log is written, too: twice the bytes.",
    );
    report.beside(CASE, ROWS_PER_SECOND, RAW, Bound::AtLeast(0.7));
    Ok(report)
}

/// New rows through the API, each request an entry.
fn write(pair: &Pair, rows: u64) -> Result<()> {
    let (admin, mut random) = (pair.master.admin()?, StdRng::seed_from_u64(7));
    let path = format!("/api/collections/{}/import", posts::NAME);
    for _ in 0..rows / ROWS_PER_ENTRY {
        let lines: Vec<String> = (0..ROWS_PER_ENTRY).map(|_| posts::record(&mut random).to_string()).collect();
        let body = lines.join("\n").into_bytes();
        admin.send_bytes(Method::POST, &path, "application/x-ndjson", body)?.ok()?;
    }
    Ok(())
}

/// Seconds that the changesets alone take.
fn apply_bare(master: &Path, replica: &Path) -> Result<f64> {
    let (log, mut conn) = (connection::reader(master)?, connection::applier(replica)?);
    let (mut version, mut seconds) = (changelog::head(&conn)?.position.version, 0.0);
    loop {
        let entries = changelog::read_after(&log, version, BYTES_PER_TRANSACTION)?;
        let Some(last) = entries.last() else { return Ok(seconds) };
        version = last.version;
        let began = Instant::now();
        let transaction = conn.transaction()?;
        for entry in &entries {
            ensure!(entry.kind == Kind::Changes, "only rows are written after the copy");
            session::apply(&transaction, &entry.payload)?;
        }
        transaction.commit()?;
        seconds += began.elapsed().as_secs_f64();
    }
}

fn follow(report: &mut Report, pair: &mut Pair, head: Position, rows: u64) -> Result<()> {
    let file: PathBuf = pair.replica.file("default");
    let agent = pair.replica.agent.as_mut().context("an agent of its own")?;
    let began = Instant::now();
    agent.launch(&[])?;
    let usage = Usage::begin(&[agent.process()?.pid()])?;
    eventually("the replica has all rows", PATIENCE, || Ok(offline::position(&file)? == head))?;
    let (seconds, taken) = (began.elapsed().as_secs_f64(), usage.taken()?);
    agent.stop()?;
    let values = [
        (ROWS_PER_SECOND, rows as f64 / seconds),
        (metric::SECONDS, seconds),
        (metric::CPU, taken.cpu),
        (metric::MEMORY, taken.peak_mb),
    ];
    for (metric, value) in values {
        report.add(CASE, VSKI, metric, value);
    }
    Ok(())
}
