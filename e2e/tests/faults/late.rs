//! A replica that was away, or is new, comes when the master is thousands of rows and several schema changes ahead: by the
//! log where it reaches back far enough, by a snapshot or row by row where it was pruned.

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::cluster::READY;
use e2e::{eventually, load};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::node::{Node, assert_equal};
use super::rows;

/// Rows of one wave, in three entries, between which the schema changes.
const WAVE: u64 = 3000;

/// A log that holds less than one wave. Four times as much, which is kept for snapshots, is more than one.
const LITTLE: &str = "512KiB";

/// What an agent says that the log does not lead to any more.
const PRUNED: &str = "history_pruned";

/// What an agent says that fetches a snapshot.
const SNAPSHOT: &str = "bootstrap started";

pub fn scenario(cluster: &Cluster) -> Result<()> {
    let (mut master, mut away) = (cluster.master()?, cluster.replica("r001")?);
    master.start_ready()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &load::FIELDS)?;
    away.start_ready()?;
    let first = snapshots(&away)?;
    ensure!(first > 0, "the first copy is a snapshot");

    away.stop()?;
    wave(&admin, 1)?;
    away.start()?;
    assert_equal(&master, &[&away]).context("by the log")?;
    ensure!(snapshots(&away)? == first, "a snapshot was fetched although the log was long enough");

    away.stop()?;
    let left = version(&master, "vski_log_version")?;
    master.stop()?;
    master.server.set("RETENTION_BYTES", LITTLE);
    master.start_ready()?;
    wave(&admin, 2)?;
    eventually("the master has pruned", READY, || Ok(version(&master, "vski_log_oldest_version")? > left + 1))?;
    let mut new = cluster.replica("r002")?;
    new.start()?;
    assert_equal(&master, &[&new]).context("a new replica, after pruning")?;
    ensure!(snapshots(&new)? > 0, "r002 began without a snapshot");

    cluster.expect("r001-agent", &[PRUNED, "the copy has converged with the master"]);
    cluster.expect("master", &["a replica's position is not in this log"]);
    away.start()?;
    assert_equal(&master, &[&away, &new]).context("a replica that was away, after pruning")?;
    ensure!(said(&away, PRUNED)? > 0, "r001 does not say that the log no longer led to it");
    wave(&admin, 3)?;
    assert_equal(&master, &[&away, &new]).context("both follow")
}

/// Thousands of rows and three schema changes: a field, an index, a collection.
fn wave(admin: &Client, number: u64) -> Result<()> {
    let first = number * WAVE;
    rows::insert(admin, "posts", first, WAVE / 3)?;
    let more = format!("more{number}");
    let added: Vec<String> = (1..=number).map(|number| format!("more{number}")).collect();
    let fields = load::FIELDS.into_iter().chain(added.iter().map(|name| (name.as_str(), "text")));
    let fields: Vec<Value> = fields.map(|(name, kind)| json!({"name": name, "type": kind})).collect();
    admin.update_collection("posts", &json!({"fields": fields}))?;
    rows::insert(admin, "posts", first + WAVE / 3, WAVE / 3)?;
    admin.sql(&format!("CREATE INDEX posts_{more} ON posts ({more}, n)"))?.ok()?;
    let collection = format!("posts{number}");
    admin.create_collection(&collection, &load::FIELDS)?;
    rows::insert(admin, &collection, first, WAVE / 3)?;
    admin.create_record("posts", &json!({"n": first, (more): "by the interface"})).map(drop)
}

/// How many snapshots a replica has fetched.
fn snapshots(node: &Node) -> Result<usize> {
    said(node, SNAPSHOT)
}

/// How often a replica's agent has said something.
fn said(node: &Node, text: &str) -> Result<usize> {
    Ok(node.agent.as_ref().context("an agent")?.lines().iter().filter(|line| line.contains(text)).count())
}

/// What a node's metrics say of its log.
fn version(node: &Node, metric: &str) -> Result<u64> {
    let metrics = node.client()?.get("/metrics")?.ok()?.body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{metric}{{db=\"default\"}} ")));
    line.with_context(|| format!("no {metric} in {metrics}"))?.parse().context("a whole number")
}
