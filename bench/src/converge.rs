//! A master and a replica hold the same rows; while the replica is down the master changes some and its log is cut off,
//! so that the replica's agent converges when it is back. Each run begins with the same two files.
//!
//! What counts as its time is the agent's own word: from the question for a snapshot, which the master makes then, to
//! the commit. Both processes are started anew for each run, so that their peaks are of this run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use e2e::client::Client;
use e2e::memory::Watch;
use e2e::output::log_field;
use e2e::{Cluster, Node, content, offline};
use serde::Serialize;

use crate::database;
use crate::figures::{Figure, Line};
use crate::options::Options;
use crate::plain;

/// How long a run may take until the converge must have ended.
const PATIENCE: Duration = Duration::from_secs(600);

/// Bounds of `--check`: share of the file that is fetched, own memory of each process, and time beside plain SQL.
const MAX_SHARE: f64 = 0.10;
const MAX_MEMORY: f64 = 64e6;
const MAX_RATIO: f64 = 3.0;

/// What the agent logs at the end of a converge.
const CONVERGED: &str = "the copy has converged with the master";

/// Settings of the benchmark.
#[derive(Args)]
pub struct ConvergeArgs {
    /// Rows of the database
    #[arg(long, default_value_t = 1_500_000)]
    rows: u64,
    /// Rows that are changed, removed or added on the master, spread over all of the table
    #[arg(long, default_value_t = 15_000)]
    differences: u64,
    /// How often it is measured
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Exit code 1 when 10 % of the file is fetched, a process needs 64 MB, or it takes over three times plain SQL
    #[arg(long)]
    check: bool,
    /// Write the raw results there
    #[arg(long)]
    json: Option<PathBuf>,
}

impl ConvergeArgs {
    /// After all other benchmarks, with their options.
    pub fn beside(options: &Options) -> Self {
        let (rows, differences) = (options.scaled(1_500_000), options.scaled(15_000));
        Self { rows, differences, runs: options.rounds, check: false, json: Some(options.out.join("converge.json")) }
    }
}

/// What was measured.
#[derive(Default, Serialize)]
struct Results {
    rows: u64,
    differences: u64,
    file_bytes: u64,
    plain_seconds: Figure,
    converge_seconds: Figure,
    fetched_bytes: Figure,
    agent_peak_bytes: Figure,
    master_peak_bytes: Figure,
}

