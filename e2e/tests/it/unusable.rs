//! One file that is no database does not take the others down.

use anyhow::{Context, Result, ensure};
use e2e::cluster::READY;
use e2e::{Cluster, content, eventually, process};
use reqwest::Method;
use serde_json::json;

#[test]
fn a_garbage_file_on_the_master_is_named_and_the_other_databases_go_on() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    for db in ["shop", "blog"] {
        admin.create_database(db)?;
        let admin = admin.with_db(db);
        admin.create_collection("posts", &[("title", "text")])?;
        admin.create_record("posts", &json!({"title": db}))?;
    }
    let mut replica = cluster.external("replica", &master)?;
    replica.start()?;
    replica.wait_ready()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    master.stop()?;
    std::fs::write(master.file("shop"), vec![0xA5; 20_000])?;
    master.start().context("one bad file does not stop it")?;

    let told: Vec<String> = master.alarms(&[]).into_iter().filter(|line| line.contains("cannot be used")).collect();
    ensure!(told.len() == 1 && told[0].contains("ERROR") && told[0].contains("shop.db"), "{told:?}");
    ensure!(told[0].contains("restore it"), "the repair is told: {told:?}");
    let shop = master.client()?.with_db("shop");
    for reply in [
        shop.get("/api/collections/posts/records")?,
        master.admin()?.with_db("shop").send(Method::POST, "/api/collections/posts/records", Some(&json!({})))?,
    ] {
        ensure!(reply.status == 503 && reply.header("retry-after").is_some(), "{reply:?}");
        ensure!(reply.body.contains("database shop cannot be used") && reply.body.contains("restore it"), "{reply:?}");
        ensure!(!reply.body.contains(&*master.dir().to_string_lossy()), "it tells clients where the directory lies");
    }
    let again = master.admin()?.send(Method::POST, "/api/databases", Some(&json!({"name": "shop"})))?;
    ensure!(again.status == 400 && again.body.contains("exists already"), "{again:?}");
    let ready = master.client()?.get("/readyz")?.ok()?;
    ensure!(ready.body.contains("cannot open") && ready.body.contains("shop"), "{}", ready.body);
    ensure!(std::fs::read(master.file("shop"))? == vec![0xA5; 20_000], "the file was touched");

    master.admin()?.with_db("blog").create_record("posts", &json!({"title": "goes on"}))?;
    let copies = replica.client()?;
    eventually("the replica follows the others", READY, || Ok(copies.with_db("blog").count("posts")? == 2))?;
    let state = replica.wait_state("shop", "missing_on_master")?;
    ensure!(
        state.last_error.is_some_and(|last| last.remedy.contains("its log says")),
        "the remedy points at the master"
    );
    ensure!(copies.with_db("shop").count("posts")? == 1, "the replica keeps serving it");

    // Repaired from the replica's copy, as the message says.
    replica.agent.as_mut().context("an agent")?.stop()?;
    let copy = rusqlite::Connection::open(replica.file("shop"))?;
    master.stop()?;
    std::fs::remove_file(master.file("shop"))?;
    copy.execute("VACUUM INTO ?1", [master.file("shop").to_string_lossy()])?;
    drop(copy);
    master.start()?;
    replica.agent.as_mut().context("an agent")?.start()?;
    master.admin()?.with_db("shop").create_record("posts", &json!({"title": "back"}))?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    replica.verify()
}

#[test]
fn a_garbage_default_database_stops_the_start_and_is_named() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = cluster.master("master")?;
    std::fs::create_dir_all(master.dir())?;
    std::fs::write(master.file("default"), vec![0xA5; 20_000])?;
    let ended = process::run("serve", &mut master.server.subcommand(&["serve"]), READY)?;
    ensure!(ended.status.code() == Some(2), "{ended:?}");
    let line = ended.stderr.last().context("a line")?;
    ensure!(line.contains("default.db") && line.contains("restore it"), "{line}");
    Ok(())
}
