//! Files that had not arrived when their master died are told by name, and come back with whoever has them.

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, replica_token};
use e2e::cluster::READY;
use e2e::{Cluster, Node, content, eventually, process, storage};
use reqwest::Method;
use serde_json::{Value, json};

use super::{make_collection, path, upload, wait_file};

const LOST: &str = "/api/replica/files?db=default";

/// Runs a command with a node's settings; it must succeed. Returns what it printed.
fn run(command: &mut std::process::Command, name: &str) -> Result<String> {
    let done = process::run(name, command, READY)?;
    ensure!(done.status.success(), "{name}: {done:?}");
    Ok(done.stdout.join("\n"))
}

fn server(node: &Node, arguments: &[&str]) -> Result<String> {
    run(&mut node.server.subcommand(arguments), arguments[0])
}

/// What the database's part of a `/readyz` says of files.
fn waiting(url: &str) -> Result<Value> {
    let body = Client::new(url)?.get("/readyz")?.ok()?.json()?;
    let databases = body["dbs"].as_array().context("databases")?;
    let default = databases.iter().find(|database| database["name"] == "default").context("default")?;
    Ok(default["filesWaiting"].clone())
}

/// A replica of two processes that lacks `files` is ready, and says so everywhere.
fn assert_told(replica: &Node, files: u64) -> Result<()> {
    let agent = replica.agent.as_ref().context("an agent of its own")?;
    let words = if files == 0 { "  all  ".to_owned() } else { format!("  {files} missing  ") };
    eventually(&format!("{files} missing files are told"), READY, || {
        for url in [agent.url(), replica.server.url()] {
            let told = waiting(&url)?;
            ensure!(told == json!(files), "{url}/readyz: {told}");
        }
        let status = run(&mut agent.subcommand(&["status"]), "status")?;
        ensure!(status.contains(&words), "{status}");
        let json = run(&mut agent.subcommand(&["status", "--json"]), "status")?;
        let json: Value = serde_json::from_str(&json)?;
        ensure!(json[0]["filesWaiting"] == files, "{json}");
        let metrics = Client::new(&agent.url())?.get("/metrics")?.ok()?.body;
        ensure!(metrics.contains(&format!("vski_sync_files_waiting{{db=\"default\"}} {files}\n")), "{metrics}");
        Ok(true)
    })
}

#[test]
fn files_that_had_not_arrived_before_a_promotion_are_named_and_come_back_with_the_old_master() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut old = cluster.master("old")?;
    old.start()?;
    make_collection(&old.admin()?)?;
    let kept = upload(&old.admin()?, "kept.txt", b"kept")?;
    let mut first = cluster.embedded("first", &old)?;
    let mut second = cluster.external("second", &old)?.env("SYNC_MODE", "stream");
    for replica in [&mut first, &mut second] {
        replica.start()?;
        replica.wait_ready()?;
        wait_file(replica, &path(&kept, &kept["one"])?, b"kept")?;
    }
    assert_told(&second, 0)?;
    // Its row reaches the replicas, and it does not.
    [&mut first, &mut second].into_iter().try_for_each(Node::stop)?;
    let late = upload(&old.admin()?, "late.txt", b"late")?;
    let (late_path, name) = (path(&late, &late["one"])?, late["one"].as_str().context("a name")?);
    let (file, aside) = (old.dir().join("storage/default").join(name), cluster.path().join("aside"));
    std::fs::rename(&file, &aside)?;
    [&mut first, &mut second].into_iter().try_for_each(Node::start)?;
    for replica in [&first, &second] {
        eventually("the row is here and its file is awaited", READY, || {
            Ok(replica.client()?.get(&late_path)?.status == 503)
        })?;
    }
    assert_told(&second, 1)?;
    old.kill9()?;
    std::fs::rename(&aside, &file)?;
    [&mut first, &mut second].into_iter().try_for_each(Node::stop)?;

    for arguments in [&["promote", "--dry-run"][..], &["promote"]] {
        let said = server(&first, arguments)?;
        ensure!(said.contains(&format!("default: 1 files are missing here: {name} (missing)")), "{said}");
        ensure!(said.contains("give them back"), "{said}");
    }
    first = first.env("REPLICA_MODE", "master");
    first.start()?;
    ensure!(first.client()?.get(&late_path)?.status == 404);
    let lost = first.admin()?.get(LOST)?.ok()?.json()?;
    ensure!(lost == json!({"count": 1, "names": [name]}), "{lost}");
    second = second.follow(&first);
    second.start()?;
    second.wait_ready()?;
    assert_told(&second, 1)?;

    server(&old, &["demote"])?;
    old = old.env("REPLICA_MODE", "replica").follow(&first).env("SYNC_MODE", "stream");
    old.start()?;
    for node in [&first, &second, &old] {
        wait_file(node, &late_path, b"late")?;
    }
    let dirs = [first.dir(), second.dir(), old.dir()];
    content::wait_all_equal(&dirs, READY)?;
    storage::wait_whole(&dirs, "default", READY)?;
    assert_told(&second, 0)?;
    let lost = first.admin()?.get(LOST)?.ok()?.json()?;
    ensure!(lost == json!({"count": 0, "names": []}), "{lost}");
    Ok(())
}

