//! Wherever an agent dies or a file operation or statement of it fails, its replica serves a whole state, an older or
//! the newer one, and the agent, the next or the same, makes it equal to the master by `verify`.
//!
//! The places are those of the tables "Killed at …": a label without a scenario fails the first test.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use anyhow::{Context, Result, ensure};
use e2e::cluster::READY;
use e2e::faults::{self, Fault, INJECTED};
use e2e::program::Program;
use e2e::{Cluster, Node, content, offline};
use rusqlite::Connection;
use serde_json::json;

/// Groups of labels with a scenario here, in `crate::converge`, `crate::files`, `crate::master_crash` and `crate::promote`.
const GROUPS: [&str; 19] = [
    "apply",
    "bootstrap",
    "converge",
    "create",
    "epoch",
    "fetch",
    "file",
    "id",
    "lock",
    "migrate",
    "migration",
    "node",
    "promote",
    "prune",
    "rows",
    "schema",
    "set-aside",
    "snapshot",
    "upkeep",
];

/// Records that a replica has before the crash, and those that arrive around it.
const OLD: u64 = 5;
const NEW: u64 = 5;

#[test]
fn the_tables_list_every_fault_point_and_each_has_a_scenario() -> Result<()> {
    let (documented, code) = (faults::documented()?, faults::in_code()?);
    let documented: BTreeSet<&str> = documented.iter().map(String::as_str).collect();
    let code: BTreeSet<&str> = code.keys().map(String::as_str).collect();
    ensure!(documented == code, "tables and code differ in {:?}", documented.symmetric_difference(&code));
    let groups: BTreeSet<&str> = code.iter().filter_map(|label| label.split(':').next()).collect();
    ensure!(groups == BTreeSet::from(GROUPS), "groups are {groups:?}");
    Ok(())
}

#[test]
fn a_crash_in_bootstrap_leaves_no_half_database() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    for fault in faults::of_group("bootstrap")? {
        let label = fault.label.as_str();
        let mut replica = cluster.external(&label.replace(':', "-"), &master)?;
        replica.server.start()?;
        die_at(agent(&mut replica)?, label)?;
        let reply = replica.client()?.get("/api/collections/posts/records")?;
        ensure!([200, 503].contains(&reply.status), "answered {}: {}", reply.status, reply.body);
        if reply.status == 200 {
            ensure!(replica.client()?.count("posts")? == OLD, "a half database is served");
        }
        agent(&mut replica)?.start()?;
        assert_level(&master, &replica).with_context(|| format!("killed at {label}"))?;
        replica.stop()?;
        if fault.can_fail {
            let mut replica = cluster.external(&format!("{}-error", label.replace(':', "-")), &master)?;
            fail_at(&mut replica, label)?;
            content::wait_all_equal(&[master.dir(), replica.dir()], READY)
                .with_context(|| format!("failed at {label}"))?;
            assert_met(&replica, label)?;
            replica.agent.as_mut().context("an agent")?.stop()?;
        }
    }
    Ok(())
}

#[test]
fn a_crash_while_entries_are_applied_leaves_rows_and_log_in_step() -> Result<()> {
    everywhere(
        "apply",
        |master, _| write(master, NEW),
        |replica| {
            // One record is one entry, and one is the collection's: whatever was applied, rows and log tell the same.
            let (conn, file) =
                (vski_replication::connection::reader(&replica.file("default"))?, replica.file("default"));
            let rows: i64 = conn.query_row("SELECT count(*) FROM posts", [], |row| row.get(0))?;
            let first: i64 = conn.query_row("SELECT min(version) FROM _vski_changelog", [], |row| row.get(0))?;
            let version = i64::try_from(offline::position(&file)?.version)?;
            ensure!(first == 1 && version - rows == STEPS_BEFORE_ROWS, "{rows} rows at version {version}");
            Ok(())
        },
    )
}

/// Entries of a master of these tests that make no record: the database's, the admin's, the collection's.
const STEPS_BEFORE_ROWS: i64 = 3;

#[test]
fn a_crash_while_the_schema_is_migrated_leaves_the_old_schema_or_the_new_one() -> Result<()> {
    let another_schema = |master: &Node, replica: &Node| {
        let conn = Connection::open(replica.file("default"))?;
        conn.busy_timeout(READY)?;
        conn.execute_batch("CREATE INDEX IF NOT EXISTS mine ON posts (title)")?;
        write(master, 1)
    };
    everywhere("migrate", another_schema, |_| Ok(()))
}

#[test]
fn a_crash_while_the_log_is_pruned_leaves_a_whole_log() -> Result<()> {
    everywhere("prune", |master, _| write(master, 1), |_| Ok(()))
}

#[test]
fn a_crash_while_a_damaged_file_is_set_aside_ends_with_a_whole_one() -> Result<()> {
    let damage = |_: &Node, replica: &Node| {
        let file = replica.file("default");
        // Nothing of it may survive in the write-ahead log.
        Connection::open(&file)?.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        Ok(std::fs::write(file, vec![0xA5; 20_000])?)
    };
    // Some of the time there is no file at all: the server says 503.
    scenario("set-aside", &damage, &|_| Ok(()), false)
}

