use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::{Cluster, eventually};
use serde_json::json;

/// A metric's type and the names of its labels.
type Metric = (String, BTreeSet<String>);

/// The metrics by name, as docs/OPERATIONS.md has them.
fn documented() -> Result<BTreeMap<String, Metric>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md");
    let text = std::fs::read_to_string(file).context("read OPERATIONS.md")?;
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `vski_"));
    rows.map(|row| {
        let (name, rest) = row.split_once("` | ").context("a row of the table")?;
        let mut cells = rest.split('|').map(str::trim);
        let (kind, labels) = (cells.next().context("a type")?, cells.next().context("labels")?);
        let labels = labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        Ok((format!("vski_{name}"), (kind.to_owned(), labels)))
    })
    .collect()
}

/// The metrics by name, as a process tells.
fn exported(client: &Client) -> Result<BTreeMap<String, Metric>> {
    let text = client.get("/metrics")?.ok()?.body;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    Ok(types.map(|(name, kind)| (name.to_owned(), (kind.to_owned(), labels(&text, name)))).collect())
}

/// The labels of a metric's first sample; `le` belongs to the format.
fn labels(text: &str, name: &str) -> BTreeSet<String> {
    let samples = text.lines().filter_map(|line| line.strip_prefix(name));
    let sample = samples.map(|rest| ["_bucket", ""].iter().find_map(|end| rest.strip_prefix(end)?.strip_prefix('{')));
    let names = sample.flatten().next().unwrap_or_default().split("\",").filter_map(|pair| pair.split_once("=\""));
    names.map(|(name, _)| name.to_owned()).filter(|name| name != "le").collect()
}

#[test]
fn the_documented_metrics_are_those_of_the_running_processes() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("n", "number")])?;
    let mut embedded = cluster.embedded("embedded", &master)?;
    let mut external = cluster.external("external", &master)?;
    for replica in [&mut embedded, &mut external] {
        replica.start()?;
        replica.wait_ready()?;
    }
    admin.create_record("posts", &json!({"n": 1}))?;
    // One refusal of each kind that a metric counts.
    ensure!(master.client()?.get("/api/replica/status")?.status == 401);
    let agent = external.agent.as_ref().context("an agent of its own")?.url();
    let replicas = [embedded.client()?, Client::new(&agent)?];
    eventually("the replicas have applied an entry", e2e::cluster::READY, || {
        Ok(embedded.client()?.count("posts")? == 1 && external.client()?.count("posts")? == 1)
    })?;
    // Comparisons are told of once there was one.
    let operator = vski_replication::token::Secrets::new(e2e::client::SECRET, None)
        .mint(&vski_replication::token::Claims::operator());
    replicas[1].with_token(&operator).send(reqwest::Method::POST, "/verify", None)?.ok()?;
    // Errors are counted once there are some.
    master.stop()?;
    let mut found = BTreeMap::new();
    eventually("the agents have counted a failed sync", e2e::cluster::READY, || {
        for client in &replicas {
            found.extend(exported(client)?);
        }
        Ok(found.contains_key("vski_sync_errors_total"))
    })?;
    master.start()?;
    master.client()?.get("/api/replica/status")?;
    master.admin()?.create_record("posts", &json!({"n": 2}))?;
    let mut fresh = cluster.embedded("fresh", &master)?;
    fresh.start()?;
    fresh.wait_ready()?;
    found.extend(exported(&master.client()?)?);
    found.retain(|name, _| name.starts_with("vski_"));
    let documented = documented()?;
    ensure!(documented == found, "documented: {documented:#?}\nexported: {found:#?}");
    Ok(())
}
