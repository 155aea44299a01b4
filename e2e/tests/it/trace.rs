use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, Reply, records, replica_token};
use e2e::cluster::{READY, assert_quiet};
use e2e::{Cluster, Node, eventually};
use reqwest::Method;
use serde_json::json;
use vski_replication::entry::Entry;
use vski_replication::names::route;
use vski_replication::trace::Trace;
use vski_replication::{changelog, connection};

use crate::collector::{Collector, Received};
use crate::trio::POSTS;

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Where collectors listen.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A span of a caller, recorded or not.
fn caller(flags: &str) -> String {
    format!("00-{TRACE_ID}-{CALLER}-{flags}")
}

/// A node that sends its spans to `collector`, soon.
fn traced(node: Node, collector: &Collector) -> Node {
    let name = format!("service.instance.id={}", node.name());
    let node = node.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()).env("OTEL_RESOURCE_ATTRIBUTES", name);
    node.env("OTEL_BSP_SCHEDULE_DELAY", "100")
}

fn start(cluster: &Cluster, configure: impl Fn(Node) -> Node) -> Result<[Node; 3]> {
    let mut master = configure(cluster.master("master")?);
    master.start()?;
    master.admin()?.create_collection(POSTS, &[("title", "text")])?;
    let mut replicas = [cluster.embedded("embedded", &master)?, cluster.external("external", &master)?].map(configure);
    for replica in &mut replicas {
        replica.start()?;
        replica.wait_ready()?;
    }
    let [embedded, external] = replicas;
    Ok([master, embedded, external])
}

fn post(client: &Client) -> Result<Reply> {
    client.send(Method::POST, &records(POSTS), Some(&json!({"title": "traced"})))?.ok()
}

/// The version that a write became.
fn version(reply: &Reply) -> Result<u64> {
    Ok(reply.position()?.rsplit(':').next().context("a position ends with a version")?.parse()?)
}

/// The trace that a node's log has for a version, once the node has the entry.
fn stored(node: &Node, version: u64) -> Result<Option<Trace>> {
    let what = format!("{} has entry {version}", node.name());
    let conn = connection::reader(&node.dir().join("default.db"))?;
    let entry = eventually(&what, READY, || Ok(changelog::entry(&conn, version)?))?;
    Ok(entry.trace)
}

/// The span `name` of a node that is about a version of the default database.
fn span_of(collector: &Collector, node: &Node, name: &str, version: u64) -> Result<Received> {
    let (version, what) = (version.to_string(), format!("the span {name} of {}", node.name()));
    collector.wait_for(&what, |received| {
        let about = |key| received.attribute(key).unwrap_or_default();
        received.node == node.name()
            && received.span.name == name
            && (about("db"), about("version")) == ("default".to_owned(), version.clone())
    })
}

#[test]
fn one_trace_leads_from_the_request_over_the_commit_to_where_it_is_applied() -> Result<()> {
    let (collector, cluster) = (Collector::start(HERE)?, Cluster::new()?);
    let nodes = start(&cluster, |node| traced(node, &collector))?;
    let [master, embedded, external] = &nodes;
    let admin = master.admin()?;

    let asked = version(&post(&admin.with_traceparent(&caller("01")))?)?;
    let commit = span_of(&collector, master, "commit", asked)?;
    ensure!(hex(&commit.span.trace_id) == TRACE_ID, "the caller's trace: {commit:?}");
    ensure!(commit.attribute("requests").as_deref() == Some("1"), "{commit:?}");
    let request = collector.wait_for("the request", |received| received.span.span_id == commit.span.parent_span_id)?;
    ensure!(request.span.name == "POST /api/collections/{collection}/records", "{request:?}");
    ensure!(commit.is_child_of(&request) && hex(&request.span.parent_span_id) == CALLER, "{request:?}");
    ensure!((request.service.as_str(), request.node.as_str()) == ("vski-server", "master"), "{request:?}");
    for (replica, service) in [(embedded, "vski-server"), (external, "vski-sync-agent")] {
        let apply = span_of(&collector, replica, "apply", asked)?;
        ensure!(apply.is_child_of(&commit) && apply.service == service, "{apply:?}");
        let pull = apply.span.links.first().context("an apply without the pull that brought it")?;
        let pull = collector.wait_for("the pull", |received| received.span.span_id == pull.span_id)?;
        ensure!(pull.span.name == "pull" && pull.node == replica.name(), "{pull:?}");
        let served = collector.wait_for("the pull on the master", |received| received.is_child_of(&pull))?;
        ensure!(served.span.name == "GET /api/replica/changeset" && served.node == "master", "{served:?}");
        let trace = stored(replica, asked)?.context("an entry without its trace")?;
        ensure!(trace.span_id.as_slice() == commit.span.span_id, "{trace}");
    }

    let unasked = version(&post(&admin)?)?;
    let commit = span_of(&collector, master, "commit", unasked)?;
    let request = collector.wait_for("the request", |received| commit.is_child_of(received))?;
    ensure!(request.span.parent_span_id.is_empty(), "a trace of its own: {request:?}");
    ensure!(hex(&request.span.trace_id) != TRACE_ID, "a trace of its own: {request:?}");
    ensure!(span_of(&collector, embedded, "apply", unasked)?.is_child_of(&commit), "{commit:?}");
    assert_quiet(&nodes.each_ref(), &[])
}