/// Runs it.
pub fn execute(args: &ConvergeArgs) -> Result<ExitCode> {
    ensure!(args.runs > 0 && (1..=args.rows).contains(&args.differences), "one run and one difference at least");
    let cluster = Cluster::new()?;
    let mut pair = Pair::prepare(&cluster, args)?;
    let file_bytes = std::fs::metadata(pair.master.file("default"))?.len();
    let mut results = Results { rows: args.rows, differences: args.differences, file_bytes, ..Results::default() };
    for run in 1..=args.runs {
        pair.measure(&mut results)?;
        eprintln!("run {run} of {}", args.runs);
    }
    println!("{}", table(&results));
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&results)?)?;
    }
    let missed = missed(&results);
    missed.iter().for_each(|bound| println!("missed: {bound}"));
    Ok(if args.check && !missed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The two nodes, stopped, and the replica's directory as it was before the master changed.
struct Pair {
    master: Node,
    replica: Node,
    before: PathBuf,
}

impl Pair {
    fn prepare(cluster: &Cluster, args: &ConvergeArgs) -> Result<Self> {
        let mut master = cluster.master("master")?;
        database::fill(&mut master, args.rows)?;
        master.start()?;
        let mut replica = cluster.external("replica", &master)?.env("SYNC_INTERVAL", "3600");
        replica.start()?;
        e2e::eventually("the replica has its first copy", PATIENCE, || {
            Ok(replica.client()?.get("/readyz")?.status == 200)
        })?;
        replica.stop()?;
        master.stop()?;
        let before = cluster.path().join("before");
        offline::copy(replica.dir(), &before)?;
        database::change(&master.file("default"), args.rows, args.differences)?;
        // Each start notices that the file is another one and logs an entry; the first of them is cut off, so that no
        // log leads from the replica's position to the master's any more.
        for _ in 0..2 {
            master.start()?;
            master.stop()?;
            offline::cut_log(&master.file("default"))?;
        }
        master.start()?;
        master.stop()?;
        Ok(Self { master, replica, before })
    }

    fn measure(&mut self, results: &mut Results) -> Result<()> {
        offline::restore(&self.before, self.replica.dir())?;
        let seconds = plain::merge(&self.replica.file("default"), &self.master.file("default"))?;
        results.plain_seconds.0.push(seconds);
        offline::restore(&self.before, self.replica.dir())?;
        self.master.start()?;
        self.replica.server.start()?;
        let agent = self.replica.agent.as_mut().context("an agent of its own")?;
        agent.launch(&[])?;
        let watches = [self.master.server.process()?.pid(), agent.process()?.pid()].map(Watch::begin);
        let said = |line: &str| log_field(line, "message").is_some_and(|message| message == CONVERGED);
        let line = agent
            .process()?
            .output()
            .wait_for("the converge ends", PATIENCE, |line| said(line).then(|| line.to_owned()))?;
        let seconds: f64 = log_field(&line, "seconds").context("seconds")?.parse()?;
        results.converge_seconds.0.push(seconds);
        let [master, agent_peak] = watches.map(Watch::peak);
        results.master_peak_bytes.0.push(master? as f64);
        results.agent_peak_bytes.0.push(agent_peak? as f64);
        results.fetched_bytes.0.push(fetched(&Client::new(&agent.url())?)?);
        content::wait_all_equal(&[self.master.dir(), self.replica.dir()], PATIENCE)?;
        self.replica.stop()?;
        self.master.stop()
    }
}

/// The agent's metric.
fn fetched(agent: &Client) -> Result<f64> {
    let metrics = agent.get("/metrics")?.ok()?.body;
    let line = metrics.lines().find(|line| line.starts_with("vski_sync_converge_bytes_total{db=\"default\"}"));
    let value = line.and_then(|line| line.rsplit(' ').next()).context("vski_sync_converge_bytes_total")?;
    value.parse().context("vski_sync_converge_bytes_total")
}

impl Results {
    fn share(&self) -> Figure {
        Figure(self.fetched_bytes.0.iter().map(|bytes| bytes / self.file_bytes as f64).collect())
    }

    fn ratio(&self) -> f64 {
        self.converge_seconds.median() / self.plain_seconds.median()
    }
}

fn table(results: &Results) -> String {
    let scaled = |figure: &Figure, by: f64| Figure(figure.0.iter().map(|value| value * by).collect());
    let lines = [
        ("plain SQL between two attached files, s", results.plain_seconds.clone()),
        ("converge, s", results.converge_seconds.clone()),
        ("fetched, MB", scaled(&results.fetched_bytes, 1e-6)),
        ("fetched, % of the file", scaled(&results.share(), 100.0)),
        ("agent's own memory at most, MB", scaled(&results.agent_peak_bytes, 1e-6)),
        ("master's own memory at most, MB", scaled(&results.master_peak_bytes, 1e-6)),
    ];
    let mut text = format!(
        "{} rows, {} differences, a file of {:.0} MB, {} runs\n\n| {:<44} | {:>8} | {:>8} | {:>8} |\n|{}\n",
        results.rows,
        results.differences,
        results.file_bytes as f64 * 1e-6,
        results.converge_seconds.0.len(),
        "",
        "min",
        "median",
        "max",
        "---|--:|--:|--:|",
    );
    for (name, figure) in &lines {
        text.push_str(&format!("{}\n", Line(name, figure)));
    }
    text + &format!("\nconverge / plain SQL: {:.2}\n", results.ratio())
}

/// The bounds that were not kept, each with what was measured.
fn missed(results: &Results) -> Vec<String> {
    let bounds = [
        ("share of the file that is fetched", results.share().max(), MAX_SHARE),
        ("agent's own memory, bytes", results.agent_peak_bytes.max(), MAX_MEMORY),
        ("master's own memory, bytes", results.master_peak_bytes.max(), MAX_MEMORY),
        ("time beside plain SQL", results.ratio(), MAX_RATIO),
    ];
    let over = bounds.into_iter().filter(|(_, found, most)| found >= most);
    over.map(|(name, found, most)| format!("{name}: {found:.3}, at most {most:.3}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_missed_by_its_own_figure_alone() {
        let figure = |value: f64| Figure(vec![value]);
        let good = || Results {
            file_bytes: 100,
            plain_seconds: figure(1.0),
            converge_seconds: figure(2.0),
            fetched_bytes: figure(9.0),
            agent_peak_bytes: figure(1e6),
            master_peak_bytes: figure(1e6),
            ..Results::default()
        };
        assert!(missed(&good()).is_empty());
        for (bad, word) in [
            (Results { fetched_bytes: figure(10.0), ..good() }, "share"),
            (Results { agent_peak_bytes: figure(65e6), ..good() }, "agent"),
            (Results { master_peak_bytes: figure(65e6), ..good() }, "master"),
            (Results { converge_seconds: figure(3.1), ..good() }, "time"),
        ] {
            let missed = missed(&bad);
            assert!(missed.len() == 1 && missed[0].contains(word), "{missed:?}");
        }
    }
}
