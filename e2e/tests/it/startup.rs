//! A bad setting, a missing need or a directory that belongs to another process: exit code 2 and one line on stderr
//! that names the variable or the holder and says what to do.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::SECRET;
use e2e::cluster::READY;
use e2e::program::free_port;
use e2e::{Cluster, content, process, programs};

/// A refusal comes at once; the time is for a busy machine.
const REFUSED: Duration = Duration::from_secs(20);

/// A master that nobody needs to listen anywhere.
const NO_MASTER: &str = "http://127.0.0.1:9";

/// Runs a program that must refuse to start, and checks its one line for `needles`.
fn assert_refused(command: &mut Command, needles: &[&str]) -> Result<()> {
    // One line is what a user sees who has not asked for more.
    let ended = process::run("refused start", command.env_remove("RUST_LOG"), REFUSED)?;
    ensure!(ended.status.code() == Some(2), "{command:?}: {ended:?}");
    let [line] = &ended.stderr[..] else { anyhow::bail!("not one line: {ended:?}") };
    for needle in needles {
        ensure!(line.contains(needle), "{line:?} does not name {needle:?}");
    }
    Ok(())
}

fn serve(dir: &Path) -> Result<Command> {
    let mut command = process::command(programs::server()?);
    command.args(["serve", "--port", "0"]).env("JWT_SECRET", SECRET).env("HOST", "127.0.0.1").env("DATA_DIR", dir);
    Ok(command)
}

fn replica(dir: &Path) -> Result<Command> {
    let mut command = serve(dir)?;
    command.env("REPLICA_MODE", "replica").env("MASTER_URL", NO_MASTER);
    Ok(command)
}

fn agent(dir: &Path) -> Result<Command> {
    let mut command = process::command(programs::agent()?);
    command.arg("run").env("JWT_SECRET", SECRET).env("AGENT_ADDR", "127.0.0.1:0").env("DATA_DIR", dir);
    command.env("MASTER_URL", NO_MASTER);
    Ok(command)
}

/// A place for a directory that does not exist yet.
fn place() -> Result<(tempfile::TempDir, PathBuf)> {
    let keep = tempfile::tempdir()?;
    let dir = keep.path().join("data");
    Ok((keep, dir))
}

#[test]
fn without_a_secret_nothing_starts() -> Result<()> {
    let (_keep, dir) = place()?;
    assert_refused(serve(&dir)?.env_remove("JWT_SECRET"), &["JWT_SECRET"])?;
    assert_refused(agent(&dir)?.env_remove("JWT_SECRET"), &["JWT_SECRET"])?;
    assert_refused(serve(&dir)?.env("JWT_SECRET", ""), &["JWT_SECRET"])
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() -> Result<()> {
    let keep = tempfile::tempdir()?;
    let file = keep.path().join("file");
    std::fs::write(&file, "in the way")?;
    for dir in [file.clone(), file.join("data")] {
        assert_refused(&mut serve(&dir)?, &["DATA_DIR", &file.to_string_lossy()])?;
        assert_refused(&mut agent(&dir)?, &["DATA_DIR", &file.to_string_lossy()])?;
    }
    Ok(())
}

#[test]
fn a_busy_port_is_named() -> Result<()> {
    let (_keep, dir) = place()?;
    let port = free_port()?;
    let _busy = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let number = port.to_string();
    let mut by_variable = process::command(programs::server()?);
    by_variable.arg("serve").env("JWT_SECRET", SECRET).env("HOST", "127.0.0.1").env("DATA_DIR", &dir);
    assert_refused(by_variable.env("PORT", &number), &[&number, "PORT"])?;
    let address = format!("127.0.0.1:{port}");
    assert_refused(agent(&dir)?.env("AGENT_ADDR", &address), &[&number, "AGENT_ADDR"])
}

#[test]
fn a_second_master_or_an_agent_on_a_running_masters_directory_is_told_who_has_it() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let holder = format!("pid {}", master.server.process()?.pid());
    assert_refused(&mut serve(master.dir())?, &["master", &holder, "DATA_DIR"])?;
    assert_refused(&mut agent(master.dir())?, &["master", &holder, "DATA_DIR"])
}

#[test]
fn a_directory_keeps_its_role() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let mut follower = cluster.embedded("replica", &master)?;
    follower.start()?;
    follower.wait_ready()?;
    follower.stop()?;
    master.stop()?;
    assert_refused(&mut agent(master.dir())?, &["master", "DATA_DIR"])?;
    assert_refused(&mut replica(master.dir())?, &["master", "REPLICA_MODE=master"])?;
    assert_refused(&mut serve(follower.dir())?, &["replica", "REPLICA_MODE=replica"])?;
    master.start().context("the master's directory is as it was")?;
    follower.start().context("and so is the replica's")
}

#[test]
fn a_second_agent_is_told_who_has_the_directory() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let mut follower = cluster.external("replica", &master)?;
    follower.start()?;
    let first = follower.agent.as_mut().context("it has an agent")?.process()?.pid();
    assert_refused(&mut agent(follower.dir())?, &["agent", &format!("pid {first}"), "DATA_DIR"])?;
    assert_refused(&mut replica(follower.dir())?, &["agent", &format!("pid {first}")])
}

#[test]
fn a_replica_needs_to_know_its_master() -> Result<()> {
    let (_keep, dir) = place()?;
    assert_refused(replica(&dir)?.env_remove("MASTER_URL"), &["MASTER_URL"])?;
    assert_refused(agent(&dir)?.env_remove("MASTER_URL"), &["MASTER_URL"])?;
    assert_refused(replica(&dir)?.env("MASTER_URL", "not a url"), &["MASTER_URL", "not a url"])
}

