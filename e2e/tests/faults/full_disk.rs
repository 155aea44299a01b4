//! The data volume is a small disk, and full: a replica's while it applies, or a master's while it is written to, which
//! then crashes, too.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use e2e::client::{Client, Reply, records};
use e2e::cluster::READY;
use e2e::output::log_field;
use e2e::{content, eventually};
use reqwest::Method;
use serde_json::json;

use super::cluster::Cluster;
use super::node::assert_equal;
use super::part::Part;
use super::told::{agent_client, assert_copied_once, error_series, metric, readiness, wait_for_error};

/// Size of a disk, MiB, and the room that is left on it at first, bytes.
const DISK: u64 = 64;
const LEFT: u64 = 4 << 20;

/// What a record takes; some hundred fill the disk.
const RECORD_BYTES: usize = 100_000;

/// Records before the disk is full.
const BEFORE: usize = 20;

/// More than fit, whatever a write-ahead log takes.
const MOST: usize = 1_000;

/// What the master says when its volume is full, and when it is not any more.
const FULL: &str = "the data volume is full: writes are refused with 507";
const ROOM: &str = "the data volume has room again";

/// Positions of replicas are written each second, on a full volume too.
const POSITIONS: &str = "could not write down the replicas' positions";
const WRITTEN: &str = "the replicas' positions are written down again";

/// What every program says when it has been started.
const LISTENING: &str = "listening";

pub fn replica(cluster: &Cluster) -> Result<()> {
    let disk = cluster.disk("r001", DISK)?;
    let (mut master, mut replica) = (cluster.master()?, cluster.replica("r001")?);
    cluster.expect("r001-agent", &["\"error_name\":\"disk_full\"", "cannot write node.db"]);
    master.start_ready()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("note", "text")])?;
    (0..BEFORE).try_for_each(|n| write(&admin, n).map(drop))?;
    replica.start_ready()?;
    let client = replica.client()?;

    disk.leave(LEFT)?;
    let agent = agent_client(replica.agent()?)?;
    for n in BEFORE..MOST {
        write(&admin, n)?;
        if metric(&agent, &error_series("disk_full"))? > 0.0 {
            break;
        }
    }
    // On a busy machine it may have to apply them first.
    wait_for_error(replica.agent()?, "disk_full")?;
    let status = replica.agent_command(&["status", "--json"])?;
    ensure!(status.stdout.contains("disk_full"), "status does not tell: {status:?}");
    eventually("the server beside the agent tells it too", READY, || {
        let state = readiness(&client)?;
        ensure!(state["state"] == "retrying" && state["lastError"]["name"] == "disk_full", "{state}");
        ensure!(state["lastError"]["remedy"] == "make room on DATA_DIR's file system", "{state}");
        Ok(true)
    })?;
    eventually("its lag grows", READY, || Ok(client.get("/readyz?max_lag=5s")?.status == 503))?;
    let there = client.count("posts")?;
    ensure!(there >= BEFORE as u64 && there < admin.count("posts")?, "it serves {there} rows");
    replica.assert_answers("posts")?;
    // A log that is used again from its beginning may have room for some more rows at any time.
    let file = content::read(&disk.data().join("default.db"))?.tables["posts"].rows;
    ensure!((there..=client.count("posts")?).contains(&file), "the file has other rows than its server: {file}");
    assert_told_once(replica.agent()?, "cannot write node.db", "node.db is written again")?;
    // Both start on a full disk, too.
    replica.agent()?.restart()?;
    replica.server.restart()?;
    replica.wait_ready()?;
    let later = client.count("posts")?;
    ensure!((there..=admin.count("posts")?).contains(&later), "it serves {later} rows, and {there} before");

    disk.relieve()?;
    assert_equal(&master, &[&replica])?;
    eventually("the lag is small again", READY, || Ok(client.get("/readyz?max_lag=5s")?.status == 200))?;
    assert_copied_once(replica.agent()?)
}

