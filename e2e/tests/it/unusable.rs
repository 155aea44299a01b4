//! One file that is no database does not take the others down.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

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

#[test]
fn a_database_that_the_masters_user_may_not_write_stops_the_start_and_is_named() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    master.stop()?;
    let mut serve = master.server.subcommand(&["serve"]);
    std::fs::set_permissions(master.file("default"), Permissions::from_mode(0o444))?;
    if rustix::process::geteuid().is_root() {
        // Root may write everything: the node becomes another user's, but for that file.
        let nobody = 65_534;
        std::fs::set_permissions(cluster.path(), Permissions::from_mode(0o755))?;
        let own = |path: &Path| std::os::unix::fs::chown(path, Some(nobody), Some(nobody));
        own(master.dir())?;
        own(&master.dir().join(".vski"))?;
        for file in std::fs::read_dir(master.dir().join(".vski"))? {
            own(&file?.path())?;
        }
        serve.uid(nobody).gid(nobody);
    }
    let ended = process::run("serve", &mut serve, READY)?;
    ensure!(ended.status.code() == Some(2), "{ended:?}");
    let line = ended.stderr.last().context("a line")?;
    ensure!(line.contains("may not write") && line.contains("default.db") && line.contains("chown -R"), "{line}");
    Ok(())
}

#[test]
fn a_masters_database_whose_file_is_gone_or_empty_is_missed_and_not_made_anew() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    for db in ["gone", "emptied"] {
        master.admin()?.create_database(db)?;
    }
    master.stop()?;
    std::fs::remove_file(master.file("gone"))?;
    for db in ["emptied", "stranger"] {
        std::fs::write(master.file(db), "")?;
    }
    master.start().context("the other databases are served")?;
    let ready = master.client()?.get("/readyz")?.ok()?;
    let status = master.client()?.status()?.to_string();
    for (db, what) in [("gone", "is gone"), ("emptied", "is an empty file"), ("stranger", "is an empty file")] {
        let told = master.alarms(&[]);
        let told: Vec<_> = told.iter().filter(|line| line.contains(&format!("{db}.db {what}"))).collect();
        ensure!(told.len() == 1 && told[0].contains("ERROR") && told[0].contains("restore it"), "{db}: {told:?}");
        let reply = master.client()?.with_db(db).get("/api/collections/posts/records")?;
        ensure!(reply.status == 503 && reply.body.contains(&format!("forget {db}")), "{reply:?}");
        let again = master.admin()?.send(Method::POST, "/api/databases", Some(&json!({"name": db})))?;
        ensure!(again.status == 400 && again.body.contains("exists already"), "{again:?}");
        ensure!(ready.body.contains(&format!("{db}.db {what}")), "{}", ready.body);
        ensure!(status.contains("default") && !status.contains(db), "{status}");
    }
    ensure!(!master.file("gone").exists() && std::fs::metadata(master.file("emptied"))?.len() == 0, "it was made anew");

    // Given up, as the message says.
    let forget = |db: &str| process::run("forget", &mut master.server.subcommand(&["forget", db]), READY);
    let running = forget("gone")?;
    ensure!(running.status.code() == Some(2) && running.stderr[0].contains("running master"), "{running:?}");
    master.stop()?;
    let forget = |db: &str| process::run("forget", &mut master.server.subcommand(&["forget", db]), READY);
    let there = forget("emptied")?;
    ensure!(there.status.code() == Some(2) && there.stderr[0].contains("still there"), "{there:?}");
    for db in ["emptied", "stranger"] {
        std::fs::remove_file(master.file(db))?;
    }
    for (db, said) in [("gone", "given up"), ("emptied", "given up"), ("stranger", "nothing to do")] {
        let done = forget(db)?;
        ensure!(done.status.success() && done.stdout[0].contains(said), "{db}: {done:?}");
    }
    master.start()?;
    let reply = master.client()?.with_db("gone").get("/api/collections/posts/records")?;
    ensure!(reply.status == 404, "{reply:?}");
    master.admin()?.create_database("gone").map(drop)
}

#[test]
fn a_master_that_lost_its_default_database_does_not_start_with_a_new_one() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    master.stop()?;
    let kept = cluster.path().join("kept.db");
    std::fs::rename(master.file("default"), &kept)?;
    for left in [None, Some(""), None] {
        match left {
            Some(content) => std::fs::write(master.file("default"), content)?,
            None => _ = std::fs::remove_file(master.file("default")),
        }
        let ended = process::run("serve", &mut master.server.subcommand(&["serve"]), READY)?;
        ensure!(ended.status.code() == Some(2), "{left:?}: {ended:?}");
        let line = ended.stderr.last().context("a line")?;
        ensure!(
            line.contains("default.db") && line.contains("restore it") && line.contains("forget default"),
            "{line}"
        );
        ensure!(master.file("default").exists() == left.is_some(), "it was made anew");
    }
    std::fs::copy(&kept, master.file("default"))?;
    master.start().context("one repair")?;
    master.admin()?;
    master.stop()?;
    std::fs::remove_file(master.file("default"))?;
    let done = process::run("forget", &mut master.server.subcommand(&["forget", "default"]), READY)?;
    ensure!(done.status.success(), "{done:?}");
    master.start().context("the other")?;
    master.admin().map(drop)
}
