//! A replica takes its master's place, the others follow it, and the old master comes back as one of them.

use std::os::unix::process::ExitStatusExt;

use anyhow::{Context, Result, ensure};
use e2e::cluster::{READY, assert_quiet};
use e2e::faults::{self, Fault};
use e2e::load::{self, Load};
use e2e::process::{self, Finished};
use e2e::program::Program;
use e2e::{Cluster, Node, content, eventually, offline};
use serde_json::{Value, json};

use crate::trio::{POSTS, Trio};

/// Runs `vski-server promote` or `demote` with a node's settings.
fn command(node: &Node, arguments: &[&str]) -> Result<Finished> {
    process::run(arguments[0], &mut node.server.subcommand(arguments), READY)
}

/// The same; it must succeed. Returns what it printed.
fn succeeds(node: &Node, arguments: &[&str]) -> Result<String> {
    let done = command(node, arguments)?;
    ensure!(done.status.success(), "{arguments:?}: {done:?}");
    Ok(done.stdout.join("\n"))
}

/// The node as a master, from its next start on.
fn as_master(node: Node) -> Node {
    node.env("REPLICA_MODE", "master")
}

fn as_replica(node: Node, master: &Node) -> Node {
    node.env("REPLICA_MODE", "replica").follow(master).env("SYNC_MODE", "stream")
}

/// Lines of its processes that contain `text`.
fn told(node: &Node, text: &str) -> usize {
    let programs = std::iter::once(&node.server).chain(&node.agent);
    programs.flat_map(Program::lines).filter(|line| line.contains(text)).count()
}

fn write(master: &Node, records: u64) -> Result<()> {
    let admin = master.admin()?;
    (0..records).try_for_each(|n| admin.create_record(POSTS, &json!({"n": n})).map(drop))
}

fn wait_level(nodes: [&Node; 2]) -> Result<()> {
    content::wait_all_equal(&nodes.map(Node::dir), READY)
}

/// What a node has written to `.vski/lost`.
fn lost_lines(node: &Node) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for file in std::fs::read_dir(node.dir().join(".vski/lost"))? {
        let text = std::fs::read_to_string(file?.path())?;
        lines.extend(text.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(lines)
}

/// A master with two databases and some records, and a replica of one process that has them too.
fn pair(cluster: &Cluster) -> Result<(Node, Node)> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection(POSTS, &load::FIELDS)?;
    admin.create_database("shop")?;
    write(&master, 3)?;
    let mut replica = cluster.embedded("replica", &master)?;
    replica.start()?;
    replica.wait_ready()?;
    wait_level([&master, &replica])?;
    Ok((master, replica))
}

#[test]
fn a_replica_is_promoted_under_load_and_the_old_master_comes_back_as_a_replica() -> Result<()> {
    let cluster = Cluster::new()?;
    let Trio { mut master, embedded, external, admin } = Trio::start(&cluster, Node::start)?;
    let load = Load::start(admin, POSTS, load::seed()?);
    load.wait_for(50)?;
    master.kill9()?;
    drop(load.stop()?);

    // The old master's last writes reach nobody.
    let (mut second, mut first) = (external, embedded);
    first.stop()?;
    second.stop()?;
    let tail = offline::position(&first.file("default"))?.version;
    master.start()?;
    write(&master, 5)?;
    master.kill9()?;

    let said = succeeds(&first, &["promote"])?;
    ensure!(said.contains("does not answer") && said.contains("generation 2"), "{said}");
    first = as_master(first);
    first.start()?;
    second = second.follow(&first);
    second.start()?;
    write(&first, 3)?;
    wait_level([&first, &second]).context("the other replica follows the new master")?;
    let position = offline::position(&second.file("default"))?;
    ensure!(position.epoch.generation == 2 && position.version > tail, "{position}");
    ensure!(told(&second, "bootstrap started") == 1, "the copy was fetched anew");

    master.start()?;
    second.stop()?;
    second = second.follow(&master);
    second.start()?;
    second.wait_state("default", "stale_master")?;
    ensure!(offline::position(&second.file("default"))? == position, "it followed an old master");
    second.stop()?;
    second = second.follow(&first);
    second.start()?;

    let refused = command(&master, &["demote"])?;
    let holder = format!("pid {}", master.server.process()?.pid());
    ensure!(refused.status.code() == Some(2) && refused.stderr.join("").contains(&holder), "{refused:?}");
    master.stop()?;
    succeeds(&master, &["demote", "--dry-run"])?;
    ensure!(!succeeds(&master, &["demote"])?.contains("already"), "the dry run did it");
    master = as_replica(master, &first);
    ["ADMIN_EMAIL", "ADMIN_PASSWORD"].iter().for_each(|name| master.server.unset(name));
    master.start()?;
    master.wait_ready()?;
    write(&first, 1)?;
    wait_level([&first, &master]).context("the old master follows")?;
    wait_level([&first, &second])?;
    let lost = lost_lines(&master)?;
    let rows = lost.iter().filter(|line| line["table"] == POSTS && line["row"].is_object()).count();
    let entries = lost.iter().filter(|line| line.get("entry").is_some()).count();
    ensure!(rows >= 5 && entries >= 5, "{rows} rows and {entries} entries in the report");
    Ok(())
}

