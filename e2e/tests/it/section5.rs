//! One test for each row of the table "What an agent does about its master" in the design. Whatever the master says,
//! the replica keeps serving: what it has, or what it has converged to.

use anyhow::{Context, Result, ensure};
use e2e::client::{Reply, replica_token};
use e2e::cluster::READY;
use e2e::{Cluster, Node, content, eventually, offline};
use serde_json::json;
use vski_replication::entry::Entry;
use vski_replication::names::{header, route};
use vski_replication::position::Position;
use vski_replication::{chain, changelog, connection};

/// Records at the beginning of each test.
const OLD: u64 = 3;

/// A master with [`OLD`] posts and a replica that has them too.
fn pair(cluster: &Cluster) -> Result<(Node, Node)> {
    let mut master = cluster.master("master")?;
    master.start()?;
    master.admin()?.create_collection("posts", &[("title", "text")])?;
    write(&master, OLD)?;
    let mut replica = cluster.embedded("replica", &master)?.env("SYNC_MODE", "interval").env("SYNC_INTERVAL", "1");
    replica.start()?;
    wait_level(&master, &replica)?;
    Ok((master, replica))
}

fn write(master: &Node, records: u64) -> Result<()> {
    let admin = master.admin()?;
    (0..records).try_for_each(|n| admin.create_record("posts", &json!({"title": format!("post {n}")})).map(drop))
}

fn wait_level(master: &Node, replica: &Node) -> Result<()> {
    replica.wait_ready()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)
}

/// The master's answer to a replica that stands at `position`.
fn changeset(master: &Node, position: Position) -> Result<Reply> {
    let Position { epoch, version, chain } = position;
    let path = format!("{}?db=default&epoch={epoch}&version={version}&chain={chain}&wait=0", route::CHANGESET);
    master.client()?.with_token(&replica_token("e2e")).get(&path)
}

/// Waits for a state of the replica, sees it in /readyz, and checks that `records` posts are still served.
fn assert_stopped(replica: &Node, state: &str, records: u64) -> Result<()> {
    replica.wait_state("default", state)?;
    let client = replica.client()?;
    eventually(&format!("/readyz tells {state}"), READY, || {
        let reply = client.get("/readyz")?;
        ensure!(reply.body.contains(state), "it tells {} {}", reply.status, reply.body);
        Ok(true)
    })?;
    let told = eventually("it says that it stopped", READY, || {
        Ok(replica.server.lines().into_iter().find(|line| line.contains("sync stopped")))
    })?;
    let field = |name| e2e::output::log_field(&told, name);
    ensure!(field("state").as_deref() == Some(state) && field("error_name").as_deref() == Some(state), "{told}");
    let told = field("remedy").context("a remedy")?;
    let last = replica.state("default")?.last_error.context("the last error")?;
    ensure!(last.name == state && last.remedy == told, "node.db tells {last:?}");
    ensure!(client.count("posts")? == records, "it no longer serves what it has");
    ensure!(client.all_records("posts")?.len() as u64 == records, "its list is another than its count");
    Ok(())
}

#[test]
fn at_the_same_position_there_is_nothing_new() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica) = pair(&cluster)?;
    let position = offline::position(&replica.file("default"))?;
    let reply = changeset(&master, position)?;
    ensure!(reply.status == 204 && reply.bytes.is_empty(), "{reply:?}");
    ensure!(reply.header(header::HEAD) == Some(&*position.to_string()), "{reply:?}");
    let before = replica.state("default")?;
    eventually("the agent asked again", READY, || {
        Ok(replica.state("default")?.last_contact_ms > before.last_contact_ms)
    })?;
    ensure!(offline::position(&replica.file("default"))? == position, "its position moved");
    let state = replica.state("default")?.state;
    ensure!(["follow", "catch_up"].contains(&&*state), "it is in state {state}");
    Ok(())
}

#[test]
fn a_master_that_is_ahead_sends_entries_in_order() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica) = pair(&cluster)?;
    let from = offline::position(&replica.file("default"))?;
    write(&master, 5)?;
    let reply = changeset(&master, from)?;
    ensure!(reply.status == 200, "{reply:?}");
    let (mut input, mut at, mut count) = (&reply.bytes[..], from, 0);
    while let Some(entry) = Entry::decode(&mut input)? {
        ensure!(entry.version == at.version + 1, "version {} after {}", entry.version, at.version);
        ensure!(entry.chain == chain::next(at.chain, &entry), "entry {} does not follow", entry.version);
        at = entry.position();
        count += 1;
    }
    ensure!(count == 5, "{count} entries for 5 writes one after another");
    ensure!(reply.header(header::HEAD) == Some(&*at.to_string()), "{reply:?}");
    wait_level(&master, &replica)?;
    let conn = connection::reader(&replica.file("default"))?;
    ensure!(changelog::position_at(&conn, at.version)? == Some(at), "the replica logged another history");
    Ok(())
}