#[test]
fn a_crash_while_a_directory_is_taken_over_is_finished_by_the_next_start() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let mut all = faults::of_group("id")?;
    all.extend(faults::of_group("lock")?);
    all.extend(faults::of_group("node")?.into_iter().filter(|fault| fault.label == "node:role"));
    for Fault { label, can_fail } in all {
        let mut replica = cluster.external(&label.replace(':', "-"), &master)?;
        let agent = agent(&mut replica)?;
        // Its id is made, not given.
        agent.unset("REPLICA_ID");
        if can_fail {
            agent.launch(&[("VSKI_FAULT", &format!("{label}=error"))])?;
            let status = agent.wait_exit(READY)?;
            ensure!(status.code() == Some(2), "{label}: it ended with {status}");
            ensure!(agent.lines().iter().any(|line| line.contains(INJECTED)), "{label}: it does not say why");
        }
        die_at(agent, &label)?;
        agent.start().with_context(|| format!("after {label}"))?;
        content::wait_all_equal(&[master.dir(), replica.dir()], READY).with_context(|| format!("after {label}"))?;
        replica.verify()?;
        replica.agent.as_mut().context("an agent")?.stop()?;
    }
    Ok(())
}

#[test]
fn a_node_db_that_cannot_be_written_costs_a_warning() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let mut replica = cluster.external("replica", &master)?;
    replica.server.start()?;
    die_at(agent(&mut replica)?, "node:database")?;
    fail_at(&mut replica, "node:database")?;
    assert_level(&master, &replica)?;
    ensure!(replica.alarms(&[]).iter().any(|line| line.contains("cannot write node.db") && line.contains(INJECTED)));
    Ok(())
}

/// Kills the agent of a replica that is being read, and has its operations fail, at every label of a group; `provoke`
/// leads it there. Wherever it dies, `whole` must hold.
fn everywhere(
    group: &str,
    provoke: impl Fn(&Node, &Node) -> Result<()>,
    whole: impl Fn(&Node) -> Result<()>,
) -> Result<()> {
    scenario(group, &provoke, &whole, true)
}

fn scenario(
    group: &str,
    provoke: &dyn Fn(&Node, &Node) -> Result<()>,
    whole: &dyn Fn(&Node) -> Result<()>,
    serves: bool,
) -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let mut replica = cluster.external("replica", &master)?;
    replica.start()?;
    assert_level(&master, &replica)?;
    for Fault { label, can_fail } in faults::of_group(group)? {
        agent(&mut replica)?.stop()?;
        provoke(&master, &replica)?;
        die_at(agent(&mut replica)?, &label)?;
        if serves {
            content::read(&replica.file("default")).with_context(|| format!("killed at {label}"))?;
            ensure!(replica.client()?.count("posts")? >= OLD, "{label}: it does not serve what it had");
        }
        whole(&replica).with_context(|| format!("killed at {label}"))?;
        agent(&mut replica)?.start()?;
        assert_level(&master, &replica).with_context(|| format!("killed at {label}"))?;
        if can_fail {
            agent(&mut replica)?.stop()?;
            provoke(&master, &replica)?;
            fail_at(&mut replica, &label)?;
            assert_level(&master, &replica).with_context(|| format!("failed at {label}"))?;
            assert_met(&replica, &label)?;
        }
    }
    Ok(())
}

fn master(cluster: &Cluster) -> Result<Node> {
    let mut master = cluster.master("master")?;
    master.start()?;
    master.admin()?.create_collection("posts", &[("title", "text")])?;
    write(&master, OLD)?;
    Ok(master)
}

fn write(master: &Node, records: u64) -> Result<()> {
    let admin = master.admin()?;
    (0..records).try_for_each(|n| admin.create_record("posts", &json!({"title": format!("post {n}")})).map(drop))
}

fn agent(replica: &mut Node) -> Result<&mut Program> {
    replica.agent.as_mut().context("the replica has an agent of its own")
}

/// Starts an agent that dies at a place.
pub(crate) fn die_at(agent: &mut Program, label: &str) -> Result<()> {
    agent.launch(&[("VSKI_FAULT", label)])?;
    let status = agent.wait_exit(READY).with_context(|| format!("it dies at {label}"))?;
    ensure!(status.signal() == Some(9), "{label}: ended by itself: {status}");
    Ok(())
}

/// Starts an agent of which an operation fails once.
pub(crate) fn fail_at(replica: &mut Node, label: &str) -> Result<()> {
    let agent = agent(replica)?;
    agent.launch(&[("VSKI_FAULT", &format!("{label}=error"))])?;
    agent.wait_listening()
}

/// Equal, by our own comparison and by the agent's.
fn assert_level(master: &Node, replica: &Node) -> Result<()> {
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    replica.wait_ready()?;
    replica.verify()
}

/// The agent told the fault, by name and with a remedy.
pub(crate) fn assert_met(replica: &Node, label: &str) -> Result<()> {
    let told = format!("{INJECTED} {label}");
    let lines = replica.agent.as_ref().context("an agent")?.lines();
    let line = lines.iter().find(|line| line.contains(&told)).with_context(|| format!("{label} was not met"))?;
    if !line.contains("\"WARN\"") {
        let field = |name| e2e::output::log_field(line, name).with_context(|| format!("{name} in {line}"));
        ensure!(!field("error_name")?.is_empty() && !field("remedy")?.is_empty(), "{line}");
    }
    Ok(())
}
