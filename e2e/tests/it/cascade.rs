//! A replica whose MASTER_URL is a replica: it gets what that one has, knows how far both are behind the master, waits
//! for it, converges when it has to, and goes on when it is promoted.

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, replica_token};
use e2e::cluster::READY;
use e2e::load::{self, Load};
use e2e::process;
use e2e::program::Program;
use e2e::{Cluster, Node, content, eventually, offline};
use serde_json::json;
use vski_replication::names::{header, route};

use crate::verify::verify;

/// A parent that is behind its child.
mod behind;

const POSTS: &str = "posts";

/// Records at the beginning of each test.
const OLD: u64 = 5;

/// How a replica is made.
type Make = fn(&Cluster, &str, &Node) -> Result<Node>;

fn embedded(cluster: &Cluster, name: &str, source: &Node) -> Result<Node> {
    cluster.embedded(name, source)
}

fn external(cluster: &Cluster, name: &str, source: &Node) -> Result<Node> {
    Ok(cluster.external(name, source)?.env("SYNC_MODE", "stream"))
}

/// A master, a replica of it, and a replica of that one. All hold [`OLD`] posts.
struct Chain {
    master: Node,
    parent: Node,
    child: Node,
}

impl Chain {
    fn start(cluster: &Cluster, parent: Make, child: Make) -> Result<Self> {
        let master = cluster.master("master")?;
        Self::start_with(cluster, master, parent, child)
    }

    fn start_with(cluster: &Cluster, mut master: Node, parent: Make, child: Make) -> Result<Self> {
        master.start()?;
        master.admin()?.create_collection(POSTS, &load::FIELDS)?;
        let mut parent = parent(cluster, "parent", &master)?;
        parent.start()?;
        let mut child = child(cluster, "child", &parent)?;
        child.start()?;
        let chain = Self { master, parent, child };
        write(&chain.master, OLD)?;
        [&chain.parent, &chain.child].into_iter().try_for_each(Node::wait_ready)?;
        chain.wait_equal()?;
        Ok(chain)
    }

    fn wait_equal(&self) -> Result<()> {
        content::wait_all_equal(&[self.master.dir(), self.parent.dir(), self.child.dir()], READY)
    }
}

fn write(master: &Node, records: u64) -> Result<()> {
    let admin = master.admin()?;
    (0..records).try_for_each(|n| admin.create_record(POSTS, &json!({"n": n, "note": "x".repeat(400)})).map(drop))
}

/// Lines of its processes that contain `text`.
fn told(node: &Node, text: &str) -> usize {
    let programs = std::iter::once(&node.server).chain(&node.agent);
    programs.flat_map(Program::lines).filter(|line| line.contains(text)).count()
}

/// Fails if it did anything but follow the log since its first copy.
fn assert_only_followed(node: &Node) -> Result<()> {
    let (converged, copied) = (told(node, "has converged"), told(node, "bootstrap started"));
    ensure!((converged, copied) == (0, 1), "{}: {converged} converges, {copied} first copies", node.name());
    Ok(())
}

fn assert_verified(node: &Node) -> Result<()> {
    let verified = verify(node, &[])?;
    ensure!(verified.status.code() == Some(0), "{}: {verified:?}", node.name());
    Ok(())
}

fn replica_of(node: &Node, id: &str) -> Result<Client> {
    Ok(node.client()?.with_token(&replica_token(id)))
}

