//! `doctor` tells what is wrong with a node, by its text and its exit code, and leaves the node as it was.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::program::free_port;
use e2e::shell::sqlite3;
use e2e::{Cluster, Node, process, programs};
use rusqlite::Connection;
use serde_json::{Value, json};

const ANSWERED: Duration = Duration::from_secs(30);

/// Runs a doctor: its exit code, and its findings but for those that are as they should be.
fn doctor(mut command: Command) -> Result<(i32, Vec<Value>)> {
    let ended = process::run("doctor", command.arg("--json"), ANSWERED)?;
    let text = ended.stdout.join("\n");
    let found: Vec<Value> = serde_json::from_str(&text).with_context(|| format!("{ended:?}"))?;
    ensure!(found.iter().all(|finding| finding["what"].is_string() && !text.contains("e2e-secret")), "{text}");
    let notable = found.into_iter().filter(|finding| finding["level"] != "ok").collect();
    Ok((ended.status.code().context("an exit code")?, notable))
}

/// Fails unless there is exactly one notable finding, with this level and these words, and a repair.
fn assert_only(found: &[Value], level: &str, words: &str) -> Result<()> {
    let [finding] = found else { anyhow::bail!("not one finding: {found:?}") };
    let what = finding["what"].as_str().unwrap_or_default();
    ensure!(finding["level"] == level && what.contains(words) && finding["repair"].is_string(), "{finding}");
    Ok(())
}

/// Every file of a directory, with its content.
fn files(dir: &Path) -> Result<Vec<(std::path::PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push((path.clone(), std::fs::read(&path)?));
        }
    }
    found.sort();
    Ok(found)
}

fn started(cluster: &Cluster) -> Result<Node> {
    let mut master = cluster.master("master")?;
    master.start()?;
    master.admin()?.create_collection("posts", &[("title", "text")])?;
    Ok(master)
}

#[test]
fn a_healthy_node_is_found_healthy_running_and_stopped_and_is_not_changed() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = started(&cluster)?;
    let mut replica = cluster.external("replica", &master)?;
    replica.start()?;
    replica.wait_ready()?;
    for node in [&master, &replica] {
        let (code, found) = doctor(node.server.subcommand(&["doctor", "--deep"]))?;
        ensure!(code == 0 && found.is_empty(), "{}: {code} {found:?}", node.name());
    }
    let agent = replica.agent.as_ref().context("an agent of its own")?;
    let (code, found) = doctor(agent.subcommand(&["doctor"]))?;
    ensure!(code == 0 && found.is_empty(), "the agent: {code} {found:?}");

    master.stop()?;
    let before = files(master.dir())?;
    let (code, found) = doctor(master.server.subcommand(&["doctor", "--deep"]))?;
    ensure!(code == 0 && found.is_empty(), "stopped: {code} {found:?}");
    ensure!(files(master.dir())? == before, "something was changed");

    // Killed, it leaves a write-ahead log, whose index SQLite has to make anew to read it.
    master.start()?;
    master.admin()?.create_record("posts", &json!({"title": "in the log"}))?;
    master.kill9()?;
    let kept = |node: &Node| -> Result<Vec<_>> {
        Ok(files(node.dir())?.into_iter().filter(|(path, _)| !path.to_string_lossy().ends_with("-shm")).collect())
    };
    let before = kept(&master)?;
    let (code, found) = doctor(master.server.subcommand(&["doctor", "--deep"]))?;
    ensure!(code == 0 && found.is_empty(), "killed: {code} {found:?}");
    ensure!(kept(&master)? == before, "something was changed");
    let (code, found) = doctor(replica.server.subcommand(&["doctor"]))?;
    ensure!(code == 1);
    assert_only(&found, "error", "does not answer")
}

#[test]
fn a_replica_or_an_agent_on_a_masters_directory_is_told() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = started(&cluster)?;
    master.stop()?;
    let mut agent = process::command(programs::agent()?);
    agent.arg("doctor").env("JWT_SECRET", e2e::client::SECRET).env("DATA_DIR", master.dir());
    let (code, found) = doctor(agent)?;
    ensure!(code == 1 && found.len() == 2, "{found:?}");
    ensure!(found[0]["what"].as_str().is_some_and(|what| what.contains("MASTER_URL is not set")), "{found:?}");
    ensure!(found[1]["what"].as_str().is_some_and(|what| what.contains("master's directory")), "{found:?}");
    Ok(())
}

#[test]
fn what_keeps_a_master_from_starting_is_found_before_it_is_started() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = started(&cluster)?;
    master.stop()?;
    let doctor_of = |master: &Node| master.server.subcommand(&["doctor"]);
    let mut weak = doctor_of(&master);
    weak.env("JWT_SECRET", "a-short-one");
    let (code, found) = doctor(weak)?;
    ensure!(code == 1);
    assert_only(&found, "warning", "JWT_SECRET")?;
    let mut missing = doctor_of(&master);
    missing.env_remove("JWT_SECRET");
    let (code, found) = doctor(missing)?;
    ensure!(code == 1);
    assert_only(&found, "error", "JWT_SECRET is not set")?;
    let mut unreadable = doctor_of(&master);
    let ended = process::run("doctor", unreadable.env("PORT", "many"), ANSWERED)?;
    ensure!(ended.status.code() == Some(2), "{ended:?}");

    let address = master.server.url().replace("http://", "");
    let busy = TcpListener::bind(&address)?;
    let (code, found) = doctor(doctor_of(&master))?;
    ensure!(code == 1);
    assert_only(&found, "error", &address)?;
    drop(busy);

    let lost = master.dir().join(".vski/lost");
    std::fs::create_dir_all(&lost)?;
    std::fs::write(lost.join("default-1-0-7.ndjson"), "{}\n")?;
    let (code, found) = doctor(doctor_of(&master))?;
    ensure!(code == 0, "good to know is nothing to repair: {found:?}");
    assert_only(&found, "info", "lost")?;
    std::fs::remove_dir_all(&lost)?;

    Connection::open(master.file("default"))?.execute_batch("CREATE TABLE by_hand (a)")?;
    let (code, found) = doctor(doctor_of(&master))?;
    ensure!(code == 1);
    assert_only(&found, "error", "by_hand has no primary key")
}

