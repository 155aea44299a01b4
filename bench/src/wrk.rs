//! The load: wrk with `bench/load.lua`, in a closed loop over kept-alive connections, on one thread.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Create,
    Get,
    List,
    Update,
    Mix,
}

/// How wrk is run.
pub struct Wrk {
    /// The program.
    pub program: PathBuf,
    /// The script.
    pub script: PathBuf,
}

/// What to send.
pub struct Load<'a> {
    pub kind: Kind,
    pub connections: usize,
    /// The query of a list.
    pub query: &'a str,
    /// A file of ids, one a line.
    pub ids: &'a Path,
}

/// What wrk counted.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
pub struct Counted {
    pub requests: f64,
    pub seconds: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Answers of 400 and more, and requests without an answer.
    pub failed: u64,
}

impl Counted {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.requests / self.seconds
    }
}

impl Wrk {
    /// Sends `load` to `url` for some seconds. An error if a request failed: its time would be no measure of the work.
    pub fn run(&self, url: &str, load: &Load<'_>, seconds: u64) -> Result<Counted> {
        finish(self.start(url, load, seconds)?)
    }

    /// Begins; [`finish`] waits for the end.
    pub fn start(&self, url: &str, load: &Load<'_>, seconds: u64) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(["-t1", "--timeout", "20s", "-d"]).arg(format!("{seconds}s"));
        command.arg(format!("-c{}", load.connections)).arg("-s").arg(&self.script).arg(url);
        command.env("WORK", format!("{:?}", load.kind).to_lowercase());
        command.env("QUERY", load.query).env("IDS", load.ids);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().with_context(|| format!("start {}: run bench/tools/install", self.program.display()))
    }
}

/// What a load that was started has come to.
pub fn finish(child: Child) -> Result<Counted> {
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let counted = parse(&said).with_context(|| format!("wrk: {said}{}", String::from_utf8_lossy(&output.stderr)))?;
    ensure!(counted.requests > 0.0, "not one request was answered");
    ensure!(counted.failed == 0, "{} of {} requests failed", counted.failed, counted.requests);
    Ok(counted)
}

/// The line that the script printed last.
fn parse(said: &str) -> Result<Counted> {
    let line = said.lines().find_map(|line| line.strip_prefix("result ")).context("no result")?;
    Ok(serde_json::from_str(line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_stands_behind_what_wrk_prints_itself() {
        let said = "Running 2s test @ http://127.0.0.1:1\nRequests/sec: 5\n\
            result {\"requests\":10,\"seconds\":2.0,\"p50_ms\":1.5,\"p99_ms\":9,\"max_ms\":12.25,\"failed\":3}\n";
        let counted = parse(said).unwrap();
        assert_eq!((counted.rate(), counted.p50_ms, counted.max_ms, counted.failed), (5.0, 1.5, 12.25, 3));
        assert!(parse("unable to connect").is_err());
    }
}
