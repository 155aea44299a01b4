//! Wherever a master dies, or a statement or file operation of it fails once, it is whole after the next start, writes
//! go on, and its replica is equal by `verify`. Schema changes are looked at more closely by `crate::collection_crash`.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, replica_token};
use e2e::cluster::READY;
use e2e::faults::{self, Fault, INJECTED};
use e2e::{Cluster, Node, content, eventually, process};
use rusqlite::Connection;
use serde_json::json;
use vski_replication::names::route;

/// How long a graceful stop may take.
const STOPPED: Duration = Duration::from_secs(30);

/// A master with a collection, and a replica of two processes.
fn pair(cluster: &Cluster) -> Result<(Node, Node)> {
    let mut master = cluster.master("master")?.env("RETENTION_BYTES", "4KiB");
    master.start()?;
    master.admin()?.create_collection("posts", &[("title", "text")])?;
    let mut replica = cluster.external("replica", &master)?.env("SYNC_MODE", "stream");
    replica.start()?;
    replica.wait_ready()?;
    Ok((master, replica))
}

/// Leads a master to each label of a group: it dies there, and then fails there once. `act` is given a number that
/// is another one each time.
fn everywhere(group: &str, act: impl Fn(&Node, &Client, usize) -> Result<()>) -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, replica) = pair(&cluster)?;
    let admin = master.admin()?;
    for (number, Fault { label, can_fail }) in faults::of_group(group)?.into_iter().enumerate() {
        launch(&mut master, &label)?;
        // Whether an answer came before it died is all the same.
        let _ = act(&master, &admin, 2 * number);
        dies(&mut master, &label)?;
        master.start()?;
        assert_goes_on(&master, &replica).with_context(|| format!("killed at {label}"))?;
        if can_fail {
            launch(&mut master, &format!("{label}=error"))?;
            eventually(&format!("it works again after a failure at {label}"), READY, || {
                act(&master, &admin, 2 * number + 1).map(|()| true)
            })?;
            assert_goes_on(&master, &replica).with_context(|| format!("failed at {label}"))?;
        }
    }
    Ok(())
}

fn launch(master: &mut Node, fault: &str) -> Result<()> {
    master.stop()?;
    master.server.launch(&[("VSKI_FAULT", fault)])?;
    master.server.wait_listening()
}

fn dies(master: &mut Node, label: &str) -> Result<()> {
    let status = master.server.wait_exit(READY).with_context(|| format!("it dies at {label}"))?;
    ensure!(status.signal() == Some(9), "{label}: it ended with {status}");
    Ok(())
}

fn assert_goes_on(master: &Node, replica: &Node) -> Result<()> {
    write(&master.admin()?, 1)?;
    replica.sync()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    replica.verify()
}

fn write(admin: &Client, records: u64) -> Result<()> {
    let text = "x".repeat(500);
    (0..records).try_for_each(|_| admin.create_record("posts", &json!({"title": text})).map(drop))
}

#[test]
fn a_crash_while_rows_are_written_leaves_all_of_a_batch_or_nothing() -> Result<()> {
    everywhere("rows", |_, admin, _| write(admin, 1))
}

#[test]
fn a_crash_while_a_schema_is_changed_leaves_replicas_equal() -> Result<()> {
    everywhere("schema", |_, admin, number| {
        admin.create_collection(&format!("more{number}"), &[("title", "text")]).map(drop)
    })
}

#[test]
fn a_crash_while_a_database_is_made_leaves_a_whole_one_or_none() -> Result<()> {
    everywhere("create", |_, admin, number| {
        let name = format!("shop{number}");
        let reply = admin.send(reqwest::Method::POST, "/api/databases", Some(&json!({"name": name})))?;
        // The first attempt may have made it before it failed.
        ensure!(reply.status == 200 || reply.body.contains("exists already"), "{reply:?}");
        admin.with_db(&name).get("/api/collections")?.ok().map(drop)
    })
}

#[test]
fn a_crash_in_a_manual_migration_leaves_all_of_it_or_nothing() -> Result<()> {
    everywhere("migration", |master, _, number| {
        let file = master.dir().join(".vski/migration.sql");
        std::fs::write(&file, format!("CREATE INDEX by_title_{number} ON posts (title)"))?;
        let mut command = master.server.subcommand(&["sql", "--db", "default"]);
        let done = process::run("sql", command.arg(&file), READY)?;
        ensure!(done.status.success() || done.stderr.iter().any(|line| line.contains("already exists")), "{done:?}");
        Ok(())
    })
}

#[test]
fn a_crash_while_an_edit_by_another_program_is_noted_is_noted_by_the_next_start() -> Result<()> {
    everywhere("epoch", |master, admin, number| {
        let conn = Connection::open(master.file("default"))?;
        conn.busy_timeout(READY)?;
        conn.execute_batch(&format!("CREATE INDEX IF NOT EXISTS edit_{number} ON posts (title)"))?;
        drop(conn);
        write(admin, 1)
    })
}

#[test]
fn a_crash_while_the_masters_log_is_pruned_leaves_a_whole_log() -> Result<()> {
    // Snapshots' leases keep four times as much as the log may hold.
    everywhere("upkeep", |_, admin, _| write(admin, 60))
}

#[test]
fn a_crash_while_a_snapshot_is_made_leaves_nothing_of_it() -> Result<()> {
    everywhere("snapshot", |master, admin, _| {
        let peer = admin.with_token(&replica_token("e2e"));
        peer.get(&format!("{}?db=default", route::SNAPSHOT))?.ok()?;
        let copies = std::fs::read_dir(master.dir().join(".vski/snapshots"))?.count();
        ensure!(copies == 1, "{copies} files of snapshots");
        Ok(())
    })
}

#[test]
fn a_crash_while_replicas_or_fingerprints_are_recorded_costs_nothing_else() -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, replica) = pair(&cluster)?;
    // The replica calls by itself.
    launch(&mut master, "node:replicas")?;
    dies(&mut master, "node:replicas")?;
    master.start()?;
    assert_goes_on(&master, &replica)?;
    launch(&mut master, "node:replicas=error")?;
    eventually("the master tells that it could not write", READY, || {
        Ok(master.server.lines().iter().any(|line| line.contains(INJECTED)))
    })?;
    assert_goes_on(&master, &replica)?;

    master.stop()?;
    master.server.launch(&[("VSKI_FAULT", "node:take-fingerprints=error")])?;
    let refused = master.server.wait_exit(READY)?;
    ensure!(refused.code() == Some(2), "a start that failed ended with {refused}");
    master.server.launch(&[("VSKI_FAULT", "node:take-fingerprints")])?;
    dies(&mut master, "node:take-fingerprints")?;

    for (fault, signal) in [("node:set-fingerprints", Some(9)), ("node:set-fingerprints=error", None)] {
        master.server.launch(&[("VSKI_FAULT", fault)])?;
        master.server.wait_listening()?;
        write(&master.admin()?, 1)?;
        let status = master.server.process()?.terminate(STOPPED)?;
        ensure!(status.signal() == signal && (signal.is_some() || status.success()), "{fault}: it ended with {status}");
    }
    master.start()?;
    assert_goes_on(&master, &replica)
}
