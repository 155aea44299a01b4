//! A parent that is behind its child, lost what it had, or has nothing yet.

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, replica_token};
use e2e::cluster::READY;
use e2e::{Cluster, Node, content, eventually, load, offline};
use reqwest::Method;
use reqwest::header::RANGE;
use vski_replication::names::{PARENT_BEHIND, header, route};
use vski_replication::{changelog, connection};

use super::{
    Chain, Make, OLD, POSTS, assert_only_followed, assert_verified, embedded, external, replica_of, told, write,
};
use crate::verify::verify;

/// Version of the base of its log.
fn base(node: &Node) -> Result<u64> {
    Ok(changelog::base(&connection::reader(&node.file("default"))?)?.position.version)
}

/// The parent comes back with an older copy of its directory, with and without its master.
fn a_child_waits(parent: Make) -> Result<()> {
    let cluster = Cluster::new()?;
    let mut chain = Chain::start(&cluster, parent, external)?;
    let backup = cluster.path().join("backup");
    chain.parent.kill9()?;
    offline::copy(chain.parent.dir(), &backup)?;
    chain.parent.start()?;
    write(&chain.master, 7)?;
    chain.wait_equal()?;
    let before = offline::position(&chain.child.file("default"))?;

    chain.parent.kill9()?;
    chain.master.kill9()?;
    offline::restore(&backup, chain.parent.dir())?;
    chain.parent.start()?;
    let state = chain.child.wait_state("default", PARENT_BEHIND)?;
    ensure!(state.detail.is_some_and(|detail| detail.contains("behind") || detail.contains("at version")));
    let agent = Client::new(&chain.child.agent.as_ref().context("an agent")?.url())?;
    let metrics = agent.get("/metrics")?.ok()?.body;
    ensure!(metrics.contains(r#"vski_sync_state{db="default",state="parent_behind"} 1"#), "{metrics}");
    // The server looks into node.db now and then.
    eventually("the child's server tells it too", READY, || {
        Ok(chain.child.client()?.get("/readyz")?.ok()?.body.contains(PARENT_BEHIND))
    })?;
    ensure!(chain.child.client()?.count(POSTS)? == OLD + 7 && chain.parent.client()?.count(POSTS)? == OLD);
    let asked = replica_of(&chain.parent, "e2e")?;
    let question = format!(
        "{}?db=default&epoch={}&version={}&chain={}",
        route::CHANGESET,
        before.epoch,
        before.version,
        before.chain
    );
    let waits = asked.get(&format!("{question}&held=0"))?;
    ensure!(waits.status == 204 && waits.header(header::STANDING) == Some(PARENT_BEHIND), "{waits:?}");
    ensure!(asked.get(&question)?.status == 409, "who does not wait is told what the log says");

    let compared = verify(&chain.child, &[])?;
    ensure!(compared.status.code() == Some(1), "{compared:?}");
    ensure!(offline::position(&chain.child.file("default"))? == before, "nothing was undone");

    chain.master.start()?;
    chain.child.wait_state("default", "follow")?;
    chain.wait_equal()?;
    chain.child.wait_told("is behind this copy", 1)?;

    chain.parent.kill9()?;
    offline::restore(&backup, chain.parent.dir())?;
    chain.parent.start()?;
    write(&chain.master, 1)?;
    chain.wait_equal()?;
    assert_only_followed(&chain.child)
}

#[test]
fn a_child_waits_for_an_embedded_parent_that_came_back_older() -> Result<()> {
    a_child_waits(embedded)
}

#[test]
fn a_child_waits_for_a_parent_of_two_processes_that_came_back_older() -> Result<()> {
    a_child_waits(external)
}

#[test]
fn a_child_that_comes_from_the_master_waits_for_a_parent_that_asks_seldom() -> Result<()> {
    let cluster = Cluster::new()?;
    let Chain { master, mut parent, mut child } = Chain::start(&cluster, embedded, external)?;
    parent.stop()?;
    child.stop()?;
    parent = parent.env("SYNC_MODE", "interval").env("SYNC_INTERVAL", "3600");
    parent.start()?;
    parent.wait_state("default", "follow")?;
    write(&master, 3)?;
    child = child.follow(&master);
    child.start()?;
    content::wait_all_equal(&[master.dir(), child.dir()], READY)?;
    child.stop()?;
    child = child.follow(&parent);
    child.start()?;
    child.wait_state("default", PARENT_BEHIND)?;
    ensure!(child.client()?.count(POSTS)? == OLD + 3 && parent.client()?.count(POSTS)? == OLD);
    replica_of(&parent, "e2e")?.send(Method::POST, route::SYNC, None)?.ok()?;
    child.wait_state("default", "follow")?;
    content::wait_all_equal(&[master.dir(), parent.dir(), child.dir()], READY)?;
    assert_only_followed(&child)
}

#[test]
fn a_tail_that_the_master_lost_is_given_up_by_all() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut chain = Chain::start(&cluster, external, embedded)?;
    let backup = cluster.path().join("backup");
    chain.master.kill9()?;
    offline::copy(chain.master.dir(), &backup)?;
    chain.master.start()?;
    write(&chain.master, 4)?;
    chain.wait_equal()?;
    // A copy of what will be lost, which the parent would share with whoever asks soon.
    let version = offline::position(&chain.parent.file("default"))?.version;
    let copy = format!("{}?db=default&version={version}", route::SNAPSHOT);
    replica_of(&chain.parent, "e2e")?.get(&copy)?.ok()?;
    chain.master.kill9()?;
    offline::restore(&backup, chain.master.dir())?;
    chain.master.start()?;
    chain.wait_equal().context("parent and child have converged")?;
    for node in [&chain.parent, &chain.child] {
        ensure!(node.client()?.count(POSTS)? == OLD, "{}", node.name());
        let mut lost = String::new();
        for file in std::fs::read_dir(node.dir().join(".vski/lost"))? {
            lost.push_str(&std::fs::read_to_string(file?.path())?);
        }
        ensure!(lost.lines().filter(|line| line.contains("\"entry\"")).count() == 4, "{}: {lost}", node.name());
    }
    chain.child.wait_told("has converged", 1).context("the child got a copy of what its parent had given up")?;
    write(&chain.master, 1)?;
    chain.wait_equal()
}

#[test]
fn a_child_converges_after_its_parent_that_fell_off_the_masters_log() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = cluster.master("master")?.env("RETENTION_BYTES", "20KiB");
    let mut chain = Chain::start_with(&cluster, master, external, external)?;
    chain.parent.kill9()?;
    let left = offline::position(&chain.parent.file("default"))?.version;
    eventually("the master has pruned what the parent needs", READY, || {
        write(&chain.master, 20)?;
        Ok(base(&chain.master)? > left)
    })?;
    chain.parent.start()?;
    chain.wait_equal()?;
    [&chain.parent, &chain.child].into_iter().try_for_each(|node| node.wait_told("has converged", 1))?;
    write(&chain.master, 1)?;
    chain.wait_equal().context("entries are followed again")?;
    assert_verified(&chain.child)
}

