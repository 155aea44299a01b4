use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, replica_token};
use e2e::cluster::READY;
use e2e::{Cluster, Node, content, eventually, process};
use serde_json::{Value, json};
use vski_replication::names::{header, route};

/// How long the command may take.
const ANSWERED: Duration = Duration::from_secs(30);

/// The row of one replica's `default`, if the master has heard of it.
fn row(client: &Client, replica: &str) -> Result<Option<Value>> {
    let list = client.get(route::REPLICAS)?.ok()?.json()?;
    let rows = list["replicas"].as_array().context("a list")?;
    Ok(rows.iter().find(|row| row["replica"] == replica && row["db"] == "default").cloned())
}

fn wait_verdict(client: &Client, replica: &str, verdict: &str) -> Result<Value> {
    eventually(&format!("{replica} is {verdict}"), READY, || {
        let row = row(client, replica)?.context("not heard of")?;
        ensure!(row["verdict"] == verdict, "{row}");
        Ok(Some(row))
    })
}

fn command(master: &Node, arguments: &[&str]) -> Result<String> {
    let ended = process::run("replicas", &mut master.server.subcommand(arguments), ANSWERED)?;
    ensure!(ended.status.success(), "{ended:?}");
    Ok(ended.stdout.join("\n"))
}

#[test]
fn the_master_tells_how_each_replica_is_doing_until_it_is_lost() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?.env("RETENTION_BYTES", "4KiB");
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text")])?;
    let mut replica = cluster.embedded("r1", &master)?.env("PUBLIC_URL", "http://r1.example.org");
    replica.start()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    let seen = eventually("it is at the head", READY, || {
        let row = wait_verdict(&admin, "r1", "streaming")?;
        ensure!(row["entriesBehind"] == 0 && row["bytesBehind"] == 0, "{row}");
        Ok(Some(row))
    })?;
    ensure!(seen["publicUrl"] == "http://r1.example.org" && seen["version"] == env!("CARGO_PKG_VERSION"), "{seen}");
    ensure!(seen["duplicateId"] == false && seen["fallsOffSeconds"].is_null(), "{seen}");

    replica.stop()?;
    let text = "x".repeat(3_000);
    admin.create_record("posts", &json!({"title": text}))?;
    let seen = wait_verdict(&admin, "r1", "at_risk")?;
    ensure!(seen["entriesBehind"] == 1 && seen["fallsOffSeconds"].as_f64().is_some(), "{seen}");
    eventually("the replica is lost", READY, || {
        admin.create_record("posts", &json!({"title": text}))?;
        Ok(row(&admin, "r1")?.is_some_and(|row| row["verdict"] == "lost"))
    })?;
    let metrics = master.client()?.get("/metrics")?.body;
    ensure!(metrics.contains(r#"vski_replica_verdict{db="default",replica="r1",verdict="lost"} 1"#), "{metrics}");
    ensure!(!metrics.contains(r#"verdict="at_risk""#), "one verdict for each: {metrics}");

    let running = command(&master, &["replicas"])?;
    ensure!(running.contains("VERDICT") && running.contains("r1") && running.contains("lost"), "{running}");
    master.stop()?;
    let stopped: Value = serde_json::from_str(&command(&master, &["replicas", "--json"])?)?;
    ensure!(stopped[0]["replica"] == "r1" && stopped[0]["verdict"] == "lost", "{stopped}");
    Ok(())
}

#[test]
fn a_silent_replica_is_forgotten_and_only_replicas_and_admins_may_look() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?.env("REPLICA_FORGET_AFTER", "3s");
    master.start()?;
    let (admin, guest) = (master.admin()?, master.client()?);
    ensure!(guest.get(route::REPLICAS)?.status == 401);
    ensure!(guest.with_token(&replica_token("curl")).get(route::REPLICAS)?.status == 200);
    let mut replica = cluster.embedded("r1", &master)?;
    replica.start()?;
    replica.wait_ready()?;
    eventually("it is heard of", READY, || Ok(row(&admin, "r1")?.is_some()))?;
    replica.stop()?;
    eventually("it is forgotten", READY, || Ok(row(&admin, "r1")?.is_none()))?;
    let metrics = guest.get("/metrics")?.body;
    ensure!(!metrics.contains(r#"replica="r1""#), "{metrics}");
    replica.start()?;
    eventually("it is heard of again", READY, || Ok(row(&admin, "r1")?.is_some()))
}

#[test]
fn two_processes_under_one_id_are_told() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    let mut twins = [cluster.embedded("one", &master)?, cluster.embedded("two", &master)?];
    for twin in &mut twins {
        twin.server.set("REPLICA_ID", "same");
        twin.start()?;
    }
    eventually("both have called in turn", READY, || {
        let row = row(&admin, "same")?.context("not heard of")?;
        ensure!(row["duplicateId"] == true, "{row}");
        Ok(true)
    })?;
    ensure!(twins[0].client()?.get("/health")?.header(header::REPLICA_ID) == Some("same"));
    Ok(())
}