#[test]
fn settings_that_make_no_sense_are_named_with_their_value() -> Result<()> {
    let (_keep, dir) = place()?;
    let zero = [("SYNC_MODE", "stream"), ("SYNC_INTERVAL", "0")];
    assert_refused(replica(&dir)?.envs(zero), &["SYNC_MODE", "SYNC_INTERVAL"])?;
    assert_refused(agent(&dir)?.envs(zero), &["SYNC_MODE", "SYNC_INTERVAL"])?;
    for (name, value) in [("SYNC_INTERVAL", "soon"), ("SYNC_INTERVAL", "-1"), ("SYNC_MODE", "often")] {
        assert_refused(replica(&dir)?.env(name, value), &[name, value])?;
        assert_refused(agent(&dir)?.env(name, value), &[name, value])?;
    }
    for (name, value) in [
        ("REPLICA_MODE", "leader"),
        ("PORT", "many"),
        ("SYNC_AGENT", "none"),
        ("MAX_LAG_SECONDS", "0"),
        ("MAX_LAG_SECONDS", "5s"),
        ("MIN_POSITION_WAIT", "soon"),
        ("MIN_POSITION_WAIT", "2m"),
        ("MIN_POSITION_FALLBACK", "master"),
    ] {
        let mut command = process::command(programs::server()?);
        command.arg("serve").env("JWT_SECRET", SECRET).env("DATA_DIR", &dir).env(name, value);
        assert_refused(&mut command, &[name, value])?;
    }
    assert_refused(replica(&dir)?.env("REPLICA_ID", "no spaces"), &["REPLICA_ID", "no spaces"])
}

#[test]
fn a_node_id_file_that_holds_none_is_named_with_both_repairs() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    master.stop()?;
    let file = master.dir().join(".vski/id");
    for garbage in [&b""[..], b"\xff\xfe"] {
        std::fs::write(&file, garbage)?;
        assert_refused(&mut serve(master.dir())?, &[&file.to_string_lossy(), "remove that file", "REPLICA_ID"])?;
    }
    let mut doctor = master.server.subcommand(&["doctor"]);
    let found = process::run("doctor", &mut doctor, REFUSED)?;
    let told = found.stdout.join("\n");
    ensure!(found.status.code() == Some(1) && told.contains(".vski/id") && told.contains("REPLICA_ID"), "{told}");
    let found = process::run("doctor", doctor.env("REPLICA_ID", "m1"), REFUSED)?;
    ensure!(!found.stdout.join("\n").contains(".vski/id"), "{found:?}");
    std::fs::remove_file(&file)?;
    master.start()
}

#[test]
fn commands_on_a_mistyped_directory_are_refused_and_make_nothing() -> Result<()> {
    let keep = tempfile::tempdir()?;
    let (typo, stranger) = (keep.path().join("typo"), keep.path().join("stranger"));
    std::fs::create_dir(&stranger)?;
    std::fs::write(stranger.join("notes.txt"), "no database")?;
    let file = keep.path().join("rows");
    std::fs::write(&file, "{}")?;
    let file = file.to_string_lossy().into_owned();
    let (server, agent) = (programs::server()?, programs::agent()?);
    for (program, arguments) in [
        (&server, &["sql", "-"][..]),
        (&server, &["replicas"]),
        (&server, &["promote"]),
        (&server, &["promote", "--dry-run"]),
        (&server, &["demote"]),
        (&server, &["forget", "shop"]),
        (&server, &["import", "--collection", "posts", &file]),
        (&agent, &["status"]),
        (&agent, &["verify"]),
    ] {
        for dir in [&typo, &stranger] {
            let mut command = process::command(program);
            command.args(arguments).env("JWT_SECRET", SECRET).env("DATA_DIR", dir).env("MASTER_URL", NO_MASTER);
            assert_refused(&mut command, &[&dir.to_string_lossy(), "DATA_DIR"])?;
        }
    }
    ensure!(!typo.exists(), "a directory was made");
    ensure!(std::fs::read_dir(&stranger)?.count() == 1, "something was made in a directory of others");
    Ok(())
}

#[test]
fn one_sync_without_a_running_agent_makes_a_first_copy_and_the_next_brings_what_came_since() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let dir = cluster.path().join("by-timer");
    for database in ["first", "second"] {
        master.admin()?.create_database(database)?;
        let mut sync = process::command(programs::agent()?);
        sync.arg("sync").env("JWT_SECRET", SECRET).env("DATA_DIR", &dir).env("MASTER_URL", master.server.url());
        let done = process::run("sync", &mut sync, READY)?;
        ensure!(done.status.success() && dir.join(format!("{database}.db")).exists(), "{done:?}");
    }
    content::wait_all_equal(&[master.dir(), &dir], READY)
}

#[test]
fn a_ca_file_without_certificates_is_told_before_anything_listens() -> Result<()> {
    let (keep, dir) = place()?;
    let file = keep.path().join("ca.pem");
    for (content, why) in [
        ("", "it is empty"),
        ("not a certificate", "no -----BEGIN CERTIFICATE-----"),
        ("-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n", "MASTER_CA_FILE"),
    ] {
        std::fs::write(&file, content)?;
        assert_refused(replica(&dir)?.env("MASTER_CA_FILE", &file), &["MASTER_CA_FILE", why])?;
        assert_refused(agent(&dir)?.env("MASTER_CA_FILE", &file), &["MASTER_CA_FILE", why])?;
    }
    Ok(())
}
