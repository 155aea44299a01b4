//! Reads that never end by themselves hold up other reads of records at most, and those are told so.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::records;
use e2e::{Cluster, eventually};
use reqwest::Method;
use serde_json::json;

/// More than run at once on one database.
const SLOW: usize = 12;

/// A SELECT without an end.
const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
    SELECT CAST(max(i) AS TEXT) AS id FROM n";

#[test]
fn while_endless_reads_run_replicas_and_logins_are_answered_and_other_reads_are_told_to_wait() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?.env("READ_TIMEOUT", "15s");
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text")])?;
    let view = json!({"name": "endless", "type": "view", "viewQuery": ENDLESS, "listRule": "", "viewRule": ""});
    admin.send(Method::POST, "/api/collections", Some(&view))?.ok()?;
    let mut replica = cluster.embedded("replica", &master)?.env("SYNC_MODE", "stream");
    replica.start()?;
    replica.wait_ready()?;
    let guest = master.client()?;
    let slow: Vec<_> = (0..SLOW)
        .map(|_| {
            let guest = guest.clone();
            thread::spawn(move || guest.get(&records("endless")))
        })
        .collect();
    eventually("no read of records finds its turn", Duration::from_secs(30), || {
        let reply = admin.get(&records("posts"))?;
        let told = reply.status == 503 && reply.header("retry-after").is_some();
        Ok(told && reply.body.contains("may run at once"))
    })?;
    ensure!(slow.iter().any(|read| !read.is_finished()), "some reads run still");
    admin.status()?;
    master.admin()?;
    let made = admin.create_record("posts", &json!({"title": "meanwhile"}))?;
    let (there, id) = (replica.client()?.with_token(&admin.token().context("a token")?), made["id"].as_str());
    let id = id.context("an id")?;
    eventually("the replica has what was written meanwhile", Duration::from_secs(30), || {
        Ok(there.record("posts", id)?.is_some())
    })?;
    for read in slow {
        let reply = read.join().expect("a thread that only asks")?;
        ensure!(reply.status == 503 && reply.header("retry-after").is_some(), "{reply:?}");
    }
    eventually("reads of records go on", Duration::from_secs(30), || Ok(admin.get(&records("posts"))?.status == 200))
}

#[test]
fn a_write_is_answered_without_expand_where_there_is_no_time_to_read_that() -> Result<()> {
    let cluster = Cluster::new()?;
    // Longer than the test: the reads end with their clients.
    let mut master = cluster.master("master")?.env("READ_TIMEOUT", "10m");
    master.start()?;
    let admin = master.admin()?;
    let posts = admin.create_collection("posts", &[("title", "text")])?;
    let relation = json!({"name": "post", "type": "relation", "collectionId": posts["id"], "maxSelect": 1});
    let replies = json!({"name": "replies", "type": "base", "fields": [relation]});
    admin.send(Method::POST, "/api/collections", Some(&replies))?.ok()?;
    let view = json!({"name": "endless", "type": "view", "viewQuery": ENDLESS, "listRule": "", "viewRule": ""});
    admin.send(Method::POST, "/api/collections", Some(&view))?.ok()?;
    let post = admin.create_record("posts", &json!({"title": "first"}))?;
    let address = master.server.url().trim_start_matches("http://").to_owned();
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut stream = TcpStream::connect(&address).context("connect")?;
        write!(stream, "GET {} HTTP/1.1\r\nHost: {address}\r\n\r\n", records("endless"))?;
        slow.push(stream);
    }
    eventually("no read of records finds its turn", Duration::from_secs(30), || {
        Ok(admin.get(&records("posts"))?.body.contains("may run at once"))
    })?;
    let path = format!("{}?expand=post", records("replies"));
    let reply = admin.send(Method::POST, &path, Some(&json!({"post": post["id"]})))?.ok()?.json()?;
    ensure!(reply["post"] == post["id"] && reply.get("expand").is_none(), "{reply}");
    let one = format!("{}/{}?expand=post", records("replies"), reply["id"].as_str().context("an id")?);
    let changed = admin.send(Method::PATCH, &one, Some(&json!({"post": post["id"]})))?.ok()?.json()?;
    ensure!(changed["id"] == reply["id"] && changed.get("expand").is_none(), "{changed}");
    drop(slow);
    eventually("the same read shows it", Duration::from_secs(30), || {
        let read = admin.get(&one)?;
        Ok(read.status == 200 && read.json()?["expand"]["post"]["title"] == "first")
    })?;
    let again = admin.send(Method::POST, &path, Some(&json!({"post": post["id"]})))?.ok()?.json()?;
    ensure!(again["expand"]["post"]["title"] == "first", "{again}");
    ensure!(admin.count("replies")? == 2, "each write was stored once");
    Ok(())
}

#[test]
fn a_view_that_fails_as_it_runs_is_named_and_nothing_else_fails() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text")])?;
    admin.create_record("posts", &json!({"title": "no JSON"}))?;
    let query = "SELECT id, json_extract(title, '$.a') AS a FROM posts";
    let view = json!({"name": "broken", "type": "view", "viewQuery": query, "listRule": "", "viewRule": ""});
    admin.send(Method::POST, "/api/collections", Some(&view))?.ok()?;
    for _ in 0..2 {
        let reply = master.client()?.get(&records("broken"))?;
        ensure!(reply.status == 422 && reply.body.contains("broken"), "{reply:?}");
    }
    ensure!(admin.count("posts")? == 1);
    let told = master.server.lines().iter().filter(|line| line.contains("the SELECT of a view failed")).count();
    ensure!(told == 1, "it is told {told} times");
    Ok(())
}

#[test]
fn a_view_that_fails_behind_another_collection_is_named_as_if_it_were_read_itself() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text")])?;
    let post = admin.create_record("posts", &json!({"title": "a post"}))?;
    let relation = json!({"name": "post", "type": "relation", "collectionId": "posts"});
    let notes = json!({"name": "notes", "fields": [relation, {"name": "body", "type": "text"}]});
    admin.send(Method::POST, "/api/collections", Some(&notes))?.ok()?;
    admin.create_record("notes", &json!({"post": post["id"], "body": "no JSON"}))?;
    let query = "SELECT id, post, json_extract(body, '$.a') AS a FROM notes";
    let view = json!({"name": "broken", "type": "view", "viewQuery": query, "listRule": "", "viewRule": ""});
    admin.send(Method::POST, "/api/collections", Some(&view))?.ok()?;
    let rule = json!({"name": "ruled", "listRule": "@collection.broken.a ?= 1", "fields": []});
    admin.send(Method::POST, "/api/collections", Some(&rule))?.ok()?;
    admin.create_record("ruled", &json!({}))?;
    for path in [
        records("broken"),
        format!("{}?filter=broken_via_post.a%3F%3D1", records("posts")),
        format!("{}?expand=broken_via_post", records("posts")),
    ] {
        let reply = admin.get(&path)?;
        ensure!(reply.status == 422 && reply.body.contains("view collection broken failed"), "{path}: {reply:?}");
    }
    let reply = master.client()?.get(&records("ruled"))?;
    ensure!(reply.status == 422 && reply.body.contains("view collection broken failed"), "{reply:?}");
    ensure!(admin.get(&records("posts"))?.status == 200);
    Ok(())
}
