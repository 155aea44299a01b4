//! `vski-sync-agent verify` compares every row with the master's at the same version, and mends on request.

use anyhow::{Context, Result, ensure};
use e2e::cluster::READY;
use e2e::process::{self, Finished};
use e2e::{Cluster, Node, content, programs, storage};
use serde_json::json;

use crate::files;

const RECORDS: u64 = 300;

fn master(cluster: &Cluster) -> Result<Node> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("n", "number")])?;
    admin.create_database("shop")?;
    (0..RECORDS).try_for_each(|n| admin.create_record("posts", &json!({"n": n})).map(drop))?;
    Ok(master)
}

/// Runs the command with the settings of the replica's agent.
pub(crate) fn verify(replica: &Node, arguments: &[&str]) -> Result<Finished> {
    let program = replica.agent.as_ref().unwrap_or(&replica.server);
    let settings = program.subcommand(&["verify"]);
    let mut command = process::command(programs::agent()?);
    command.arg("verify").args(arguments);
    command.envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
    process::run("verify", &mut command, READY)
}

fn level(master: &Node, replica: &Node) -> Result<()> {
    replica.wait_ready()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)
}

/// Changes the replica behind everybody's back, and expects `verify` to say so, change nothing, and mend on request.
fn found_and_mended(master: &Node, replica: &Node) -> Result<()> {
    let equal = verify(replica, &[])?;
    ensure!(equal.status.code() == Some(0), "{:?} {:?}", equal.stdout, equal.stderr);
    let told = equal.stdout.join("\n");
    ensure!(told.contains("default: equal to the master") && told.contains("shop: equal to the master"), "{told}");
    let conn = rusqlite::Connection::open(replica.file("default"))?;
    conn.busy_timeout(READY)?;
    conn.execute_batch("UPDATE posts SET n = -1 WHERE n = 7; DELETE FROM posts WHERE n = 9")?;
    let differs = verify(replica, &[])?;
    ensure!(differs.status.code() == Some(3), "{:?} {:?}", differs.stdout, differs.stderr);
    let told = differs.stdout.join("\n");
    ensure!(told.contains("table posts differs in ") && told.contains("299 rows here, 300 there"), "{told}");
    ensure!(replica.client()?.count("posts")? == RECORDS - 1, "looking changes nothing");
    let mended = verify(replica, &["--repair"])?;
    ensure!(mended.status.code() == Some(0), "{:?} {:?}", mended.stdout, mended.stderr);
    level(master, replica)
}

#[test]
fn differences_are_named_and_mended_through_an_agent_of_its_own() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let mut replica = cluster.external("replica", &master)?;
    replica.start()?;
    level(&master, &replica)?;
    found_and_mended(&master, &replica)?;
    let metrics = e2e::client::Client::new(&replica.agent.as_ref().context("an agent")?.url())?.get("/metrics")?.body;
    ensure!(metrics.contains("vski_sync_differing_ranges{db=\"default\"} 0"), "{metrics}");
    Ok(())
}

#[test]
fn differences_are_named_and_mended_through_an_embedded_agent() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let mut replica = cluster.embedded("replica", &master)?;
    replica.start()?;
    level(&master, &replica)?;
    found_and_mended(&master, &replica)
}

#[test]
fn uploaded_files_that_are_missing_or_damaged_are_named_and_fetched_anew() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    files::make_collection(&admin)?;
    let mut replica = cluster.external("replica", &master)?;
    replica.start()?;
    let mut names = Vec::new();
    for text in ["first", "second", "third"] {
        let record = files::upload(&admin, "a.txt", text.as_bytes())?;
        names.push(record["one"].as_str().context("a name")?.to_owned());
    }
    level(&master, &replica)?;
    let dirs = [master.dir(), replica.dir()];
    storage::wait_whole(&dirs, "default", READY)?;
    let equal = verify(&replica, &[])?;
    ensure!(equal.status.code() == Some(0) && equal.stdout.join("\n").contains(" 3 files"), "{:?}", equal.stdout);
    let folder = replica.dir().join("storage/default");
    std::fs::write(folder.join(&names[0]), "FIRST")?;
    std::fs::remove_file(folder.join(&names[1]))?;
    let differs = verify(&replica, &[])?;
    ensure!(differs.status.code() == Some(3), "{:?} {:?}", differs.stdout, differs.stderr);
    let told = differs.stdout.join("\n");
    ensure!(told.contains("2 of 3 uploaded files differ: "), "{told}");
    ensure!(told.contains(&format!("{} (other bytes", names[0])), "{told}");
    ensure!(told.contains(&format!("{} (missing)", names[1])) && !told.contains(&names[2]), "{told}");
    let mended = verify(&replica, &["--repair"])?;
    ensure!(mended.status.code() == Some(0), "{:?} {:?}", mended.stdout, mended.stderr);
    storage::assert_whole(replica.dir(), "default")?;
    let aside = replica.dir().join(".vski/lost").join(format!("default-file-{}", names[0]));
    ensure!(std::fs::read(aside)? == b"FIRST", "what was damaged is kept");
    Ok(())
}

#[test]
fn a_copy_is_verified_while_its_master_is_written_to() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let mut replica = cluster.external("replica", &master)?.env("SYNC_MODE", "stream");
    replica.start()?;
    level(&master, &replica)?;
    let admin = master.admin()?;
    admin.create_collection("load", &e2e::load::FIELDS)?;
    let load = e2e::load::Load::start(admin, "load", e2e::load::seed()?);
    for _ in 0..5 {
        load.wait_for(30)?;
        let verified = verify(&replica, &[])?;
        ensure!(verified.status.code() == Some(0), "{:?} {:?}", verified.stdout, verified.stderr);
    }
    load.stop()?;
    level(&master, &replica)
}