#[test]
fn what_the_caller_does_not_record_nobody_records() -> Result<()> {
    let (collector, cluster) = (Collector::start(HERE)?, Cluster::new()?);
    let nodes = start(&cluster, |node| traced(node, &collector))?;
    let [master, embedded, external] = &nodes;
    let admin = master.admin()?;
    let unrecorded = version(&post(&admin.with_traceparent(&caller("00")))?)?;
    let recorded = version(&post(&admin)?)?;
    for replica in [embedded, external] {
        ensure!(stored(replica, unrecorded)?.is_none(), "{}: a trace that nobody records", replica.name());
        // Spans of one process arrive in order: the unrecorded one would be here by now.
        span_of(&collector, replica, "apply", recorded)?;
    }
    span_of(&collector, master, "commit", recorded)?;
    let leaked = collector.spans().into_iter().find(|received| {
        let about = received.attribute("version");
        hex(&received.span.trace_id) == TRACE_ID
            || about == Some(unrecorded.to_string()) && received.span.name != "pull"
    });
    ensure!(leaked.is_none(), "{leaked:?}");
    Ok(())
}

#[test]
fn without_an_exporter_entries_have_the_trace_that_the_caller_sent_and_no_other() -> Result<()> {
    let cluster = Cluster::new()?;
    let nodes = start(&cluster, |node| node)?;
    let admin = nodes[0].admin()?;
    let unasked = version(&post(&admin)?)?;
    let asked = version(&post(&admin.with_traceparent(&caller("01")))?)?;
    let malformed = version(&post(&admin.with_traceparent("00-nonsense"))?)?;
    for node in &nodes {
        ensure!(stored(node, unasked)?.is_none(), "{}: a trace out of nothing", node.name());
        let trace = stored(node, asked)?.context("the caller's trace")?;
        ensure!(trace.to_string() == caller("01"), "{}: {trace}", node.name());
        ensure!(stored(node, malformed)?.is_none(), "{}: a trace out of nonsense", node.name());
    }
    assert_quiet(&nodes.each_ref(), &[])
}

#[test]
fn a_commit_of_several_requests_is_a_child_of_one_and_linked_to_the_others() -> Result<()> {
    const CLIENTS: usize = 8;
    let (collector, cluster) = (Collector::start(HERE)?, Cluster::new()?);
    let mut master = traced(cluster.master("master")?, &collector);
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection(POSTS, &[("title", "text")])?;
    let shared = |received: &Received| {
        received.span.name == "commit" && received.attribute("requests").is_some_and(|count| count != "1")
    };
    let commit = eventually("requests share a commit", READY, || {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| post(&admin))).collect();
            clients.into_iter().try_for_each(|client| client.join().expect("no client panics").map(drop))
        })?;
        Ok(collector.spans().into_iter().find(shared))
    })?;
    let requests: usize = commit.attribute("requests").context("how many")?.parse()?;
    ensure!(commit.span.links.len() == requests - 1, "{commit:?}");
    let others = commit.span.links.iter().map(|link| &link.span_id);
    for id in others.chain([&commit.span.parent_span_id]) {
        let request = collector.wait_for("a request", |received| received.span.span_id == *id)?;
        ensure!(request.span.name.starts_with("POST "), "{request:?}");
    }
    Ok(())
}

#[test]
fn directories_and_agents_from_before_there_were_traces_go_on() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut nodes = start(&cluster, |node| node)?;
    nodes.iter_mut().try_for_each(Node::kill9)?;
    for node in &nodes {
        // As an older version left it. An edit after a kill is nobody's to notice.
        connection::writer(&node.dir().join("default.db"))?.execute_batch("DROP TABLE _vski_trace")?;
    }
    nodes.iter_mut().try_for_each(Node::start)?;
    let before = nodes[0].admin()?.status_of("default")?;
    let asked = version(&post(&nodes[0].admin()?.with_traceparent(&caller("01")))?)?;
    for node in &nodes {
        let trace = stored(node, asked)?.context("the caller's trace")?;
        ensure!(trace.to_string() == caller("01"), "{}: {trace}", node.name());
    }
    let path = format!(
        "{}?db=default&epoch={}-{}&version={}&chain={}",
        route::CHANGESET,
        before["generation"],
        before["epoch"].as_str().context("an epoch")?,
        before["version"],
        before["sha256"].as_str().context("a chain")?,
    );
    let reply = nodes[0].client()?.with_token(&replica_token("older")).get(&path)?.ok()?;
    let mut frames = reply.bytes.as_slice();
    let entry = Entry::decode(&mut frames)?.context("an entry")?;
    ensure!((entry.version, entry.trace) == (asked, None) && frames.is_empty(), "in the form of then: {entry:?}");
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_collector_that_is_not_there_is_told_once_with_what_to_do() -> Result<()> {
    let cluster = Cluster::new()?;
    let nowhere = format!("http://127.0.0.1:{}", e2e::program::free_port()?);
    let master = cluster.master("master")?;
    let mut master = master.env("OTEL_EXPORTER_OTLP_ENDPOINT", &nowhere).env("OTEL_BSP_SCHEDULE_DELAY", "100");

    master.start()?;
    eventually("the collector is missed", READY, || {
        master.client()?.get("/health")?;
        Ok(!master.alarms(&[]).is_empty())
    })?;
    // The end sends what is left, which fails again.
    master.client()?.get("/health")?;
    master.stop()?;
    let told = master.alarms(&[]);
    let parts = ["WARN", "traces do not reach the collector", &*nowhere, "OTEL_EXPORTER_OTLP_ENDPOINT"];
    ensure!(told.len() == 1 && parts.iter().all(|part| told[0].contains(part)), "{told:#?}");
    Ok(())
}