#[test]
fn a_promotion_fetches_what_the_old_master_still_has() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, mut replica) = pair(&cluster)?;
    replica.stop()?;
    write(&master, 4)?;
    let before = content::read(&replica.file("default"))?;
    let plan = succeeds(&replica, &["promote", "--dry-run"])?;
    ensure!(plan.contains("default: generation 1") && plan.contains("; 4 entries"), "{plan}");
    ensure!(plan.contains("begin generation 2"), "{plan}");
    ensure!(content::read(&replica.file("default"))? == before, "a dry run changed something");

    let said = succeeds(&replica, &["promote"])?;
    ensure!(said.contains("4 entries came") && said.contains("still answers"), "{said}");
    let promoted = offline::position(&replica.file("default"))?;
    let again = succeeds(&replica, &["promote"])?;
    ensure!(again.contains("already"), "{again}");
    ensure!(offline::position(&replica.file("default"))? == promoted, "promoted twice");
    replica = as_master(replica);
    replica.start()?;
    ensure!(replica.client()?.count(POSTS)? == 7);
    let told = succeeds(&replica, &["promote", "--dry-run"])?;
    ensure!(told.contains("default: generation 2") && told.contains("already"), "on a running master: {told}");
    ensure!(offline::position(&replica.file("default"))? == promoted, "an epoch that nobody needs");
    Ok(())
}

#[test]
fn a_promotion_that_was_killed_is_finished_by_the_next_one() -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, mut replica) = pair(&cluster)?;
    replica.stop()?;
    master.kill9()?;
    let before = offline::position(&replica.file("default"))?;
    let copy = cluster.path().join("copy");
    offline::copy(replica.dir(), &copy)?;
    for (label, fault) in faults()? {
        offline::restore(&copy, replica.dir())?;
        let mut command = replica.server.subcommand(&["promote"]);
        let ended = process::run("promote", command.env("VSKI_FAULT", &fault), READY)?;
        ensure!(!ended.status.success(), "{fault}: {ended:?}");
        ensure!(fault.ends_with("=error") || ended.status.signal() == Some(9), "{fault}: {ended:?}");
        succeeds(&replica, &["promote"]).with_context(|| format!("after {label}"))?;
        for db in ["default", "shop"] {
            let position = offline::position(&replica.file(db))?;
            ensure!(position.epoch.generation == 2, "{label}: {db} is at {position}");
        }
        let position = offline::position(&replica.file("default"))?;
        ensure!(position.version == before.version + 1, "{label}: {position} after {before}");
    }
    as_master(replica).start()
}

/// The places of a promotion: labels, and how each is asked to die or fail.
fn faults() -> Result<Vec<(String, String)>> {
    let mut all = faults::of_group("promote")?;
    let of_node_db = ["node:begin-promotion", "node:finish-promotion"];
    all.extend(faults::of_group("node")?.into_iter().filter(|fault| of_node_db.contains(&fault.label.as_str())));
    let asked = |fault: Fault| {
        let fails = fault.can_fail.then(|| (fault.label.clone(), format!("{}=error", fault.label)));
        [Some((fault.label.clone(), fault.label)), fails]
    };
    Ok(all.into_iter().flat_map(asked).flatten().collect())
}

#[test]
fn a_demotion_that_was_killed_is_run_again() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    master.stop()?;
    for (fault, signal) in [("node:demote=error", None), ("node:demote", Some(9))] {
        let ended = process::run("demote", master.server.subcommand(&["demote"]).env("VSKI_FAULT", fault), READY)?;
        ensure!(!ended.status.success() && ended.status.signal() == signal, "{fault}: {ended:?}");
        master.start().context("it still is a master")?;
        master.stop()?;
    }
    ensure!(succeeds(&master, &["demote"])?.contains("replica's directory now"));
    ensure!(succeeds(&master, &["demote"])?.contains("already"));
    Ok(())
}

