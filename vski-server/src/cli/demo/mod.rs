//! `demo`: a master and replicas on this machine, each node a process of its own, with real data to try.

/// Child processes: start, wait, stop.
mod nodes;

/// The data: countries and cities, and a post to greet with.
mod data;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use vski_replication::token::{Claims, Secrets};

use self::nodes::Nodes;
use super::target::Api;
use super::{Failure, block_on};

/// Set in the environment of the demo's nodes: they end when the demo does.
pub const END_WITH_PARENT: &str = "VSKI_END_WITH_PARENT";

/// Most replicas that make sense on one machine.
const MAX_REPLICAS: u16 = 16;

/// How long a node may take to be ready, and a replica to hold everything.
const READY_LIMIT: Duration = Duration::from_secs(60);

const ADMIN: (&str, &str) = ("admin@example.com", "password");

#[derive(Args, Clone)]
pub struct DemoArgs {
    /// How many replicas
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=i64::from(MAX_REPLICAS)))]
    replicas: u16,
    /// Directory of all nodes' data, kept for the next time [default: a temporary one, removed at the end]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Port of the master; the replicas take the next ones
    #[arg(long, default_value_t = 3001, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port: u16,
}

pub fn execute(args: &DemoArgs) -> Result<(), Failure> {
    let temporary = match &args.data {
        Some(_) => None,
        None => {
            Some(tempfile::tempdir().map_err(|error| Failure::setup(format!("make a temporary directory: {error}")))?)
        }
    };
    let root = args.data.clone().or_else(|| temporary.as_ref().map(|dir| dir.path().to_owned()));
    let root = root.expect("one of the two was chosen");
    block_on(run(args, root))
}

async fn run(args: &DemoArgs, root: PathBuf) -> Result<(), Failure> {
    let (mut term, mut int) = (
        signal(SignalKind::terminate()).map_err(Failure::setup)?,
        signal(SignalKind::interrupt()).map_err(Failure::setup)?,
    );
    let mut nodes = Nodes::new(root, args.port, 1 + args.replicas)?;
    let result = tokio::select! {
        result = show(args, &mut nodes) => result,
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
    };
    println!("\nstopping {} processes", nodes.count());
    nodes.stop().await?;
    println!("stopped");
    result
}

/// Starts everything, fills it, tells about it, and waits for a node to end by itself, which is an error.
async fn show(args: &DemoArgs, nodes: &mut Nodes) -> Result<(), Failure> {
    println!("data and logs: {}", nodes.root().display());
    nodes.start_master(ADMIN)?;
    let master = nodes.url(0);
    nodes.wait_ready(&master, READY_LIMIT).await?;
    println!("master     {master}  ready");
    for number in 1..=args.replicas {
        nodes.start_replica(number)?;
    }
    let api = Api::new(&master, nodes.secrets())?;
    data::fill(api).await?;
    let started = Instant::now();
    for number in 1..=args.replicas {
        let replica = nodes.url(number);
        nodes.wait_ready(&replica, READY_LIMIT).await?;
        wait_equal(nodes, &master, &replica).await?;
        let (cities, countries) = (total(nodes, &replica, "cities").await?, total(nodes, &replica, "countries").await?);
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "replica {number}  {replica}  holds all of it: {cities} cities, {countries} countries ({seconds:.1} s after the import)"
        );
    }
    explain(&master, &nodes.url(args.replicas.min(1)));
    nodes.watch().await
}

fn explain(master: &str, replica: &str) {
    println!("\nlog in on any node: {} / {}", ADMIN.0, ADMIN.1);
    println!("\ntry:");
    println!("  curl '{replica}/api/collections/cities/records?perPage=3'");
    println!(
        "  curl -X POST {replica}/api/collections/posts/records -H 'Content-Type: application/json' -d '{{\"title\": \"New Post\"}}'"
    );
    println!("  curl -I {replica}/health");
    println!("\nwrite on the master, {master}; Ctrl-C stops everything");
}

/// Waits until a replica's histories are the master's.
async fn wait_equal(nodes: &Nodes, master: &str, replica: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let (here, there) = (positions(nodes, master).await?, positions(nodes, replica).await?);
        if here == there {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::work(format!(
                "{replica} does not catch up: see its logs in {}",
                nodes.root().display()
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn positions(nodes: &Nodes, url: &str) -> Result<Vec<(Value, Value)>, Failure> {
    let token = token(nodes.secrets());
    let status = nodes.get(&format!("{url}{}", vski_replication::names::route::STATUS), Some(token)).await?;
    let dbs = status["dbs"].as_array().cloned().unwrap_or_default();
    Ok(dbs.into_iter().map(|db| (db["name"].clone(), db["sha256"].clone())).collect())
}

async fn total(nodes: &Nodes, url: &str, collection: &str) -> Result<u64, Failure> {
    let page = nodes.get(&format!("{url}/api/collections/{collection}/records?perPage=1"), None).await?;
    Ok(page["totalItems"].as_u64().unwrap_or(0))
}

fn token(secrets: &Secrets) -> String {
    secrets.mint(&Claims::replica("demo", 60))
}
