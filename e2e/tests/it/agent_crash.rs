//! Wherever an agent dies, its replica serves a whole state, an older or the newer one, and the next agent goes on.

use std::os::unix::process::ExitStatusExt;

use anyhow::{Context, Result, ensure};
use e2e::cluster::READY;
use e2e::program::Program;
use e2e::{Cluster, Node, content, eventually, offline};
use serde_json::json;

/// Places of the first copy at which a debug build can be made to die.
const BOOTSTRAP: [&str; 4] =
    ["bootstrap:manifest", "bootstrap:chunk", "bootstrap:before-rename", "bootstrap:after-rename"];

/// The same for entries.
const APPLY: [&str; 4] = ["apply:begin", "apply:before-append", "apply:before-commit", "apply:after-commit"];

/// Records that a replica has before the crash, and those that arrive around it.
const OLD: u64 = 5;
const NEW: u64 = 20;

#[test]
fn a_crash_in_bootstrap_leaves_no_half_database() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    for label in BOOTSTRAP {
        let replica = cluster.external(&label.replace(':', "-"), &master)?;
        bootstrap_crash(&master, replica, label).with_context(|| format!("killed at {label}"))?;
    }
    Ok(())
}

#[test]
fn a_crash_while_entries_are_applied_leaves_rows_and_log_in_step() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    for label in APPLY {
        let replica = cluster.external(&label.replace(':', "-"), &master)?;
        apply_crash(&master, replica, label).with_context(|| format!("killed at {label}"))?;
    }
    Ok(())
}

fn master(cluster: &Cluster) -> Result<Node> {
    let mut master = cluster.master("master")?;
    master.start()?;
    master.admin()?.create_collection("posts", &[("title", "text")])?;
    write(&master, OLD)?;
    Ok(master)
}

fn write(master: &Node, records: u64) -> Result<()> {
    let admin = master.admin()?;
    (0..records).try_for_each(|n| admin.create_record("posts", &json!({"title": format!("post {n}")})).map(drop))
}

fn bootstrap_crash(master: &Node, mut replica: Node, label: &str) -> Result<()> {
    replica.server.start()?;
    die_at(agent(&mut replica)?, label)?;
    let reply = replica.client()?.get("/api/collections/posts/records")?;
    ensure!([200, 503].contains(&reply.status), "answered {}: {}", reply.status, reply.body);
    if reply.status == 200 {
        ensure!(replica.client()?.count("posts")? == master.client()?.count("posts")?, "a half database is served");
    }
    agent(&mut replica)?.start()?;
    replica.wait_ready()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)
}

fn apply_crash(master: &Node, mut replica: Node, label: &str) -> Result<()> {
    replica.start()?;
    replica.wait_ready()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    agent(&mut replica)?.stop()?;
    let (count, version) = (replica.client()?.count("posts")?, version(&replica)?);
    write(master, NEW)?;
    die_at(agent(&mut replica)?, label)?;

    // One record is one entry: whatever was applied, rows and log tell the same number.
    let applied = replica.client()?.count("posts")? - count;
    ensure!(applied == self::version(&replica)? - version, "{applied} records came but not as many entries");
    if label == "apply:after-commit" {
        ensure!(applied > 0, "what was committed is gone");
    }
    agent(&mut replica)?.start()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    let all = replica.client()?;
    eventually("the server serves all of them", READY, || Ok(all.count("posts")? == count + NEW))
}

fn version(node: &Node) -> Result<u64> {
    Ok(offline::position(&node.file("default"))?.version)
}

fn agent(replica: &mut Node) -> Result<&mut Program> {
    replica.agent.as_mut().context("the replica has an agent of its own")
}

/// Starts an agent that dies at a place.
fn die_at(agent: &mut Program, label: &str) -> Result<()> {
    agent.launch(&[("VSKI_FAULT", label)])?;
    let status = agent.wait_exit(READY)?;
    ensure!(status.signal() == Some(9), "ended by itself: {status}");
    Ok(())
}