/// Kills, freezes and restarts the parent while the master is written to.
fn load_passes_through(parent: Make, child: Make) -> Result<()> {
    let cluster = Cluster::new()?;
    let Chain { master, mut parent, mut child } = Chain::start(&cluster, parent, child)?;
    let admin = master.admin()?;
    admin.create_collection("load", &load::FIELDS)?;
    let load = Load::start(admin.clone(), "load", load::seed()?);
    load.wait_for(30)?;
    parent.kill9()?;
    load.wait_for(30)?;
    parent.start()?;
    admin.create_database("shop")?;
    parent.programs().try_for_each(|program| program.process()?.pause())?;
    load.wait_for(30)?;
    parent.programs().try_for_each(|program| program.process()?.resume())?;
    child.kill9()?;
    load.wait_for(30)?;
    child.start()?;
    admin.update_collection(
        "load",
        &json!({"fields": [
            {"name": "n", "type": "number"}, {"name": "note", "type": "text"}, {"name": "more", "type": "text"}
        ]}),
    )?;
    load.wait_for(30)?;
    let ledger = load.stop()?;

    let chain = Chain { master, parent, child };
    chain.wait_equal()?;
    ledger.check(&chain.child.client()?)?;
    [&chain.parent, &chain.child].into_iter().try_for_each(assert_verified)?;
    let lines = told(&chain.parent, "bootstrap started") + told(&chain.child, "bootstrap started");
    ensure!(lines == 4, "two databases were copied to two nodes: {lines}");
    ensure!(told(&chain.parent, "has converged") + told(&chain.child, "has converged") == 0);

    let health = chain.child.client()?.get("/health")?;
    ensure!(health.header(header::MASTER_URL) == Some(&*chain.parent.server.url()), "{health:?}");
    eventually("the parent tells of its child", READY, || {
        let list = replica_of(&chain.parent, "e2e")?.get(route::REPLICAS)?.ok()?.json()?;
        let rows = list["replicas"].as_array().context("a list")?;
        ensure!(rows.iter().any(|row| row["replica"] == "child" && row["verdict"] == "streaming"), "{list}");
        ensure!(rows.iter().all(|row| row["entriesBehind"] == 0), "{list}");
        Ok(true)
    })?;
    if chain.parent.agent.is_none() {
        let listed = process::run("replicas", &mut chain.parent.server.subcommand(&["replicas"]), READY)?;
        ensure!(listed.status.success() && listed.stdout.join("").contains("child"), "{listed:?}");
    }
    let list = replica_of(&chain.master, "e2e")?.get(route::REPLICAS)?.ok()?.body;
    ensure!(list.contains("parent") && !list.contains("child"), "{list}");
    Ok(())
}

#[test]
fn a_chain_holds_the_same_under_load_whatever_happens_to_an_embedded_parent() -> Result<()> {
    load_passes_through(embedded, external)
}

#[test]
fn a_chain_holds_the_same_under_load_whatever_happens_to_a_parent_of_two_processes() -> Result<()> {
    load_passes_through(external, embedded)
}

#[test]
fn lag_is_measured_against_the_master_through_every_node_in_between() -> Result<()> {
    let cluster = Cluster::new()?;
    let Chain { mut master, mut parent, child } = Chain::start(&cluster, external, embedded)?;
    let mut grandchild = external(&cluster, "grandchild", &child)?;
    grandchild.start()?;
    grandchild.wait_ready()?;
    let clients = [child.client()?, grandchild.client()?];
    let wait_for = |wanted: u16| {
        eventually(&format!("/readyz?max_lag=12s answers {wanted}"), READY, || {
            for client in &clients {
                let reply = client.get("/readyz?max_lag=12s")?;
                ensure!(reply.status == wanted, "{} {}", reply.status, reply.body);
            }
            Ok(true)
        })
    };
    wait_for(200)?;
    ensure!(grandchild.state("default")?.head == Some(offline::position(&master.file("default"))?));
    let path = replica_of(&grandchild, "e2e")?.get(route::STATUS)?;
    ensure!(path.header(header::PATH) == Some("grandchild,child,parent"), "{path:?}");

    master.kill9()?;
    wait_for(503)?;
    for (node, above) in [(&child, &parent), (&grandchild, &child)] {
        let state = node.wait_state("default", "follow")?;
        let contact = state.last_contact_ms.context("a contact")?;
        ensure!(contact - state.at_head_ms.context("a time")? > 5_000, "it speaks with {}: {state:?}", above.name());
    }
    let detail = child.state("default")?.detail.unwrap_or_default();
    ensure!(detail.contains("retrying"), "the child says what is wrong with its parent: {detail:?}");
    ensure!(clients[1].count(POSTS)? == OLD, "it serves what it has");
    master.start()?;
    wait_for(200)?;

    parent.agent.as_mut().context("an agent")?.process()?.pause()?;
    wait_for(503).context("nobody tells what the parent's server passes on")?;
    parent.agent.as_mut().context("an agent")?.process()?.resume()?;
    wait_for(200)?;
    write(&master, 1)?;
    content::wait_all_equal(&[master.dir(), grandchild.dir()], READY)
}