#[test]
fn a_master_that_cannot_be_reached_and_one_with_another_secret_are_told_apart() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = started(&cluster)?;
    let replica = cluster.embedded("replica", &master)?;
    std::fs::create_dir_all(replica.dir())?;
    let mut command = replica.server.subcommand(&["doctor"]);
    command.env("MASTER_URL", format!("http://127.0.0.1:{}", free_port()?));
    let (code, found) = doctor(command)?;
    ensure!(code == 1);
    assert_only(&found, "error", "reach the master")?;
    let mut command = replica.server.subcommand(&["doctor"]);
    command.env("JWT_SECRET", "another secret of more than 32 characters, too");
    let (code, found) = doctor(command)?;
    ensure!(code == 1);
    assert_only(&found, "error", "authenticate at the master")?;
    ensure!(std::fs::read_dir(replica.dir())?.next().is_none(), "the directory is still empty");
    let known = master.admin()?.get("/api/replica/replicas")?.ok()?.json()?;
    ensure!(known["replicas"].as_array().is_some_and(Vec::is_empty), "{known}");
    Ok(())
}

#[test]
fn a_user_who_may_not_write_the_directory_is_named() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = started(&cluster)?;
    master.stop()?;
    let nobody = 65_534;
    let mut command = master.server.subcommand(&["doctor"]);
    if rustix::process::geteuid().is_root() {
        // Root may write everything, so somebody else looks; they may look, and no more.
        for path in [cluster.path(), master.dir(), &master.dir().join(".vski")] {
            std::fs::set_permissions(path, Permissions::from_mode(0o755))?;
        }
        command.uid(nobody).gid(nobody);
    } else {
        std::fs::set_permissions(master.dir(), Permissions::from_mode(0o555))?;
    }
    let looked = doctor(command);
    std::fs::set_permissions(master.dir(), Permissions::from_mode(0o755))?;
    let (code, found) = looked?;
    ensure!(code == 1, "{found:?}");
    let named = found.iter().any(|finding| {
        let what = finding["what"].as_str().unwrap_or_default();
        finding["level"] == "error"
            && what.contains("may not write")
            && finding["repair"].as_str().is_some_and(|repair| repair.contains("user that owns DATA_DIR"))
    });
    ensure!(named, "{found:?}");
    Ok(())
}

#[test]
fn a_masters_lost_databases_and_its_catalogues_contradictions_are_errors() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = started(&cluster)?;
    for db in ["gone", "emptied"] {
        master.admin()?.create_database(db)?;
    }
    let sql = |master: &Node, text: &str| -> Result<()> {
        let file = cluster.path().join("migration.sql");
        std::fs::write(&file, text)?;
        let ended = process::run("sql", master.server.subcommand(&["sql"]).arg(file), ANSWERED)?;
        ensure!(ended.status.success(), "{ended:?}");
        Ok(())
    };
    sql(&master, "ALTER TABLE posts RENAME COLUMN title TO name")?;
    let (code, found) = doctor(master.server.subcommand(&["doctor"]))?;
    ensure!(code == 1);
    assert_only(&found, "error", "database default: collection posts: the catalogue names a column")?;
    ensure!(found[0]["repair"].as_str().is_some_and(|repair| repair.starts_with("rename or drop it")), "{found:?}");
    sql(&master, "ALTER TABLE posts RENAME COLUMN name TO title")?;
    sqlite3(&master.file("default"), "UPDATE _collections SET fields = 'garbage'")?;
    let (code, found) = doctor(master.server.subcommand(&["doctor"]))?;
    ensure!(code == 1);
    assert_only(&found, "error", "collection posts cannot be used")?;
    sql(&master, "DROP TABLE posts; DELETE FROM _collections")?;
    master.stop()?;
    std::fs::remove_file(master.file("gone"))?;
    std::fs::write(master.file("emptied"), "")?;
    let (code, found) = doctor(master.server.subcommand(&["doctor"]))?;
    ensure!(code == 1 && found.len() == 2 && found.iter().all(|finding| finding["level"] == "error"), "{found:?}");
    for (finding, words) in found.iter().zip(["gone.db is gone", "emptied.db is an empty file"]) {
        let repair = finding["repair"].as_str().unwrap_or_default();
        ensure!(finding["what"].as_str().is_some_and(|what| what.contains(words)), "{finding}");
        ensure!(repair.contains("restore it") && repair.contains("forget"), "{finding}");
    }
    Ok(())
}