#[test]
fn an_embedded_agent_lets_go_of_the_directory_and_its_server_goes_on_reading() -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, mut replica) = pair(&cluster)?;
    let unauthorised = replica.client()?.send(reqwest::Method::POST, "/api/replica/release", None)?;
    ensure!(unauthorised.status == 401, "{unauthorised:?}");
    master.kill9()?;
    let plan = succeeds(&replica, &["promote", "--dry-run"])?;
    ensure!(plan.contains("ask a running replica"), "{plan}");
    replica.wait_ready()?;
    let said = succeeds(&replica, &["promote"])?;
    ensure!(said.contains("a running replica") && said.contains("has let go"), "{said}");
    ensure!(replica.client()?.count(POSTS)? == 3, "it no longer serves reads");
    let write =
        replica.admin()?.send(reqwest::Method::POST, "/api/collections/posts/records", Some(&json!({"n": 1})))?;
    ensure!(write.status == 403, "a replica's server takes writes: {write:?}");
    replica.stop()?;
    replica = as_master(replica);
    replica.start()?;
    self::write(&replica, 1)
}

#[test]
fn an_external_agent_lets_go_and_stays_idle_when_it_is_restarted() -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, _embedded) = pair(&cluster)?;
    let mut replica = cluster.external("external", &master)?;
    replica.start()?;
    replica.wait_ready()?;
    wait_level([&master, &replica])?;
    master.kill9()?;
    let said = succeeds(&replica, &["promote"])?;
    ensure!(said.contains("a running agent") && said.contains("has let go"), "{said}");
    replica.server.stop()?;
    replica = as_master(replica);
    replica.server.start()?;
    let agent = replica.agent.as_mut().context("it has an agent")?;
    agent.stop().context("the agent was still running")?;
    agent.start().context("beside a running master")?;
    let probe = e2e::client::Client::new(&agent.url())?;
    for path in ["/livez", "/readyz", "/metrics"] {
        ensure!(probe.get(path)?.status == 200, "{path}");
    }
    eventually("it says why it does nothing", READY, || Ok(told(&replica, "nothing to sync") == 1))?;
    write(&replica, 2)?;
    ensure!(replica.client()?.count(POSTS)? == 5);
    replica.stop()?;
    assert_quiet(&[&replica], &["nothing to sync", "sync failed"])
}

/// An agent in another container holds the directory: its address leads nowhere from here.
fn held_elsewhere(node: &Node) -> Result<std::fs::File> {
    let path = node.file("default").with_file_name(".vski").join("lock");
    std::fs::write(&path, r#"{"role":"agent","pid":1,"host":"f00d","since_ms":1,"admin":"http://127.0.0.1:1"}"#)?;
    let file = std::fs::File::open(path)?;
    file.lock()?;
    Ok(file)
}

#[test]
fn a_promotion_is_refused_where_it_would_lose_what_could_be_had() -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, replica) = pair(&cluster)?;
    let mut stranger = cluster.master("stranger")?;
    stranger.start()?;
    let before = offline::position(&replica.file("default"))?;

    let mut unknown = replica.server.subcommand(&["promote"]);
    let kept = process::run("promote", unknown.env("JWT_SECRET", "another secret that nobody shares"), READY)?;
    let holder = "a running replica (pid";
    ensure!(kept.status.code() == Some(2) && kept.stderr.join("").contains(holder), "{kept:?}");

    let mut replica = replica.follow(&stranger);
    let refused = command(&replica, &["promote"])?;
    ensure!(refused.status.code() == Some(1) && refused.stderr.join("").contains("--force"), "{refused:?}");
    ensure!(offline::position(&replica.file("default"))? == before, "promoted all the same");
    replica.stop()?;
    let elsewhere = held_elsewhere(&replica)?;
    let refused = command(&replica, &["promote"])?;
    let told = refused.stderr.join("");
    ensure!(told.contains("where it runs, on f00d (the agent's container)"), "{told}");
    drop(elsewhere);
    replica = replica.follow(&master);
    replica.start().context("it is still a replica")?;
    write(&master, 1)?;
    wait_level([&master, &replica])?;
    replica.stop()?;
    master.kill9()?;
    let replica = replica.follow(&stranger);
    succeeds(&replica, &["promote", "--force"])?;
    ensure!(offline::position(&replica.file("default"))?.epoch.generation == 2);
    ensure!(command(&stranger, &["promote"])?.stdout.join("").contains("already"));
    let nowhere = stranger.env("DATA_DIR", cluster.path().join("nowhere"));
    ensure!(command(&nowhere, &["promote"])?.status.code() == Some(2));
    ensure!(command(&nowhere, &["demote"])?.status.code() == Some(2));
    Ok(())
}
