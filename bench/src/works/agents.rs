use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::client::{Client, SECRET};
use e2e::{Cluster, eventually, offline};
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::StatusCode;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use vski_replication::entry::Entry;
use vski_replication::names::{DEFAULT_DATABASE, header, route};
use vski_replication::position::Position;
use vski_replication::token::{Claims, Secrets};

use crate::options::Options;
use crate::pace::at_rate;
use crate::posts;
use crate::report::{Bound, Report, VSKI, metric};
use crate::usage::Usage;

const AGENTS: u64 = 1_000;

/// Writes a second.
const RATE: u32 = 100;

/// Share of the rate that must be reached.
const REACHED: f64 = 0.95;

/// How much longer than a load it lasts.
const LONGER: u64 = 2;

/// How long a poll may wait at the master, seconds.
const WAIT: u64 = 20;

/// How long all agents may take to have an entry.
const PATIENCE: Duration = Duration::from_secs(120);

const TOKEN_SECONDS: u64 = 3600;

const CASE: &str = "100 writes/s";
const WRITES: &str = "writes/s";
const ENTRIES: &str = "entries each";
const POLLS: &str = "polls/s";
const BEHIND: &str = "s behind at the end";

/// Measures it.
pub fn run(options: &Options) -> Result<Report> {
    let agents = options.scaled(AGENTS);
    let mut report = Report::new("agents", format!("{agents} agents, simulated as long polls, on one master"));
    for round in 1..=options.rounds {
        measure(&mut report, agents, Duration::from_secs(options.seconds * LONGER))?;
        eprintln!("agents: round {round} of {}", options.rounds);
    }
    report.note(
        "CPU and memory are the master's. Each agent asks, reads the entries of the answer, checks that they follow the \
         ones before, and asks again; it applies and stores nothing. All agents are one process beside the master, so \
         where both together want more than the machine has, an answer carries several entries.",
    );
    report.note("Every agent must have got every entry once, in order; else there is an error instead of a table.");
    // Less than that was another work.
    report.own(CASE, WRITES, Bound::AtLeast(f64::from(RATE) * REACHED));
    report.own(CASE, metric::CPU, Bound::AtMost(100.0));
    report.own(CASE, metric::MEMORY, Bound::AtMost(100.0));
    Ok(report)
}

fn measure(report: &mut Report, agents: u64, time: Duration) -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    posts::create(&master.admin()?)?;
    let file = master.file(DEFAULT_DATABASE);
    let swarm = Swarm::start(&master.server.url(), agents, offline::position(&file)?)?;
    // Who has this record's entry is connected, and asks for the next one.
    master.client()?.create_record(posts::NAME, &posts::record(&mut StdRng::seed_from_u64(12)))?;
    let first = offline::position(&file)?;
    swarm.wait_for(first.version)?;
    swarm.counts.polls.store(0, Ordering::Relaxed);
    let usage = Usage::begin(&[master.server.process()?.pid()])?;
    let began = Instant::now();
    let written = write(&master.client()?, time)?;
    let (taken, passed) = (usage.taken()?, began.elapsed().as_secs_f64());
    let polls = swarm.counts.polls.load(Ordering::Relaxed) as f64 / passed;
    let last = offline::position(&file)?.version;
    let late = Instant::now();
    swarm.wait_for(last)?;
    let values = [
        (WRITES, f64::from(written) / passed),
        (POLLS, polls),
        (ENTRIES, (last - first.version) as f64),
        (BEHIND, late.elapsed().as_secs_f64()),
        (metric::CPU, taken.cpu),
        (metric::MEMORY, taken.peak_mb),
    ];
    for (metric, value) in values {
        report.add(CASE, VSKI, metric, value);
    }
    drop(swarm);
    master.stop()
}

