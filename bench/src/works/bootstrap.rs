use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::memory::Watch;
use e2e::{Cluster, Node, eventually};

use crate::database;
use crate::options::Options;
use crate::pair::PATIENCE;
use crate::report::{Bound, Report, VSKI, metric};

/// Rows of a file of about 500 MB.
const ROWS: u64 = 2_150_000;

const CASE: &str = "first copy";
const PLAIN: &str = "cp, sync, sha256sum";
const LITESTREAM: &str = "litestream restore";
const MB_PER_SECOND: &str = "MB/s";
const AGENT: &str = "agent's own MB";
const MASTER: &str = "master's own MB";

/// Measures it.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new("bootstrap", "a new replica's first copy of a database of 500 MB");
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    database::fill(&mut master, options.scaled(ROWS))?;
    let copies = Copies::prepare(&master, cluster.path(), &options.tools)?;
    for round in 1..=options.rounds {
        copies.plain(&mut report)?;
        let replica = cluster.external(&format!("replica-{round}"), &master)?;
        vski(&mut report, &mut master, replica)?;
        copies.litestream(&mut report)?;
        eprintln!("bootstrap: round {round} of {}", options.rounds);
    }
    report.note(format!("The file has {:.0} MB, all of it in the page cache.", copies.megabytes));
    report.note(
        "VSKI: from the start of the replica's processes until it serves reads: the master makes and hashes a copy, the \
         agent fetches it over HTTP, verifies its hash and its content, syncs it. Own memory: the peak of RssAnon.",
    );
    report.note("Litestream restores from a folder on the same disk, without its integrity check.");
    report.own(CASE, MB_PER_SECOND, Bound::AtLeast(200.0));
    report.beside(CASE, MB_PER_SECOND, PLAIN, Bound::AtLeast(0.7));
    report.beside(CASE, MB_PER_SECOND, LITESTREAM, Bound::AtLeast(1.0));
    report.own(CASE, AGENT, Bound::AtMost(64.0));
    report.own(CASE, MASTER, Bound::AtMost(64.0));
    Ok(report)
}

fn vski(report: &mut Report, master: &mut Node, mut replica: Node) -> Result<()> {
    let megabytes = std::fs::metadata(master.file("default"))?.len() as f64 / 1e6;
    master.start()?;
    let began = Instant::now();
    let agent = replica.agent.as_mut().context("an agent of its own")?;
    agent.launch(&[])?;
    let watches = [agent.process()?.pid(), master.server.process()?.pid()].map(Watch::begin);
    replica.server.start()?;
    let client = replica.client()?;
    eventually("the replica serves reads", PATIENCE, || Ok(client.get("/readyz")?.status == 200))?;
    let seconds = began.elapsed().as_secs_f64();
    let [agent_peak, master_peak] = watches.map(Watch::peak);
    let (agent_peak, master_peak) = (agent_peak? as f64 / 1e6, master_peak? as f64 / 1e6);
    replica.stop()?;
    master.stop()?;
    std::fs::remove_dir_all(replica.dir())?;
    let values =
        [(MB_PER_SECOND, megabytes / seconds), (metric::SECONDS, seconds), (AGENT, agent_peak), (MASTER, master_peak)];
    for (metric, value) in values {
        report.add(CASE, VSKI, metric, value);
    }
    Ok(())
}

/// The yardsticks: other ways to have a copy of the file.
struct Copies {
    /// A copy of the master's file that VSKI does not have open.
    source: OsString,
    target: OsString,
    /// Litestream's replica of it.
    backup: OsString,
    litestream: OsString,
    megabytes: f64,
}

impl Copies {
    fn prepare(master: &Node, place: &Path, tools: &Path) -> Result<Self> {
        let source = place.join("source.db");
        let bytes = std::fs::copy(master.file("default"), &source)?;
        let mut backup = OsString::from("file://");
        backup.push(place.join("litestream"));
        let (source, target) = (source.into_os_string(), place.join("target.db").into_os_string());
        let litestream = tools.join("litestream").into_os_string();
        let copies = Self { source, target, backup, litestream, megabytes: bytes as f64 / 1e6 };
        let once = ["replicate".as_ref(), "-once".as_ref(), copies.source.as_ref(), copies.backup.as_ref()];
        run_command(Command::new(&copies.litestream).args::<_, &std::ffi::OsStr>(once))?;
        Ok(copies)
    }

    fn plain(&self, report: &mut Report) -> Result<()> {
        let script = "cp \"$1\" \"$2\" && sync \"$2\" && sha256sum \"$2\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args([&self.source, &self.target]);
        self.timed(report, PLAIN, &mut command)
    }

    fn litestream(&self, report: &mut Report) -> Result<()> {
        let mut command = Command::new(&self.litestream);
        command.args(["restore", "-o"]).args([&self.target, &self.backup]);
        self.timed(report, LITESTREAM, &mut command)
    }

    fn timed(&self, report: &mut Report, system: &str, command: &mut Command) -> Result<()> {
        let began = Instant::now();
        run_command(command)?;
        let seconds = began.elapsed().as_secs_f64();
        std::fs::remove_file(&self.target)?;
        report.add(CASE, system, MB_PER_SECOND, self.megabytes / seconds);
        report.add(CASE, system, metric::SECONDS, seconds);
        Ok(())
    }
}

fn run_command(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