#[test]
fn a_child_of_a_parent_that_has_stopped_says_why_it_is_old() -> Result<()> {
    let cluster = Cluster::new()?;
    let Chain { master, mut parent, child } = Chain::start(&cluster, embedded, external)?;
    let mut stranger = cluster.master("stranger")?;
    stranger.start()?;
    parent.stop()?;
    parent = parent.follow(&stranger);
    parent.start()?;
    eventually("the child tells what its parent's state is", READY, || {
        let state = child.state("default")?;
        let detail = state.detail.unwrap_or_default();
        ensure!(state.state == "follow" && detail.contains("foreign_master"), "{}: {detail}", state.state);
        Ok(true)
    })?;
    eventually("its lag grows", READY, || Ok(child.client()?.get("/readyz?max_lag=8s")?.status == 503))?;
    ensure!(child.client()?.count(POSTS)? == OLD);
    parent.stop()?;
    parent = parent.follow(&master);
    parent.start()?;
    write(&master, 1)?;
    content::wait_all_equal(&[master.dir(), parent.dir(), child.dir()], READY)?;
    eventually("all is well", READY, || Ok(child.state("default")?.detail.is_none()))?;
    assert_only_followed(&child)
}

#[test]
fn a_child_goes_on_with_its_parent_that_was_promoted() -> Result<()> {
    let cluster = Cluster::new()?;
    let Chain { mut master, mut parent, child } = Chain::start(&cluster, embedded, external)?;
    master.kill9()?;
    let promoted = process::run("promote", &mut parent.server.subcommand(&["promote"]), READY)?;
    ensure!(promoted.status.success(), "{promoted:?}");
    content::wait_all_equal(&[parent.dir(), child.dir()], READY).context("the server serves on as a replica's")?;
    parent.stop()?;
    parent = parent.env("REPLICA_MODE", "master");
    parent.start()?;
    write(&parent, 3)?;
    content::wait_all_equal(&[parent.dir(), child.dir()], READY)?;
    let position = offline::position(&child.file("default"))?;
    ensure!(position.epoch.generation == 2, "{position}");
    ensure!(child.client()?.count(POSTS)? == OLD + 3);
    assert_only_followed(&child)?;
    assert_verified(&child)
}

#[test]
fn a_child_is_promoted_with_what_its_parent_has_and_its_doctor_knows_the_way() -> Result<()> {
    let cluster = Cluster::new()?;
    let Chain { mut master, parent, mut child } = Chain::start(&cluster, external, embedded)?;
    let found = process::run("doctor", &mut child.server.subcommand(&["doctor"]), READY)?;
    let text = found.stdout.join("\n");
    ensure!(found.status.success() && text.contains("cascade") && text.contains("are parent"), "{found:?}");
    child.stop()?;
    write(&master, 2)?;
    content::wait_all_equal(&[master.dir(), parent.dir()], READY)?;
    master.kill9()?;
    let plan = process::run("promote", &mut child.server.subcommand(&["promote", "--dry-run"]), READY)?;
    ensure!(plan.stdout.join("").contains("from the replica"), "{plan:?}");
    let promoted = process::run("promote", &mut child.server.subcommand(&["promote"]), READY)?;
    let text = promoted.stdout.join("\n");
    ensure!(promoted.status.success() && text.contains("2 entries came from the replica"), "{promoted:?}");
    ensure!(!text.contains("still answers"), "{text}");
    child = child.env("REPLICA_MODE", "master");
    child.start()?;
    ensure!(child.client()?.count(POSTS)? == OLD + 2);
    Ok(())
}

#[test]
fn nodes_that_follow_each_other_say_so_and_serve_what_they_have() -> Result<()> {
    let cluster = Cluster::new()?;
    let Chain { master, mut parent, child } = Chain::start(&cluster, embedded, external)?;
    parent.stop()?;
    parent = parent.follow(&child);
    parent.start()?;
    let state = parent.wait_state("default", "retrying")?;
    let detail = state.detail.context("a reason")?;
    ensure!(detail.contains("child,parent") && detail.contains("set MASTER_URL"), "{detail}");
    eventually("it is loud", READY, || Ok(told(&parent, "sync failed") > 0))?;
    for node in [&parent, &child] {
        ensure!(node.client()?.count(POSTS)? == OLD, "{}", node.name());
    }
    parent.stop()?;
    parent = parent.follow(&master);
    parent.start()?;
    write(&master, 1)?;
    content::wait_all_equal(&[master.dir(), parent.dir(), child.dir()], READY)?;
    assert_only_followed(&child)
}
