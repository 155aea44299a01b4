//! Clients that were made for PocketBase.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::cluster::{ADMIN, assert_quiet};
use e2e::{Cluster, Node, process, programs};

/// What PocketBase's JavaScript client sends.
mod javascript;

/// What it makes of values and answers by itself.
mod javascript_values;

/// How long pip may take to bring the client, and the client its steps.
const DONE: Duration = Duration::from_secs(300);

/// The steps that `e2e/clients/pocketbase_client.py` prints.
const STEPS: usize = 16;

/// A master and a replica that follows it as changes arrive. A read that names a position waits until it is there.
fn pair(cluster: &Cluster) -> Result<(Node, Node)> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let replica = cluster.embedded("replica", &master)?.env("SYNC_MODE", "stream");
    let mut replica = replica.env("MIN_POSITION_WAIT", "60s").env("REPLICA_ID", "r001");
    replica.start()?;
    replica.wait_ready()?;
    Ok((master, replica))
}

#[test]
fn the_community_python_client_works_as_it_is_on_master_and_replica() -> Result<()> {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    // With this environment, which may say where PyPI is.
    let mut install = Command::new(crate_dir.join("tools/pocketbase"));
    let installed = process::run("e2e/tools/pocketbase", &mut install, DONE)?;
    ensure!(installed.status.success(), "e2e/tools/pocketbase: {}", installed.stderr.join("\n"));

    let cluster = Cluster::new()?;
    let (master, replica) = pair(&cluster)?;
    let python = crate_dir.with_file_name("target/tools/pocketbase/bin/python");
    let mut command = process::command(python);
    command.arg(crate_dir.join("clients/pocketbase_client.py"));
    command.env("MASTER", master.server.url()).env("REPLICA", replica.server.url());
    command.env("ADMIN_EMAIL", ADMIN.0).env("ADMIN_PASSWORD", ADMIN.1).env("DATA", programs::example_data());
    let done = process::run("the Python client", &mut command, DONE)?;
    let steps = done.stdout.iter().filter(|line| line.starts_with("ok: ")).count();
    let said = || format!("{}\n{}", done.stdout.join("\n"), done.stderr.join("\n"));
    ensure!(done.status.success() && steps == STEPS, "{steps} steps: {}", said());
    println!("{}", done.stdout.join("\n"));
    assert_quiet(&[&master, &replica], &[])
}
