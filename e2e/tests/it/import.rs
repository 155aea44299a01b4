use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::READY;
use e2e::faults::{self, Fault};
use e2e::process::{self, Finished};
use e2e::{Cluster, Node, content, programs};

const IMPORTED: Duration = Duration::from_secs(60);

/// Enough for several batches.
const ROWS: usize = 2_000;

const FIELDS: [(&str, &str); 7] = [
    ("geonameid", "number"),
    ("name", "text"),
    ("country", "text"),
    ("latitude", "number"),
    ("longitude", "number"),
    ("population", "number"),
    ("timezone", "text"),
];

fn master(cluster: &Cluster) -> Result<Node> {
    let mut master = cluster.master("master")?;
    master.start()?;
    master.admin()?.create_collection("cities", &FIELDS)?;
    Ok(master)
}

/// The first rows of the example data as a file, with `bad` in the place of the third if given.
fn file(cluster: &Cluster, bad: Option<&str>) -> Result<PathBuf> {
    let all = std::fs::read_to_string(programs::example_data().join("cities.ndjson")).context("read the example")?;
    let mut lines: Vec<&str> = all.lines().take(ROWS).collect();
    if let Some(bad) = bad {
        lines[2] = bad;
    }
    let file = cluster.path().join("some-cities.ndjson");
    std::fs::write(&file, lines.join("\n") + "\n")?;
    Ok(file)
}

fn import(master: &Node, file: &Path) -> Result<Finished> {
    let mut command = master.server.subcommand(&["import", "--collection", "cities"]);
    process::run("import", command.arg(file), IMPORTED)
}

#[test]
fn an_import_goes_through_the_running_server_and_reaches_its_replica() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let mut replica = cluster.embedded("replica", &master)?;
    replica.start()?;
    let ended = import(&master, &file(&cluster, None)?)?;
    ensure!(ended.status.success(), "{ended:?}");
    replica.wait_ready()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    for node in [&master, &replica] {
        ensure!(node.client()?.count("cities")? == ROWS as u64, "{}: another number of cities", node.name());
    }
    Ok(())
}

#[test]
fn an_import_works_on_the_directory_of_a_stopped_server() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = master(&cluster)?;
    let mut replica = cluster.embedded("replica", &master)?;
    replica.start()?;
    replica.wait_ready()?;
    master.stop()?;
    let ended = import(&master, &file(&cluster, None)?)?;
    ensure!(ended.status.success(), "{ended:?}");
    master.start()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    for node in [&master, &replica] {
        ensure!(node.client()?.count("cities")? == ROWS as u64, "{}: another number of cities", node.name());
    }
    Ok(())
}

#[test]
fn a_bad_line_is_named_before_anything_is_imported() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    for bad in [r#"{"name": "half a"#, r#"["no object"]"#, r#"{"name": 7, "population": "many"}"#] {
        let ended = import(&master, &file(&cluster, Some(bad))?)?;
        ensure!(!ended.status.success(), "{bad} was accepted");
        ensure!(ended.stderr.iter().any(|line| line.contains("line 3")), "{bad}: {ended:?}");
        ensure!(master.client()?.count("cities")? == 0, "{bad}: the lines before it were imported");
    }
    Ok(())
}

#[test]
fn an_import_whose_server_is_killed_goes_on_when_it_is_back_and_stores_each_line_once() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let file = cluster.path().join("many.ndjson");
    let lines: Vec<String> = (0..20_000).map(|n| format!("{{\"n\":{n}}}")).collect();
    std::fs::write(&file, lines.join("\n"))?;
    let mut command = master.server.subcommand(&["import", "--create", "--collection", "many"]);
    let mut import = process::Process::spawn("import", command.arg(&file))?;
    let admin = master.admin()?;
    e2e::eventually("a part is stored", READY, || Ok(admin.count("many").unwrap_or(0) > 1_000))?;
    master.kill9()?;
    master.start()?;
    let status = import.wait_exit(READY)?;
    ensure!(status.success(), "the import ended with {status}");
    let conn = vski_replication::connection::reader(&master.file("default"))?;
    let counts: (i64, i64) =
        conn.query_row("SELECT count(*), count(DISTINCT n) FROM many", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    ensure!(counts == (20_000, 20_000), "{counts:?}");
    Ok(())
}

#[test]
fn an_import_goes_on_wherever_within_a_chunk_its_server_dies() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    let file = cluster.path().join("three.ndjson");
    // One has its id from the file.
    std::fs::write(&file, "{\"id\":\"own0000id000001\",\"n\":1}\n{\"n\":2}\n{\"n\":3}\n")?;
    for (number, Fault { label, .. }) in faults::of_group("rows")?.into_iter().enumerate() {
        let collection = format!("lines{number}");
        admin.create_collection(&collection, &[("n", "number")])?;
        master.stop()?;
        master.server.launch(&[("VSKI_FAULT", label.as_str())])?;
        master.server.wait_listening()?;
        let mut command = master.server.subcommand(&["import", "--collection", &collection]);
        let mut import = process::Process::spawn("import", command.arg(&file))?;
        master.server.wait_exit(READY).with_context(|| format!("it dies at {label}"))?;
        master.start()?;
        let status = import.wait_exit(READY)?;
        ensure!(status.success(), "{label}: the import ended with {status}");
        ensure!(admin.count(&collection)? == 3, "{label}: {}", admin.count(&collection)?);
    }
    Ok(())
}

#[test]
fn a_stray_file_does_not_keep_a_replica_from_being_ready() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let mut replica = cluster.embedded("replica", &master)?;
    std::fs::create_dir_all(replica.dir())?;
    std::fs::write(replica.dir().join("stray.db"), [0xA5; 50])?;
    replica.start()?;
    replica.wait_ready()?;
    ensure!(std::fs::read(replica.dir().join("stray.db"))? == [0xA5; 50], "it was touched");
    Ok(())
}