#[test]
fn what_follows_a_parents_snapshot_is_kept_while_it_is_fetched_up_to_a_bound() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    master.admin()?.create_collection(POSTS, &load::FIELDS)?;
    let mut parent = external(&cluster, "parent", &master)?.env("RETENTION_BYTES", "8KiB");
    parent.start()?;
    parent.wait_ready()?;
    let level = || content::wait_all_equal(&[master.dir(), parent.dir()], READY);
    level()?;
    let asks = replica_of(&parent, "e2e")?;
    let manifest = asks.get(&format!("{}?db=default", route::SNAPSHOT))?.ok()?.json()?;
    let file = format!("{}/{}", route::SNAPSHOT, manifest["id"].as_str().context("an id")?);
    let at: vski_replication::position::Position = manifest["position"].as_str().context("a position")?.parse()?;
    write(&master, 30)?;
    level()?;
    ensure!(base(&parent)? <= at.version, "the entries after the snapshot were pruned under its lease");
    let part = reqwest::blocking::Client::new()
        .get(format!("{}{file}", parent.server.url()))
        .bearer_auth(replica_token("e2e"))
        .header(RANGE, "bytes=0-99")
        .send()?;
    ensure!(part.status() == 206 && part.bytes()?.len() == 100);
    ensure!(asks.get(&format!("{file}/ranges"))?.ok()?.json()?["position"] == manifest["position"]);
    eventually("the lease is broken when the log has grown too large", READY, || {
        write(&master, 20)?;
        Ok(base(&parent)? > at.version)
    })?;
    let gone = asks.get(&file)?;
    ensure!(gone.status == 410, "{} {}", gone.status, gone.body);
    parent.wait_told("snapshot lease broken", 1)?;

    let mut child = embedded(&cluster, "child", &parent)?;
    child.start()?;
    child.wait_ready()?;
    content::wait_all_equal(&[master.dir(), child.dir()], READY)
}

#[test]
fn a_child_waits_for_a_parent_that_has_nothing_yet_or_sets_its_file_aside() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    let mut parent = external(&cluster, "parent", &master)?;
    let mut child = embedded(&cluster, "child", &parent)?;
    parent.start()?;
    child.start()?;
    let refused = replica_of(&parent, "e2e")?.get(route::STATUS)?;
    ensure!(refused.status == 503 && refused.header("retry-after").is_some(), "{refused:?}");
    let state = child.wait_state("default", "retrying")?;
    ensure!(state.detail.is_some_and(|detail| detail.contains("has not been copied")));
    ensure!(child.client()?.get("/readyz")?.status == 503);
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection(POSTS, &load::FIELDS)?;
    admin.create_database("shop")?;
    write(&master, OLD)?;
    [&parent, &child].into_iter().try_for_each(Node::wait_ready)?;
    let dirs = [master.dir(), parent.dir(), child.dir()];
    content::wait_all_equal(&dirs, READY)?;

    parent.agent.as_mut().context("an agent")?.stop()?;
    connection::writer(&parent.file("default"))?.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    std::fs::write(parent.file("default"), vec![0xA5; 20_000])?;
    parent.agent.as_mut().context("an agent")?.start()?;
    write(&master, 2)?;
    content::wait_all_equal(&[master.dir(), child.dir()], READY)?;
    ensure!(told(&child, "missing_on_master") + told(&child, "does not list") == 0, "it was never missing");
    ensure!(told(&child, "has converged") == 0);
    Ok(())
}
