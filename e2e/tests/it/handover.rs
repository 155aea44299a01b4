//! A planned promotion: the old master lives, clients write and read all the time, and no acknowledged write is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::cluster::READY;
use e2e::load::{self, Load};
use e2e::process::{self, Finished};
use e2e::proxy::{Network, Proxy};
use e2e::{Cluster, Node, content, eventually, offline};
use reqwest::Method;
use serde_json::{Value, json};
use vski_replication::names::route;

use crate::trio::POSTS;

/// The second collection, with a writer of its own.
const MORE: &str = "more";

/// Records that the old master takes when it comes back and nobody follows it.
const TAIL: u64 = 5;

fn run(node: &Node, command: &str) -> Result<Finished> {
    process::run(command, &mut node.server.subcommand(&[command]), READY)
}

fn succeeds(node: &Node, command: &str) -> Result<String> {
    let done = run(node, command)?;
    ensure!(done.status.success(), "{command}: {done:?}");
    Ok(done.stdout.join("\n"))
}

/// A counter of an agent for `default`; 0 while there is none.
fn counted(agent: &str, name: &str) -> Result<u64> {
    let text = Client::new(agent)?.get("/metrics")?.ok()?.body;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{db=\"default\"}} ")));
    line.map_or(Ok(0), |value| value.parse().with_context(|| format!("{name} {value}")))
}

/// Reads a node until told to stop. Every answer is a good one; none may come only while the node is restarted.
fn read(client: &Client, restarts: bool, done: &AtomicBool, reads: &AtomicU64) -> Result<()> {
    while !done.load(Ordering::Relaxed) {
        match client.get(&format!("{}?perPage=5", e2e::client::records(POSTS))) {
            Ok(reply) => {
                let page = reply.ok()?.json()?;
                let whole = |item: &Value| item["note"].as_str().is_some_and(|note| note.starts_with("note "));
                ensure!(page["items"].as_array().is_some_and(|items| items.iter().all(whole)), "{page}");
                reads.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => ensure!(restarts, "a node that was never stopped did not answer: {error:#}"),
        }
    }
    Ok(())
}

#[test]
fn a_promotion_under_load_with_the_old_master_alive_loses_no_acknowledged_write() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    [POSTS, MORE].iter().try_for_each(|name| admin.create_collection(name, &load::FIELDS).map(drop))?;
    let network = Proxy::start(&master.server.url())?;
    let mut first = cluster.embedded("first", &master)?;
    let mut second = cluster.external("second", &master)?.env("MASTER_URL", network.url()).env("SYNC_MODE", "stream");
    for replica in [&mut first, &mut second] {
        replica.start()?;
        replica.wait_ready()?;
    }
    let seed = load::seed()?;
    let loads = [Load::start(admin.clone(), POSTS, seed), Load::start(admin, MORE, seed.wrapping_add(1))];
    let clients = [(first.client()?, true), (second.client()?, false)];
    let (done, reads) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    std::thread::scope(|scope| {
        let readers: Vec<_> = clients
            .iter()
            .zip(&reads)
            .map(|((client, restarts), reads)| scope.spawn(|| read(client, *restarts, &done, reads)))
            .collect();
        let promoted = promote_under_load(&mut master, &mut first, &mut second, loads, &network);
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        }
        promoted
    })?;
    ensure!(reads.iter().all(|reads| reads.load(Ordering::Relaxed) > 10), "{reads:?}");
    the_old_master_comes_back(&cluster, master, &first, &second)
}

/// The writers are told nothing: they go on until well after the promotion.
fn promote_under_load(
    master: &mut Node,
    first: &mut Node,
    second: &mut Node,
    loads: [Load; 2],
    network: &Proxy,
) -> Result<()> {
    let agent = second.agent.as_ref().context("an agent")?.url();
    loads.iter().try_for_each(|load| load.wait_for(80))?;
    let said = succeeds(first, "promote")?;
    ensure!(said.contains("takes no more writes") && said.contains("generation 2"), "{said}");
    ensure!(master.client()?.count(POSTS)? > 0, "the old master serves reads");
    let refused = master.admin()?.send(Method::POST, &e2e::client::records(POSTS), Some(&json!({"n": 1})))?;
    ensure!(refused.status == 503 && refused.body.contains("handed over"), "{refused:?}");
    ensure!(refused.header("retry-after").is_some(), "{refused:?}");
    let made = master.admin()?.send(Method::POST, "/api/databases", Some(&json!({"name": "late"})))?;
    ensure!(made.status == 503, "{made:?}");
    let ledgers = loads.into_iter().map(Load::stop).collect::<Result<Vec<_>>>()?;

    first.stop()?;
    first.programs().for_each(|program| program.set("REPLICA_MODE", "master"));
    first.start()?;
    for ledger in &ledgers {
        ledger.check(&first.client()?).context("an acknowledged write is not on the new master")?;
    }
    network.lead_to(&first.server.url())?;
    let admin = first.admin()?;
    admin.create_collection("after", &load::FIELDS)?;
    let load = Load::start(admin, "after", 1);
    load.wait_for(40)?;
    let after = load.stop()?;
    content::wait_all_equal(&[first.dir(), second.dir()], READY).context("the other replica goes on")?;
    after.check(&second.client()?)?;
    ensure!(counted(&agent, "vski_sync_bootstraps_total")? == 1, "a copy was fetched anew");
    ensure!(counted(&agent, "vski_sync_converges_total")? == 0, "a copy was compared, and it was a planned promotion");
    Ok(())
}

