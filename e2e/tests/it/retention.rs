use anyhow::{Context, Result, ensure};
use e2e::client::{Client, replica_token};
use e2e::cluster::READY;
use e2e::{Cluster, Node, content, eventually, offline};
use serde_json::json;
use vski_replication::names::route;
use vski_replication::{changelog, connection};

/// A few posts' worth of changes.
const BYTES: &str = "4KiB";

fn base(node: &Node) -> Result<u64> {
    Ok(changelog::base(&connection::reader(&node.file("default"))?)?.position.version)
}

fn write(admin: &Client, records: u64) -> Result<()> {
    let text = "x".repeat(500);
    (0..records).try_for_each(|_| admin.create_record("posts", &json!({"title": text})).map(drop))
}

/// A gauge of the database `default`.
fn gauge(client: &Client, name: &str) -> Result<u64> {
    let text = client.get("/metrics")?.ok()?.body;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{db=\"default\"}} ")));
    line.with_context(|| format!("no {name} in {text}"))?.parse().context("a whole number")
}

#[test]
fn every_node_prunes_its_own_log_and_a_replica_that_was_away_too_long_is_told_410() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?.env("RETENTION_BYTES", BYTES);
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text")])?;
    let mut stays = cluster.embedded("stays", &master)?.env("RETENTION_BYTES", BYTES);
    let mut leaves = cluster.embedded("leaves", &master)?;
    for replica in [&mut stays, &mut leaves] {
        replica.start()?;
        replica.wait_ready()?;
    }
    content::wait_all_equal(&[master.dir(), leaves.dir()], READY)?;
    leaves.stop()?;
    let left = offline::position(&leaves.file("default"))?;
    // The snapshots' leases keep four times as much.
    write(&admin, 60)?;
    eventually("the master has pruned what the stopped replica needs", READY, || Ok(base(&master)? > left.version))?;
    content::wait_all_equal(&[master.dir(), stays.dir()], READY)?;
    eventually("the replica has pruned its own log", READY, || Ok(base(&stays)? > 0))?;
    for node in [&master, &stays] {
        let client = node.client()?;
        // More may be pruned between the two looks.
        eventually(&format!("{} tells where its log begins", node.name()), READY, || {
            Ok(gauge(&client, "vski_log_oldest_version")? == base(node)? + 1)
        })?;
        ensure!(gauge(&client, "vski_log_bytes")? > 0, "{}", node.name());
        eventually(&format!("{} says that it pruned", node.name()), READY, || {
            Ok(node.server.lines().iter().any(|line| line.contains("log pruned")))
        })?;
    }

    let (epoch, version, chain) = (left.epoch, left.version, left.chain);
    let path = format!("{}?db=default&epoch={epoch}&version={version}&chain={chain}", route::CHANGESET);
    let reply = master.client()?.with_token(&replica_token("e2e")).get(&path)?;
    ensure!(reply.status == 410, "{reply:?}");
    write(&admin, 3)?;
    content::wait_all_equal(&[master.dir(), stays.dir()], READY)?;
    stays.stop()?;
    stays.start()?;
    write(&admin, 1)?;
    content::wait_all_equal(&[master.dir(), stays.dir()], READY).context("it is followed again after a restart")
}

#[test]
fn a_limit_that_makes_no_sense_is_named() -> Result<()> {
    let cluster = Cluster::new()?;
    for (name, value) in [("RETENTION_AGE", "soon"), ("RETENTION_AGE", "0h"), ("RETENTION_BYTES", "1 million")] {
        let master = cluster.master("master")?.env(name, value);
        let ended = e2e::process::run("refused start", &mut master.server.subcommand(&["serve"]), READY)?;
        ensure!(ended.status.code() == Some(2), "{ended:?}");
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        ensure!(ended.stderr.iter().any(|line| line.contains(&flag) && line.contains(value)), "{ended:?}");
    }
    Ok(())
}
