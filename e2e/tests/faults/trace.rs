//! One trace from a client's write over the master's commit to the agents' pull and apply, as a collector outside the
//! containers receives it.

use anyhow::{Context, Result, ensure};
use e2e::client::records;
use reqwest::Method;
use serde_json::json;

use super::cluster::Cluster;
use super::collector::{Collector, Received};
use super::node::{Node, assert_equal};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";

/// What a node says when a batch of spans was not taken.
const UNSENT: &str = "traces do not reach the collector";

pub fn scenario(cluster: &Cluster) -> Result<()> {
    let collector = Collector::start(cluster.gateway()?.parse()?)?;
    let traced = |node: Node| {
        let name = format!("service.instance.id={}", node.name());
        let node = node.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()).env("OTEL_BSP_SCHEDULE_DELAY", "100");
        node.env("OTEL_RESOURCE_ATTRIBUTES", &name)
    };
    let (mut master, mut one) = (traced(cluster.master()?), traced(cluster.replica("r001")?));
    let mut two = traced(cluster.replica("r002")?);
    // A busy machine may take a batch too late. What is waited for below has arrived.
    ["master", "r001", "r002", "r001-agent", "r002-agent"].iter().for_each(|name| cluster.expect(name, &[UNSENT]));
    master.start_ready()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text")])?;
    for replica in [&mut one, &mut two] {
        replica.start_ready()?;
    }
    assert_equal(&master, &[&one, &two])?;

    let client = admin.with_traceparent(&format!("00-{TRACE_ID}-{CLIENT}-01"));
    let reply = client.send(Method::POST, &records("posts"), Some(&json!({"title": "traced"})))?.ok()?;
    let version = reply.position()?.rsplit(':').next().context("a position ends with a version")?.to_owned();
    let about = |node: &str, name: &str| {
        collector.wait_for(&format!("the span {name} of {node}"), |received| {
            let version_of = received.attribute("version");
            received.node == node && received.span.name == name && version_of.as_deref() == Some(&version)
        })
    };
    let commit = about("master", "commit")?;
    let write = collector.wait_for("the write", |received| commit.is_child_of(received))?;
    ensure!(write.service == "vski-server" && hex(&write.span.parent_span_id) == CLIENT, "the client's: {write:?}");
    ensure!(write.span.name == "POST /api/collections/{collection}/records", "{write:?}");
    let mut trace = vec![write, commit.clone()];
    for replica in ["r001", "r002"] {
        let apply = about(replica, "apply")?;
        ensure!(apply.service == "vski-sync-agent" && apply.is_child_of(&commit), "{apply:?}");
        // A pull may bring entries of many traces: it is linked, not a parent.
        let link = apply.span.links.first().context("an apply without the pull that brought it")?;
        let pull = collector.wait_for("the pull", |received| received.span.span_id == link.span_id)?;
        ensure!(pull.span.name == "pull" && pull.node == replica, "{pull:?}");
        let served = collector.wait_for("the pull on the master", |received| received.is_child_of(&pull))?;
        ensure!(served.node == "master" && served.service == "vski-server", "{served:?}");
        trace.push(apply);
    }
    let ids: Vec<String> = trace.iter().map(|Received { span, .. }| hex(&span.trace_id)).collect();
    ensure!(ids.iter().all(|id| id == TRACE_ID), "more than one trace: {ids:?}");
    assert_equal(&master, &[&one, &two])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
