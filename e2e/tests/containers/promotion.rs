//! The failover of docs/OPERATIONS.md: exactly its commands, under load through HAProxy, while the old master still runs
//! and after it was killed.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::docker::docker;
use e2e::load::{FIELDS, Ledger, Load, seed};
use serde_json::Value;

use super::balancer::{Balanced, FAULT_LIMIT};
use super::images::Images;
use super::plain::NO_ADMIN;
use super::quiet::proxy;
use super::typed;
use e2e::reads::{NODES, Reads};

/// Where the commands stand.
const TITLE: &str = "### With Compose\n";

/// Whose volumes change places, as the commands say; the second time it is the other way round.
const VOLUMES: (&str, &str) = ("MASTER_VOLUME=r001 R001_VOLUME=master", "MASTER_VOLUME=master R001_VOLUME=r001");

/// Writes that have to be acknowledged at each stage.
const WRITES: u64 = 20;

/// What nodes say of a promotion: agents lose the master, and what was the master's last writes is given up.
const EXPECTED: [&str; 7] = [
    NO_ADMIN,
    "sync failed",
    "a replica takes over: no more writes are taken here until a restart",
    "this directory was promoted to master: nothing to sync",
    "a replica's position is not in this log",
    "the copy has diverged, it will converge",
    "the copy has converged with the master",
];

pub fn scenario(images: &Images) -> Result<()> {
    let balanced = Balanced::up("haproxy", images, &[])?;
    for collection in ["before", "after", "later"] {
        balanced.admin.create_collection(collection, &FIELDS)?;
    }
    let commands = typed::commands(TITLE)?;
    planned(&balanced, &commands).context("with the old master")?;
    let again: Vec<String> = commands.iter().map(|command| command.replace(VOLUMES.0, VOLUMES.1)).collect();
    ensure!(again != commands, "no command names the volumes as {}", VOLUMES.0);
    unplanned(&balanced, &again).context("without the old master")?;
    balanced.project.equal(&["posts", "before", "after", "later"])?;
    balanced.project.assert_quiet(&[&EXPECTED[..], proxy("haproxy")].concat())?;
    balanced.project.succeeded();
    Ok(())
}

/// The master hands over: nothing that it has acknowledged is missing anywhere, and nobody gave anything up.
fn planned(balanced: &Balanced, commands: &[String]) -> Result<()> {
    let reads = Reads::start(&balanced.admin, "posts");
    let load = Load::start(balanced.admin.clone(), "before", seed()?);
    load.wait_for(WRITES)?;
    typed::one_by_one(&balanced.project, commands)?;
    load.wait_for(WRITES).context("clients do not go on")?;
    let ledger = load.stop()?;
    reads.stop_without_master(FAULT_LIMIT)?;
    balanced.project.equal(&["posts", "before"])?;
    for (node, client) in nodes(balanced)? {
        ledger.check(&client).with_context(|| format!("what {node} holds"))?;
        let lost = Lost::of(balanced, node)?;
        ensure!(lost.entries == 0 && lost.numbers.is_empty(), "{node} gave something up: {lost:?}");
    }
    has_volume(balanced, "master", "r001")?;
    has_volume(balanced, "r001", "master")
}

/// The master dies with writes that nobody has fetched: they are in the report of the node that gets its volume.
fn unplanned(balanced: &Balanced, commands: &[String]) -> Result<()> {
    let reads = Reads::by(&balanced.admin, "posts", &[None, None]);
    let before = Load::start(balanced.admin.clone(), "after", seed()?);
    before.wait_for(WRITES)?;
    balanced.project.compose(&["pause", "r001-agent", "r002-agent"])?;
    before.wait_for(WRITES)?;
    balanced.project.kill("master")?;
    balanced.project.compose(&["unpause", "r001-agent", "r002-agent"])?;
    let before = before.stop()?;
    let later = Load::start(balanced.admin.clone(), "later", seed()?);
    typed::one_by_one(&balanced.project, commands)?;
    later.wait_for(WRITES).context("clients do not go on")?;
    let later = later.stop()?;
    reads.stop_without_master(FAULT_LIMIT)?;
    balanced.project.equal(&["posts", "after", "later"])?;
    let lost = Lost::of(balanced, "r001")?;
    for (node, client) in nodes(balanced)? {
        later.check(&client).with_context(|| format!("what {node} holds of the later writes"))?;
        accounted(&before, &client, &lost).with_context(|| format!("what {node} holds of the earlier writes"))?;
    }
    has_volume(balanced, "master", "master")?;
    has_volume(balanced, "r001", "r001")
}

/// Everything that was acknowledged is there or was reported: rows by their numbers, deletions by their entries.
fn accounted(ledger: &Ledger, client: &Client, lost: &Lost) -> Result<()> {
    let differing = ledger.differing(client)?;
    ensure!(!differing.is_empty(), "nothing was lost, so nothing was shown");
    ensure!(lost.entries >= differing.len(), "{} records differ, {} entries are told", differing.len(), lost.entries);
    for record in differing {
        let rows = record.possible.iter().flatten().any(|n| lost.numbers.contains(n));
        ensure!(rows || record.possible.contains(&None), "nobody has reported the loss of {record:?}");
    }
    Ok(())
}

fn nodes(balanced: &Balanced) -> Result<Vec<(&'static str, Client)>> {
    NODES.into_iter().map(|node| Ok((node, balanced.project.client(node, 3001)?))).collect()
}

fn has_volume(balanced: &Balanced, service: &str, volume: &str) -> Result<()> {
    let container = balanced.project.container(service)?;
    let format = "{{range .Mounts}}{{if eq .Destination \"/data\"}}{{.Name}}{{end}}{{end}}";
    let found = docker(&["inspect", "--format", format, &container])?;
    ensure!(found == format!("{}_{volume}", balanced.project.name()), "{service} has the volume {found}");
    Ok(())
}

/// What a node's `.vski/lost` tells of the collections of this scenario.
#[derive(Debug, Default)]
struct Lost {
    /// `n` of each row.
    numbers: BTreeSet<i64>,
    entries: usize,
}

impl Lost {
    fn of(balanced: &Balanced, node: &str) -> Result<Self> {
        let here = tempfile::tempdir()?;
        let target = here.path().join("vski");
        let target = target.to_str().context("a temporary directory with a name in UTF-8")?;
        balanced.project.compose(&["cp", &format!("{node}:/data/.vski"), target])?;
        let mut lost = Self::default();
        let folder = Path::new(target).join("lost");
        for file in folder.read_dir().into_iter().flatten() {
            for line in std::fs::read_to_string(file?.path())?.lines() {
                let line: Value = serde_json::from_str(line)?;
                ensure!(line.get("entry").is_some() || line["table"].is_string(), "an unknown line: {line}");
                lost.entries += usize::from(line.get("entry").is_some());
                if line["table"] != "after" {
                    continue;
                }
                lost.numbers.extend(line["row"]["n"].as_f64().map(|n| n as i64));
            }
        }
        Ok(lost)
    }
}