/// Writes at the rate; returns how many.
fn write(master: &Client, time: Duration) -> Result<u32> {
    let mut random = StdRng::seed_from_u64(13);
    at_rate(RATE, time, || master.create_record(posts::NAME, &posts::record(&mut random)).map(drop))
}

/// What all agents have in common.
struct Counts {
    polls: AtomicU64,
    /// The version that each agent has.
    versions: Vec<AtomicU64>,
}

/// All agents, on one thread.
struct Swarm {
    runtime: Runtime,
    agents: std::sync::Mutex<JoinSet<Result<()>>>,
    counts: Arc<Counts>,
}

impl Swarm {
    fn start(url: &str, agents: u64, position: Position) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let versions = (0..agents).map(|_| AtomicU64::new(position.version)).collect();
        let counts = Arc::new(Counts { polls: AtomicU64::new(0), versions });
        let http = reqwest::Client::builder().no_proxy().build()?;
        let secrets = Secrets::new(SECRET, None);
        let mut set = JoinSet::new();
        for number in 0..usize::try_from(agents)? {
            let name = format!("agent-{number}");
            let token = secrets.mint(&Claims::replica(&name, TOKEN_SECONDS));
            let url = format!("{url}{}", route::CHANGESET);
            let agent = Agent { http: http.clone(), url, name, token, position };
            set.spawn_on(agent.follow(number, Arc::clone(&counts)), runtime.handle());
        }
        Ok(Self { runtime, agents: std::sync::Mutex::new(set), counts })
    }

    /// Waits until all agents have this version. An agent that has ended has failed.
    fn wait_for(&self, version: u64) -> Result<()> {
        let behind = || {
            let versions = self.counts.versions.iter().map(|version| version.load(Ordering::Relaxed));
            versions.filter(|found| *found < version).count()
        };
        let done = eventually("all agents have the entry", PATIENCE, || Ok(behind() == 0));
        let mut agents = self.agents.lock().map_err(|_| anyhow!("an agent panicked"))?;
        if let Some(ended) = agents.try_join_next() {
            ended.context("an agent panicked")?.context("an agent ended")?;
        }
        done.with_context(|| format!("{} agents are behind", behind()))
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        if let Ok(mut agents) = self.agents.lock() {
            agents.abort_all();
            self.runtime.block_on(async { while agents.join_next().await.is_some() {} });
        }
    }
}

struct Agent {
    http: reqwest::Client,
    url: String,
    name: String,
    token: String,
    position: Position,
}

impl Agent {
    /// Asks again and again; ends only by an error.
    async fn follow(mut self, number: usize, counts: Arc<Counts>) -> Result<()> {
        loop {
            let answer = self.poll().await.with_context(|| self.name.clone())?;
            counts.polls.fetch_add(1, Ordering::Relaxed);
            let mut frames = answer.as_slice();
            while let Some(entry) = Entry::decode(&mut frames)? {
                ensure!(
                    entry.version == self.position.version + 1,
                    "entry {} came after {}",
                    entry.version,
                    self.position.version
                );
                self.position = entry.position();
            }
            counts.versions[number].store(self.position.version, Ordering::Relaxed);
        }
    }

    /// The frames of one answer; none where there was no news.
    async fn poll(&self) -> Result<Vec<u8>> {
        let text = self.position.to_string();
        let mut parts = text.split(':');
        let mut part = || parts.next().context("a position has three parts");
        let query = [
            ("db", DEFAULT_DATABASE),
            ("epoch", part()?),
            ("version", part()?),
            ("chain", part()?),
            ("wait", &WAIT.to_string()),
        ];
        let request = self.http.get(&self.url).query(&query).bearer_auth(&self.token);
        let answer = request.header(header::REPLICA_ID, &self.name).send().await?;
        match answer.status() {
            StatusCode::OK => Ok(answer.bytes().await?.to_vec()),
            StatusCode::NO_CONTENT => Ok(Vec::new()),
            status => anyhow::bail!("{status}: {}", answer.text().await?),
        }
    }
}