#[test]
fn another_database_under_the_masters_address_is_never_merged() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, mut replica) = pair(&cluster)?;
    let mut stranger = cluster.master("stranger")?;
    stranger.start()?;
    stranger.admin()?.create_collection("posts", &[("title", "text")])?;
    let before = content::read(&replica.file("default"))?;
    replica.stop()?;
    replica = replica.follow(&stranger);
    replica.start()?;
    assert_stopped(&replica, "foreign_master", OLD)?;
    ensure!(content::read(&replica.file("default"))? == before, "it took rows of the stranger");
    replica.stop()?;
    replica = replica.follow(&master);
    replica.start()?;
    write(&master, 1)?;
    wait_level(&master, &replica).context("its own master is followed again")
}

#[test]
fn an_old_master_that_came_back_is_not_followed() -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, replica) = pair(&cluster)?;
    let old = cluster.path().join("old");
    master.kill9()?;
    offline::copy(master.dir(), &old)?;
    let promoted = offline::begin_epoch(&master.file("default"))?;
    master.start()?;
    write(&master, 1)?;
    wait_level(&master, &replica)?;
    let reached = offline::position(&replica.file("default"))?;
    ensure!(reached.epoch.generation >= promoted.epoch.generation, "the new epoch did not arrive: {reached}");
    master.kill9()?;
    offline::restore(&old, master.dir())?;
    master.start()?;
    assert_stopped(&replica, "stale_master", OLD + 1)?;
    ensure!(offline::position(&replica.file("default"))? == reached, "its position moved");
    Ok(())
}

#[test]
fn two_masters_of_the_same_generation_are_told_apart() -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, replica) = pair(&cluster)?;
    let other = cluster.path().join("other");
    master.kill9()?;
    offline::copy(master.dir(), &other)?;
    let ours = offline::begin_epoch(&master.file("default"))?;
    let theirs = offline::begin_epoch(&other.join("default.db"))?;
    ensure!(ours.epoch.generation == theirs.epoch.generation && ours.epoch.id != theirs.epoch.id, "{ours} {theirs}");
    master.start()?;
    write(&master, 1)?;
    wait_level(&master, &replica)?;
    let reached = offline::position(&replica.file("default"))?;
    ensure!(reached.epoch == ours.epoch, "the replica is in epoch {} instead of {}", reached.epoch, ours.epoch);
    master.kill9()?;
    offline::restore(&other, master.dir())?;
    master.start()?;
    assert_stopped(&replica, "split_brain", OLD + 1)?;
    ensure!(offline::position(&replica.file("default"))? == reached, "its position moved");
    Ok(())
}

#[test]
fn a_replica_of_a_master_that_lost_its_last_entries_converges_and_keeps_a_report() -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, replica) = pair(&cluster)?;
    let backup = cluster.path().join("backup");
    master.kill9()?;
    offline::copy(master.dir(), &backup)?;
    let common = offline::position(&backup.join("default.db"))?;
    master.start()?;
    write(&master, 4)?;
    wait_level(&master, &replica)?;
    let reached = offline::position(&replica.file("default"))?;
    master.kill9()?;
    offline::restore(&backup, master.dir())?;
    master.start()?;
    let reply = changeset(&master, reached)?;
    ensure!(reply.status == 409, "{reply:?}");
    ensure!(reply.json()?["data"]["common"] == common.to_string(), "{}", reply.body);
    wait_level(&master, &replica).context("the replica converges")?;
    ensure!(replica.client()?.count("posts")? == OLD);
    let lost = lost_lines(&replica)?;
    let (entries, rows) = lost.iter().partition::<Vec<_>, _>(|line| line.get("entry").is_some());
    ensure!(
        entries.len() == 4 && rows.len() == 4,
        "{} entries and {} rows are in the report",
        entries.len(),
        rows.len()
    );
    ensure!(rows.iter().all(|line| line["table"] == "posts" && line["row"]["title"].is_string()), "{rows:?}");
    Ok(())
}

/// What a replica has written to `.vski/lost`.
fn lost_lines(replica: &Node) -> Result<Vec<serde_json::Value>> {
    let mut lines = Vec::new();
    for file in std::fs::read_dir(replica.dir().join(".vski/lost"))? {
        let text = std::fs::read_to_string(file?.path())?;
        lines.extend(text.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(lines)
}

#[test]
fn a_replica_below_the_masters_base_converges_and_loses_no_entry() -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, mut replica) = pair(&cluster)?;
    let left = offline::position(&replica.file("default"))?;
    replica.stop()?;
    write(&master, 4)?;
    master.kill9()?;
    let base = offline::cut_log(&master.file("default"))?;
    ensure!(left.version < base.version, "the cut is too low to matter");
    master.start()?;
    let reply = changeset(&master, left)?;
    ensure!(reply.status == 410, "{reply:?}");
    ensure!(reply.json()?["data"]["base"] == base.to_string(), "{}", reply.body);
    replica.start()?;
    wait_level(&master, &replica).context("the replica converges")?;
    ensure!(replica.client()?.count("posts")? == OLD + 4);
    ensure!(!replica.dir().join(".vski/lost").exists(), "a replica that was only behind has lost nothing");
    Ok(())
}
