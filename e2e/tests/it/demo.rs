use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::process::{self, Process, descendants, is_running};
use e2e::program::free_ports;
use e2e::{Cluster, content, programs};
use rustix::process::Signal;
use vski_replication::datadir::DataDir;

/// Importing 34,006 cities and copying them twice, in a debug build on a busy machine.
const PRESENTED: Duration = Duration::from_secs(120);
const STOPPED: Duration = Duration::from_secs(30);

/// Rows of examples/data.
const EXPECTED: [(&str, u64); 2] = [("cities", 34_006), ("countries", 252)];

#[test]
fn the_demo_brings_up_replicas_with_all_rows_and_leaves_no_process() -> Result<()> {
    let cluster = Cluster::new()?;
    let data = cluster.path().join("demo");
    let mut command = process::command(programs::server()?);
    let port = free_ports(3)?.to_string();
    command.args(["demo", "--replicas", "2", "--port", &port, "--data"]).arg(&data);
    let mut demo = Process::spawn_leader("demo", &mut command)?;
    demo.output().wait_for("a line that says Ctrl-C", PRESENTED, |line| line.contains("Ctrl-C").then_some(()))?;

    let nodes = data_directories(&data)?;
    ensure!(nodes.len() == 3, "not a master and two replicas: {nodes:?}");
    nodes.iter().try_for_each(|dir| has_all_rows(dir))?;
    let dirs: Vec<&Path> = nodes.iter().map(PathBuf::as_path).collect();
    content::assert_all_equal(&dirs)?;

    let children = descendants(demo.pid())?;
    demo.signal(Signal::INT)?;
    let status = demo.wait_exit(STOPPED)?;
    ensure!(status.success(), "Ctrl-C ended it with {status}");
    let left: Vec<&u32> = children.iter().filter(|child| is_running(**child)).collect();
    ensure!(left.is_empty(), "processes were left behind: {left:?}");
    Ok(())
}

/// The directories at any depth that hold a default database.
fn data_directories(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        if dir.join("default.db").is_file() {
            found.push(dir);
            continue;
        }
        for entry in std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// The demo may keep its collections in any database.
fn has_all_rows(dir: &Path) -> Result<()> {
    let mut rows = std::collections::BTreeMap::new();
    for db in DataDir::open(dir)?.databases()? {
        let content = content::read(&dir.join(format!("{db}.db")))?;
        rows.extend(content.tables.into_iter().map(|(name, table)| (name, table.rows)));
    }
    for (table, expected) in EXPECTED {
        ensure!(rows.get(table) == Some(&expected), "{}: not {expected} {table}: {rows:?}", dir.display());
    }
    Ok(())
}