#[test]
fn a_master_takes_back_the_very_file_that_its_row_names_and_only_from_a_replica() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?.env("MAX_BODY_BYTES", "10KB").env("MAX_UPLOAD_BYTES", "4MB");
    master.start()?;
    let admin = master.admin()?;
    make_collection(&admin)?;
    // Larger than any other body.
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 253) as u8).collect();
    let record = upload(&admin, "a.bin", &bytes)?;
    let name = record["one"].as_str().context("a name")?;
    let at = format!("/api/replica/files/{name}?db=default");
    let peer = master.client()?.with_token(&replica_token("r"));
    let give = |client: &Client, path: &str, bytes: &[u8]| {
        let reply = client.send_bytes(Method::PUT, path, "application/octet-stream", bytes.to_vec())?;
        anyhow::Ok(reply.status)
    };
    ensure!(give(&peer, &at, b"whatever it is that is sent")? == 204, "what is here stays as it is");
    std::fs::remove_file(master.dir().join("storage/default").join(name))?;
    let mut wrong = bytes.clone();
    wrong[2_999_999] += 1;
    let longer = [&bytes[..], b"more"].concat();
    for (client, path, sent, expected) in [
        (&master.client()?, at.as_str(), &bytes[..100], 401),
        (&admin, &at, &bytes[..100], 403),
        (&peer, "/api/replica/files/b_0123456789.bin?db=default", &bytes[..100], 404),
        (&peer, "/api/replica/files/..%2Fdefault.db?db=default", &bytes[..100], 404),
        (&peer, &at, &bytes[..2_000_000], 400),
        (&peer, &at, &wrong, 400),
        (&peer, &at, &longer, 400),
    ] {
        let status = give(client, path, sent)?;
        ensure!(status == expected, "{path}, {} bytes: {status}, not {expected}", sent.len());
        ensure!(admin.get(&path_of(&record)?)?.status == 404, "a wrong file was taken");
    }
    ensure!(give(&peer, &at, &bytes)? == 204);
    wait_file(&master, &path_of(&record)?, &bytes)?;
    storage::wait_whole(&[master.dir()], "default", READY)?;

    let mut replica = cluster.embedded("replica", &master)?;
    replica.start()?;
    replica.wait_ready()?;
    let there = replica.client()?.with_token(&replica_token("r"));
    ensure!([404, 405].contains(&there.get(LOST)?.status), "a replica has lost none");
    ensure!(give(&there, &at, &bytes[..100])? == 405, "a replica takes none");
    Ok(())
}

fn path_of(record: &Value) -> Result<String> {
    path(record, &record["one"])
}
