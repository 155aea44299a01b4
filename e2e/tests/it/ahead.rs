//! A replica that has much to catch up asks for the next batch while it applies one. Wherever it dies meanwhile, it has told
//! the master of nothing that it does not hold, and the next agent goes on from what it holds.

use std::os::unix::process::ExitStatusExt;

use anyhow::{Context, Result, ensure};
use e2e::cluster::{READY, assert_quiet};
use e2e::{Cluster, Node, content, load, offline};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use vski_replication::names::route;

/// Entries of a million bytes each, of which a batch holds eight: five batches.
const RECORDS: usize = 36;
const RECORD_BYTES: usize = 1_000_000;

/// How many entries the master believes that the replica lacks.
fn believed_behind(master: &Node) -> Result<u64> {
    let list = master.admin()?.get(route::REPLICAS)?.ok()?.json()?;
    let rows = list["replicas"].as_array().context("a list")?;
    let row = rows.iter().find(|row| row["replica"] == "replica" && row["db"] == "default").context("no row")?;
    row["entriesBehind"].as_u64().with_context(|| row.to_string())
}

#[test]
fn an_agent_that_dies_while_it_catches_up_has_acknowledged_only_what_it_holds() -> Result<()> {
    let mut random = StdRng::seed_from_u64(load::seed()?);
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("text", "text")])?;
    let mut replica = cluster.external("replica", &master)?;
    replica.start()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    replica.agent.as_mut().context("an agent")?.stop()?;
    for _ in 0..RECORDS {
        let text: String = (0..RECORD_BYTES / 16).map(|_| format!("{:016x}", random.random::<u64>())).collect();
        admin.create_record("posts", &json!({"text": text}))?;
    }
    let mut held = offline::position(&replica.file("default"))?.version;
    let head = offline::position(&master.file("default"))?.version;
    for fault in ["apply:before-commit@2", "apply:after-commit@1", "apply:before-commit@2"] {
        let agent = replica.agent.as_mut().context("an agent")?;
        agent.launch(&[("VSKI_FAULT", fault)])?;
        let status = agent.wait_exit(READY)?;
        ensure!(status.signal() == Some(9), "{fault}: it ended with {status}");
        let now = offline::position(&replica.file("default"))?.version;
        ensure!(held < now && now < head, "{fault}: from {held} to {now} of {head}");
        let believed = believed_behind(&master)?;
        ensure!(believed >= head - now, "{fault}: it lacks {}, and the master believes {believed}", head - now);
        held = now;
    }
    replica.agent.as_mut().context("an agent")?.start()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    replica.verify()?;
    assert_quiet(&[&master, &replica], &[])
}
