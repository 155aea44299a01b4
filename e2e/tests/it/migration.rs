use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::READY;
use e2e::process::{self, Finished};
use e2e::shell::sqlite3;
use e2e::{Cluster, Node, content, eventually, offline};
use reqwest::Method;
use serde_json::json;
use vski_replication::entry::{EpochReason, Kind};
use vski_replication::{changelog, connection};

/// How long a command may take.
const ENDED: Duration = Duration::from_secs(30);

/// What the master says of a file that it did not leave like this.
const FOREIGN: &str = "changed by another program";

fn master(cluster: &Cluster) -> Result<Node> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text"), ("n", "number")])?;
    (0..5).try_for_each(|n| admin.create_record("posts", &json!({"title": "post", "n": n})).map(drop))?;
    Ok(master)
}

fn script(cluster: &Cluster, sql: &str) -> Result<PathBuf> {
    let file = cluster.path().join("migration.sql");
    std::fs::write(&file, sql)?;
    Ok(file)
}

fn sql(master: &Node, file: &Path) -> Result<Finished> {
    process::run("sql", master.server.subcommand(&["sql", "--db", "default"]).arg(file), ENDED)
}

#[test]
fn a_column_is_renamed_by_hand_through_the_running_master_and_replicas_follow() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = master(&cluster)?;
    let mut replica = cluster.embedded("replica", &master)?;
    replica.start()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    // The catalogue is the operator's business, in the same transaction.
    let rename = "ALTER TABLE posts RENAME COLUMN title TO name;
        UPDATE _collections SET fields = replace(fields, '\"title\"', '\"name\"') WHERE name = 'posts';";
    let ended = sql(&master, &script(&cluster, rename)?)?;
    ensure!(ended.status.success() && ended.stdout[0].contains("one schema entry"), "{ended:?}");
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    let posts = replica.client()?.all_records("posts")?;
    ensure!(posts.len() == 5 && posts.iter().all(|post| post["name"] == "post"), "{posts:?}");

    let ended = sql(&master, &script(&cluster, "PRAGMA user_version = 7")?)?;
    ensure!(ended.status.code() == Some(1) && ended.stderr[0].contains("nothing was run"), "{ended:?}");
    master.stop()?;
    let ended = sql(&master, &script(&cluster, "UPDATE posts SET n = n + 100")?)?;
    ensure!(ended.status.success() && ended.stdout[0].contains("one changes entry"), "{ended:?}");
    master.start()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    ensure!(master.alarms(&[]).is_empty(), "an offline migration is no foreign edit: {:?}", master.alarms(&[]));
    let guest = master.client()?.send(Method::POST, "/api/sql", Some(&json!("DELETE FROM posts")))?;
    ensure!(guest.status == 401, "{guest:?}");
    Ok(())
}

#[test]
fn an_edit_with_sqlite3_while_the_master_is_stopped_is_found_and_looking_is_not_one() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = master(&cluster)?;
    let file = master.file("default");
    master.stop()?;
    sqlite3(&file, "SELECT count(*) FROM posts")?;
    let before = offline::position(&file)?;
    master.start()?;
    ensure!(offline::position(&file)? == before && master.alarms(&[]).is_empty(), "looking is no edit");
    let mut replica = cluster.embedded("replica", &master)?;
    replica.start()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;

    master.stop()?;
    sqlite3(&file, "UPDATE posts SET n = n * 2")?;
    master.start()?;
    let entry = changelog::entry(&connection::reader(&file)?, before.version + 1)?.context("an entry for the edit")?;
    ensure!(entry.kind == Kind::Epoch && entry.epoch_change()?.reason == EpochReason::ForeignEdit, "{entry:?}");
    ensure!(master.alarms(&[FOREIGN]).is_empty() && !master.alarms(&[]).is_empty(), "{:?}", master.alarms(&[]));
    eventually("the replica has met the entry", READY, || {
        Ok(replica.server.lines().iter().any(|line| line.contains("does not tell")))
    })
}

#[test]
fn after_an_unclean_stop_nothing_is_said_of_a_file_that_merely_looks_otherwise() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = master(&cluster)?;
    master.kill9()?;
    master.start()?;
    ensure!(master.alarms(&[]).is_empty(), "{:?}", master.alarms(&[]));
    master.stop()?;
    master.start()?;
    ensure!(master.alarms(&[]).is_empty(), "{:?}", master.alarms(&[]));
    Ok(())
}

#[test]
fn a_catalogue_that_contradicts_the_tables_is_told_and_leaves_the_other_collections_alone() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let admin = master.admin()?;
    admin.create_collection("notes", &[("title", "text")])?;
    let ended = sql(&master, &script(&cluster, "\u{feff}ALTER TABLE posts RENAME COLUMN title TO name")?)?;
    ensure!(ended.status.success(), "a byte order mark is skipped: {ended:?}");
    let records = e2e::client::records("posts");
    let write = json!({"title": "x"});
    for reply in [admin.get(&records)?, admin.send(Method::POST, &records, Some(&write))?] {
        let told = ["collection posts", "the table lacks, title", "_collections", "vski-server sql"];
        ensure!(reply.status == 500 && told.iter().all(|part| reply.body.contains(part)), "{reply:?}");
    }
    let mend = "UPDATE _collections SET fields = replace(fields, '\"title\"', '\"name\"') WHERE name = 'posts'";
    ensure!(sql(&master, &script(&cluster, mend)?)?.status.success(), "the repair that is told");
    ensure!(admin.count("posts")? == 5);

    let break_it = "UPDATE _collections SET fields = 'garbage' WHERE name = 'posts'";
    let refused = sql(&master, &script(&cluster, break_it)?)?;
    let told =
        refused.stderr.iter().any(|line| line.contains("nothing was changed") && line.contains("collection posts"));
    ensure!(!refused.status.success() && told, "{refused:?}");
    sqlite3(&master.file("default"), break_it)?;
    let listed = admin.get("/api/collections")?.ok()?;
    ensure!(listed.body.contains("notes") && !listed.body.contains("posts"), "{}", listed.body);
    ensure!(master.alarms(&[]).iter().any(|line| line.contains("ERROR") && line.contains("collection posts")));
    let reply = admin.get(&records)?;
    ensure!(reply.status == 500 && reply.body.contains("row of _collections cannot be read"), "{reply:?}");
    admin.create_record("notes", &json!({"title": "goes on"}))?;
    Ok(())
}

#[test]
fn statements_that_change_nothing_leave_no_entry() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let run = |text: &str| -> Result<String> {
        let ended = sql(&master, &script(&cluster, text)?)?;
        ensure!(ended.status.success(), "{ended:?}");
        Ok(ended.stdout.join(" "))
    };
    let nothing = "CREATE TABLE IF NOT EXISTS posts (id); DROP TABLE IF EXISTS nope";
    for text in [nothing, &format!("{nothing}; DELETE FROM posts WHERE n = 100; {nothing}")] {
        let told = run(text)?;
        ensure!(told.contains("nothing changed"), "{text}: {told}");
    }
    // The same schema as before, but not the same rows.
    run("CREATE TABLE again (id TEXT PRIMARY KEY NOT NULL); INSERT INTO again VALUES ('a')")?;
    let told = run("DROP TABLE again; CREATE TABLE again (id TEXT PRIMARY KEY NOT NULL)")?;
    ensure!(told.contains("one schema entry"), "{told}");
    Ok(())
}
