//! A schema change is one transaction: table, catalogue row and log entry. Wherever the master dies in it, either all
//! three are there afterwards or none.

use std::os::unix::process::ExitStatusExt;

use anyhow::{Context, Result, ensure};
use e2e::cluster::READY;
use e2e::{Cluster, Node, content};
use serde_json::json;
use vski_replication::connection;

/// The places of a schema change at which a debug build can be made to die, in their order.
const LABELS: [&str; 6] = [
    "schema:before-ddl",
    "schema:after-ddl",
    "schema:after-rows",
    "schema:after-append",
    "schema:before-commit",
    "schema:after-commit",
];

/// From this place on the change has happened.
const COMMITTED: &str = "schema:after-commit";

/// What a collection consists of.
#[derive(Debug, PartialEq)]
struct Parts {
    in_catalogue: bool,
    tables: usize,
    schema_entries: u64,
}

#[test]
fn a_crash_while_a_collection_is_made_leaves_all_of_it_or_nothing() -> Result<()> {
    let cluster = Cluster::new()?;
    for label in LABELS {
        crash_at(&cluster, label).with_context(|| format!("killed at {label}"))?;
    }
    Ok(())
}

fn crash_at(cluster: &Cluster, label: &str) -> Result<()> {
    let place = label.replace(':', "-");
    // The first start makes the default database, which is itself a schema change.
    let mut master = cluster.master(&format!("master-{place}"))?;
    master.start()?;
    let mut replica = cluster.embedded(&format!("replica-{place}"), &master)?;
    replica.start()?;
    replica.wait_ready()?;
    let before = parts(&master)?;
    let admin = master.admin()?;
    master.stop()?;
    master.server.launch(&[("VSKI_FAULT", label)])?;
    master.server.wait_listening()?;
    ensure!(admin.create_collection("posts", &[("title", "text")]).is_err(), "an answer although it died");
    let status = master.server.wait_exit(READY)?;
    ensure!(status.signal() == Some(9), "ended by itself: {status}");

    master.start()?;
    let whole = Parts { in_catalogue: true, tables: before.tables + 1, schema_entries: before.schema_entries + 1 };
    let expected = if label == COMMITTED { &whole } else { &before };
    ensure!(parts(&master)? == *expected, "{:?} instead of {expected:?}", parts(&master)?);
    if label != COMMITTED {
        admin.create_collection("posts", &[("title", "text")]).context("second attempt")?;
        ensure!(parts(&master)? == whole, "{:?} instead of {whole:?}", parts(&master)?);
    }
    admin.create_record("posts", &json!({"title": "after the crash"}))?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    ensure!(replica.client()?.count("posts")? == 1, "the replica serves the record");
    Ok(())
}

fn parts(master: &Node) -> Result<Parts> {
    let reply = master.admin()?.get("/api/collections/posts")?;
    ensure!(reply.status == 200 || reply.status == 404, "answered {}: {}", reply.status, reply.body);
    let conn = connection::reader(&master.file("default"))?;
    let status = master.client()?.status_of("default")?;
    Ok(Parts {
        in_catalogue: reply.status == 200,
        tables: content::table_names(&conn)?.len(),
        schema_entries: status["schemaVersion"].as_u64().context("no schemaVersion")?,
    })
}
