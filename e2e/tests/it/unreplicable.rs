//! Tables that cannot be replicated, made by another program in the file of a running master: named everywhere, served
//! meanwhile, and over once they are gone.

use anyhow::{Context, Result, ensure};
use e2e::client::replica_token;
use e2e::cluster::READY;
use e2e::shell::sqlite3;
use e2e::{Cluster, Node, content, eventually};
use reqwest::Method;
use serde_json::json;
use vski_replication::names::route;

/// What the master logs of such a table.
const TOLD: &str = "the database has tables that cannot be replicated";

/// Each with its name, how it is made, and the reason.
const TABLES: [(&str, &str, &str); 3] = [
    ("nokey", "CREATE TABLE nokey (x); INSERT INTO nokey VALUES (1)", "has no primary key"),
    ("counted", "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT)", "AUTOINCREMENT"),
    ("searched", "CREATE VIRTUAL TABLE searched USING fts5(x)", "is virtual"),
];

fn told(node: &Node) -> Vec<String> {
    node.server.lines().into_iter().filter(|line| line.contains(TOLD)).collect()
}

#[test]
fn a_table_that_cannot_be_replicated_is_named_until_it_is_gone_and_then_replicas_go_on() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("n", "number")])?;
    let mut replica = cluster.external("replica", &master)?;
    replica.start()?;
    replica.wait_ready()?;
    let peer = master.client()?.with_token(&replica_token("e2e"));
    for (number, (table, make, reason)) in TABLES.iter().enumerate() {
        content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
        let before = replica.client()?.count("posts")?;
        sqlite3(&master.file("default"), make)?;
        admin.create_record("posts", &json!({"n": number}))?;

        let lines = told(&master);
        ensure!(lines.len() == number + 1, "{lines:?}");
        let line = lines.last().context("a line")?;
        ensure!(line.contains("ERROR") && line.contains(table) && line.contains(reason), "{line}");
        ensure!(line.contains("vski-server sql"), "the repair is told: {line}");
        let ready = master.client()?.get("/readyz")?.ok()?;
        ensure!(ready.body.contains(table) && ready.body.contains(reason), "{}", ready.body);
        // A copy from before is still shared with who needs no later one.
        let head = admin.status_of("default")?["version"].to_string();
        let refused = peer.get(&format!("{}?db=default&version={head}", route::SNAPSHOT))?;
        ensure!(refused.status == 422 && refused.body.contains(table) && refused.body.contains(reason), "{refused:?}");
        let ddl = json!({"name": "more", "fields": []});
        let ddl = admin.send(Method::POST, "/api/collections", Some(&ddl))?;
        ensure!(ddl.status == 400 && ddl.body.contains(table), "{ddl:?}");

        let state = replica.wait_state("default", "schema_unreachable")?;
        let last = state.last_error.context("an error")?;
        ensure!(last.name == "snapshot_unsafe" && last.text.contains(table) && last.text.contains(reason), "{last:?}");
        ensure!(replica.client()?.count("posts")? == before, "it serves what it has");

        admin.create_record("posts", &json!({"n": number}))?;
        sqlite3(&master.file("default"), &format!("DROP TABLE {table}"))?;
        admin.create_record("posts", &json!({"n": number}))?;
        eventually("the replica goes on", READY, || Ok(replica.client()?.count("posts")? == before + 3))?;
        replica.wait_state("default", "follow")?;
        replica.verify()?;
        let ready = master.client()?.get("/readyz")?.ok()?;
        ensure!(!ready.body.contains("error"), "{}", ready.body);
    }
    ensure!(told(&master).len() == TABLES.len(), "each was told once: {:?}", told(&master));
    Ok(())
}
