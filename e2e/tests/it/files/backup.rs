//! The commands of "Backup and restore" in docs/OPERATIONS.md, typed where files are uploaded and deleted.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::cluster::READY;
use e2e::{Cluster, Node, content, process, storage};
use serde_json::Value;

use super::{DOCS, make_collection, path, upload, wait_file};

/// The first two blocks of commands of the chapter: how to keep everything, and how to put it back.
fn commands() -> Result<[String; 2]> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md");
    let text = std::fs::read_to_string(file).context("read OPERATIONS.md")?;
    let (_, chapter) = text.split_once("\n## Backup and restore\n").context("the chapter")?;
    let mut blocks = chapter.split("\n```sh\n").skip(1).filter_map(|block| block.split_once("\n```").map(|(sh, _)| sh));
    let mut next = || blocks.next().map(str::to_owned).context("a block of commands");
    Ok([next()?, next()?])
}

/// Types commands in a folder. Returns what they printed.
fn type_in(folder: &Path, commands: &str) -> Result<Vec<String>> {
    let mut shell = process::command("sh");
    let done = process::run("typed", shell.args(["-e", "-c", commands]).current_dir(folder), READY)?;
    ensure!(done.status.success(), "{commands}\n{done:?}");
    Ok(done.stdout)
}

fn assert_sound(node: &Node) -> Result<()> {
    let done = process::run("doctor", &mut node.server.subcommand(&["doctor", "--deep"]), READY)?;
    let said = done.stdout.join("\n");
    ensure!(!said.contains("are missing and"), "{said}");
    Ok(())
}

fn delete(node: &Node, record: &Value) -> Result<()> {
    node.admin()?.delete_record(DOCS, record["id"].as_str().context("an id")?)
}

#[test]
fn a_backup_that_is_typed_while_files_come_and_go_restores_rows_and_files_here_and_elsewhere() -> Result<()> {
    let cluster = Cluster::new()?;
    let [keep, put_back] = commands()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    make_collection(&master.admin()?)?;
    let kept = upload(&master.admin()?, "kept.txt", b"kept")?;
    let deleted = upload(&master.admin()?, "deleted.txt", b"deleted")?;
    let mut replica = cluster.external("replica", &master)?.env("SYNC_MODE", "stream");
    replica.start()?;
    replica.wait_ready()?;
    let desk = cluster.path().join("desk");
    std::fs::create_dir(&desk)?;
    symlink(master.dir(), desk.join("data"))?;

    // Between its two halves a record goes and another one comes.
    let (databases, files) = keep.split_once("if test").context("databases first, files after them")?;
    type_in(&desk, databases)?;
    delete(&master, &deleted)?;
    let newer = upload(&master.admin()?, "newer.txt", b"newer")?;
    let said = type_in(&desk, &format!("if test{files}"))?;
    ensure!(said == ["ok"], "{said:?}");

    // A killed master leaves a write-ahead log that knows of what came later.
    upload(&master.admin()?, "later.txt", b"later")?;
    master.kill9()?;
    type_in(&desk, &put_back)?;
    master.start()?;
    assert_sound(&master)?;
    for (record, bytes) in [(&kept, &b"kept"[..]), (&deleted, b"deleted")] {
        for node in [&master, &replica] {
            wait_file(node, &path(record, &record["one"])?, bytes)?;
        }
    }
    let gone = path(&newer, &newer["one"])?;
    ensure!(master.client()?.get(&gone)?.status == 404, "a record that the backup does not have");
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;

    // A new machine.
    let (machine, mut fresh) = (cluster.path().join("machine"), cluster.master("fresh")?.env("FILE_GRACE", "1s"));
    std::fs::create_dir(&machine)?;
    symlink(desk.join("backup"), machine.join("backup"))?;
    symlink(fresh.dir(), machine.join("data"))?;
    type_in(&machine, &format!("mkdir '{}'\n{put_back}", fresh.dir().display()))?;
    fresh.start()?;
    wait_file(&fresh, &path(&deleted, &deleted["one"])?, b"deleted")?;
    // What came between the halves has no row and goes.
    storage::wait_whole(&[fresh.dir()], "default", READY)?;
    assert_sound(&fresh)
}
