//! A first copy that takes so long that the master cannot keep the log for it any longer.

use anyhow::{Context, Result, ensure};
use e2e::client::replica_token;
use e2e::cluster::READY;
use e2e::output::log_field;
use e2e::process;
use e2e::proxy::{Network, Proxy};
use e2e::{Cluster, Node, content, eventually};
use rand::RngExt;
use serde_json::json;
use vski_replication::names::route;

/// Entries of the log that the master keeps; four times as much breaks a lease.
const RETENTION: &str = "16KiB";

/// Records of a megabyte: more chunks than an agent fetches at once.
const RECORDS: usize = 12;
const RECORD_BYTES: usize = 1 << 20;

/// Bytes of the copy that come through before the network falls silent.
const FIRST_PART: u64 = 2 << 20;

const BROKEN: &str = "snapshot lease broken";

fn filled_master(cluster: &Cluster) -> Result<Node> {
    let mut master = cluster.master("master")?.env("RETENTION_BYTES", RETENTION);
    master.start()?;
    master.admin()?.create_collection("posts", &[("text", "text")])?;
    let mut random = rand::rng();
    let mut text = || (0..RECORD_BYTES / 16).map(|_| format!("{:016x}", random.random::<u64>())).collect::<String>();
    let lines: Vec<String> = (0..RECORDS).map(|_| json!({ "text": text() }).to_string()).collect();
    let file = cluster.path().join("posts.ndjson");
    std::fs::write(&file, lines.join("\n"))?;
    let mut import = master.server.subcommand(&["import", "--collection", "posts"]);
    let imported = process::run("import", import.arg(file), READY)?;
    ensure!(imported.status.success(), "{imported:?}");
    Ok(master)
}

/// The field of the first of a node's lines with this message, once it is there.
fn told(node: &Node, message: &str, field: &str) -> Result<String> {
    eventually(&format!("{} says {message:?}", node.name()), READY, || {
        let programs = std::iter::once(&node.server).chain(&node.agent);
        let mut lines = programs.flat_map(e2e::program::Program::lines);
        Ok(lines.find(|line| line.contains(message)).and_then(|line| log_field(&line, field)))
    })
}

#[test]
fn a_snapshot_whose_lease_breaks_is_told_by_name_and_a_new_one_is_fetched() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = filled_master(&cluster)?;
    let admin = master.admin()?;
    let network = Proxy::start(&master.server.url())?;
    network.set(Network::SilentAfter(FIRST_PART));
    let mut replica = cluster.external("replica", &master)?.env("MASTER_URL", network.url()).env("SYNC_MODE", "stream");
    replica.start()?;
    let first = told(&replica, "bootstrap started", "version")?;
    ensure!(replica.client()?.get("/api/collections/posts/records")?.status == 503, "half a copy is served");

    let text = "x".repeat(1_000);
    let id = eventually("the lease breaks", READY, || {
        admin.create_record("posts", &json!({ "text": text }))?;
        let lines = master.server.lines();
        Ok(lines.iter().find(|line| line.contains(BROKEN)).and_then(|line| log_field(line, "id")))
    })?;
    let peer = master.client()?.with_token(&replica_token("e2e"));
    let gone = peer.get(&format!("{}/{id}", route::SNAPSHOT))?;
    ensure!(gone.status == 410 && gone.body.contains("lease"), "{gone:?}");
    network.set(Network::Whole);

    let reason = told(&replica, "the snapshot is gone", "error")?;
    ensure!(reason.contains("lease"), "the replica was not told why: {reason}");
    replica.wait_ready()?;
    let agent = replica.agent.as_ref().context("an agent")?;
    let started: Vec<String> = agent.lines().into_iter().filter(|line| line.contains("bootstrap started")).collect();
    ensure!(started.len() >= 2, "{started:?}");
    let second = log_field(&started[1], "version").context("a version")?;
    ensure!(second.parse::<u64>()? > first.parse::<u64>()?, "the same copy again: {first} {second}");
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    admin.create_record("posts", &json!({ "text": "afterwards" }))?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY).context("entries are followed")
}
