//! A database of half a gigabyte, whose first copy is interrupted again and again.

use std::io::{BufWriter, Write};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::output::log_field;
use e2e::{Cluster, Node, content, eventually, load, process};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Rows and their log entries together make 500 MB.
const RECORDS: usize = 250;
const RECORD_BYTES: usize = 1_000_000;

const INTERRUPTIONS: usize = 5;

/// Chunks of 1 MiB that arrive before the agent is killed.
const CHUNKS: std::ops::Range<u64> = 10..80;

const MOST: Duration = Duration::from_secs(180);

/// Memory that neither process may need more of, whatever the size of the database, bytes.
const MEMORY: u64 = 160 << 20;

fn filled_master(cluster: &Cluster, random: &mut StdRng) -> Result<Node> {
    let mut master = cluster.master("master")?;
    master.start()?;
    master.admin()?.create_collection("posts", &[("text", "text")])?;
    let path = cluster.path().join("posts.ndjson");
    let mut file = BufWriter::new(std::fs::File::create(&path)?);
    for _ in 0..RECORDS {
        let text: String = (0..RECORD_BYTES / 16).map(|_| format!("{:016x}", random.random::<u64>())).collect();
        writeln!(file, "{{\"text\":\"{text}\"}}")?;
    }
    file.flush()?;
    let mut command = master.server.subcommand(&["import", "--collection", "posts"]);
    let imported = process::run("import", command.arg(&path), MOST)?;
    ensure!(imported.status.success(), "{:?}", imported.stderr);
    std::fs::remove_file(path)?;
    Ok(master)
}

/// The most memory that a process has had, bytes.
fn peak_memory(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

#[test]
fn half_a_gigabyte_arrives_although_its_agent_is_killed_five_times() -> Result<()> {
    let mut random = StdRng::seed_from_u64(load::seed()?);
    let cluster = Cluster::new()?;
    let mut master = filled_master(&cluster, &mut random)?;
    let mut replica = cluster.external("replica", &master)?;
    replica.server.start()?;
    let agent = replica.agent.as_mut().context("an agent")?;
    let mut arrived = 0;
    for _ in 0..INTERRUPTIONS {
        let chunks = random.random_range(CHUNKS);
        agent.launch(&[("VSKI_FAULT", &format!("bootstrap:chunk@{chunks}"))])?;
        let status = agent.wait_exit(MOST)?;
        ensure!(status.signal() == Some(9), "it ended with {status}");
        arrived += chunks;
    }
    agent.start()?;
    eventually("the copy is whole", MOST, || Ok(replica.client()?.get("/readyz")?.status == 200))?;
    content::wait_all_equal(&[master.dir(), replica.dir()], MOST)?;

    let agent = replica.agent.as_mut().context("an agent")?;
    let lines = agent.lines();
    let finished = lines.iter().find(|line| line.contains("bootstrap finished")).context("the line that tells it")?;
    let number =
        |name: &str| log_field(finished, name).context(name.to_owned())?.parse::<u64>().context(name.to_owned());
    let (bytes, fetched) = (number("bytes")?, number("fetched")?);
    ensure!(bytes >= 500_000_000, "the database has only {bytes} bytes");
    ensure!(
        fetched <= bytes - ((arrived - INTERRUPTIONS as u64) << 20),
        "{fetched} of {bytes} fetched after {arrived} chunks"
    );
    for (name, pid) in [("agent", agent.process()?.pid()), ("master", master.server.process()?.pid())] {
        let peak = peak_memory(pid)?;
        println!("{name}: {} MiB at most", peak >> 20);
        ensure!(peak < MEMORY, "the {name} has used {peak} bytes");
    }
    Ok(())
}