pub fn master(cluster: &Cluster) -> Result<()> {
    let disk = cluster.disk("master", DISK)?;
    let (mut master, mut replica) = (cluster.master()?, cluster.replica("r001")?);
    cluster.expect("master", &[FULL, POSITIONS]);
    cluster.expect("r001-agent", &["sync failed"]);
    master.server.revive();
    master.start_ready()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("note", "text")])?;
    replica.start_ready()?;
    let client = replica.client()?;

    disk.leave(LEFT)?;
    let (mut stored, mut refused) = (BTreeSet::new(), 0);
    for n in 0..MOST {
        match write(&admin, n)? {
            Some(id) => drop(stored.insert(id)),
            None => refused += 1,
        }
        if refused == 5 {
            break;
        }
    }
    ensure!(refused == 5 && !stored.is_empty(), "{refused} writes were refused, {} stored", stored.len());
    // Reads go on, and what is stored still arrives.
    admin.get("/readyz")?.ok()?;
    for node in [&admin, &client] {
        eventually("what was stored is read", READY, || Ok(node.count("posts")? == stored.len() as u64))?;
    }
    let refusal = refused_in_words(&admin, &mut stored)?;
    ensure!(refusal.body.contains("free some space"), "{refusal:?}");
    assert_told_once(&master.server, FULL, ROOM)?;
    assert_told_once(&master.server, POSITIONS, WRITTEN)?;

    // A crash on a full disk: it starts again, and has what it had acknowledged. Its log is then used again, so that there
    // may be room for some more.
    master.server.crash()?;
    master.server.wait_revived()?;
    master.wait_ready()?;
    ensure!(admin.count("posts")? == stored.len() as u64, "rows are gone after a crash");
    stored.extend(write(&admin, MOST)?);
    master.server.restart()?;
    master.wait_ready()?;
    ensure!(admin.count("posts")? == stored.len() as u64, "rows are gone after a restart");

    disk.relieve()?;
    eventually("writes are stored again", READY, || {
        let id = write(&admin, MOST)?.context("still refused")?;
        Ok(stored.insert(id))
    })?;
    assert_equal(&master, &[&replica])?;
    for node in [&admin, &client] {
        let found = node.all_records("posts")?;
        let found: BTreeSet<String> = found.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)).collect();
        ensure!(found == stored, "{} rows are there, {} were acknowledged", found.len(), stored.len());
    }
    assert_told_once(&master.server, FULL, ROOM)?;
    assert_told_once(&master.server, ROOM, FULL)?;
    content::read(&disk.data().join("default.db"))?;
    assert_copied_once(replica.agent()?)
}

fn note(n: usize) -> serde_json::Value {
    json!({"note": format!("{n:08}").repeat(RECORD_BYTES / 8)})
}

/// Writes a record. Returns its id, or `None` if there is no room for it.
fn write(admin: &Client, n: usize) -> Result<Option<String>> {
    let reply = admin.send(Method::POST, &records("posts"), Some(&note(n)))?;
    match reply.status {
        200 => Ok(Some(reply.json()?["id"].as_str().context("a record without id")?.to_owned())),
        507 => Ok(None),
        status => bail!("a write is answered {status}: {}", reply.body),
    }
}

/// Writes until a write is refused: room for one more may be found at any time. Returns the refusal.
fn refused_in_words(admin: &Client, stored: &mut BTreeSet<String>) -> Result<Reply> {
    for _ in 0..MOST {
        let reply = admin.send(Method::POST, &records("posts"), Some(&note(MOST)))?;
        match reply.status {
            200 => drop(stored.insert(reply.json()?["id"].as_str().context("a record without id")?.to_owned())),
            507 => return Ok(reply),
            status => bail!("a write is answered {status}: {}", reply.body),
        }
    }
    bail!("{MOST} writes are stored on a full disk")
}

/// Fails if a container tells of a trouble that it has told of, and that has neither ended nor been met by another process.
fn assert_told_once(part: &Part, begins: &str, ends: &str) -> Result<()> {
    let mut told = false;
    for message in part.lines().iter().filter_map(|line| log_field(line, "message")) {
        if message.contains(begins) {
            ensure!(!told, "{} repeats: {begins}", part.name());
            told = true;
        } else if message.contains(ends) || message.ends_with(LISTENING) {
            told = false;
        }
    }
    Ok(())
}