/// As a master it changes nobody; as a replica it reports what it took meanwhile.
fn the_old_master_comes_back(cluster: &Cluster, mut master: Node, first: &Node, second: &Node) -> Result<()> {
    master.kill9()?;
    master.start()?;
    let admin = master.admin()?;
    let path = e2e::client::records(POSTS);
    for n in 1..=TAIL {
        admin.create_record(POSTS, &json!({"n": -(n as i64), "note": "note of the tail"}))?;
    }
    let before = [first, second].map(|node| offline::position(&node.file("default")));
    let stray = Proxy::start(&master.server.url())?;
    let mut third = cluster.embedded("third", first)?;
    third.start()?;
    third.wait_ready()?;
    content::wait_all_equal(&[first.dir(), third.dir()], READY)?;
    third.stop()?;
    third.programs().for_each(|program| program.set("MASTER_URL", stray.url()));
    third.start()?;
    third.wait_state("default", "stale_master")?;
    ensure!(third.client()?.get(&path)?.status == 200, "it no longer serves");
    for (node, before) in [first, second].iter().zip(before) {
        ensure!(offline::position(&node.file("default"))? == before?, "{} followed an old master", node.name());
    }
    stray.lead_to(&first.server.url())?;

    master.stop()?;
    succeeds(&master, "demote")?;
    let mut master = master.follow(first).env("REPLICA_MODE", "replica").env("SYNC_MODE", "stream");
    master.start()?;
    master.wait_ready()?;
    first.admin()?.create_record(POSTS, &json!({"n": 0, "note": "note at last"}))?;
    let dirs = [first, second, &third, &master].map(Node::dir);
    content::wait_all_equal(&dirs, READY).context("all four are one cluster again")?;
    let mut lost = Vec::new();
    for file in std::fs::read_dir(master.dir().join(".vski/lost"))? {
        let text = std::fs::read_to_string(file?.path())?;
        lost.extend(text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?);
    }
    let rows: Vec<&Value> = lost.iter().filter(|line| line["row"]["note"] == "note of the tail").collect();
    ensure!(rows.len() as u64 == TAIL, "{} of {TAIL} lost rows are in the report", rows.len());
    ensure!(lost.iter().filter(|line| line.get("row").is_some()).count() == rows.len(), "it lost more than its tail");
    Ok(())
}

#[test]
fn a_promotion_that_fails_gives_the_old_master_its_writes_back() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection(POSTS, &[("text", "text")])?;
    let network = Proxy::start(&master.server.url())?;
    let mut replica = cluster.embedded("replica", &master)?.env("MASTER_URL", network.url());
    replica.start()?;
    replica.wait_ready()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    replica.stop()?;
    // What has to be fetched does not come through whole; what is short does.
    let text: String = (0..4_000).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
    (0..4).try_for_each(|_| admin.create_record(POSTS, &json!({ "text": text })).map(drop))?;
    network.set(Network::CutAfter(8_000));
    let before = offline::position(&replica.file("default"))?;
    let refused = run(&replica, "promote")?;
    let said = refused.stderr.join("\n");
    ensure!(refused.status.code() == Some(1) && said.contains("head was not reached"), "{refused:?}");
    ensure!(refused.stdout.join("\n").contains("takes writes again"), "{refused:?}");
    ensure!(offline::position(&replica.file("default"))? == before, "it was promoted all the same");
    admin.create_record(POSTS, &json!({ "text": "it takes writes" }))?;
    network.set(Network::Whole);
    replica.start()?;
    eventually("it is a replica as before", READY, || {
        content::assert_all_equal(&[master.dir(), replica.dir()]).map(|()| true)
    })
}

#[test]
fn only_an_operator_may_have_a_master_hand_over() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection(POSTS, &load::FIELDS)?;
    let guest = master.client()?;
    for method in [Method::POST, Method::DELETE] {
        for (client, status) in
            [(&guest, 401), (&admin, 403), (&guest.with_token(&e2e::client::replica_token("r")), 401)]
        {
            let reply = client.send(method.clone(), route::HANDOVER, None)?;
            ensure!([status, 403].contains(&reply.status), "{reply:?}");
        }
    }
    admin.create_record(POSTS, &json!({"n": 1}))?;
    Ok(())
}
