use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Above this others were at work, percent of all cores.
const BUSY: f64 = 10.0;

/// What the results were measured on, and how busy that was.
#[derive(Serialize)]
pub struct Machine {
    pub time: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_mb: u64,
    pub kernel: String,
    pub commit: String,
    pub rustc: String,
    pub profile: &'static str,
    /// wrk, PocketBase, Litestream.
    pub tools: Vec<String>,
    /// What others used in a second before the first round and in one after the last, percent of all cores, and what
    /// the host took.
    pub others: Vec<f64>,
    /// Processes that wanted to run, over the last minutes, at the same times; contains the benchmark itself.
    pub load: Vec<f64>,
    /// Turns of a fixed loop in a tenth of a second, in millions: how fast a core was.
    pub speed: f64,
}

impl Machine {
    /// Looks at this machine.
    pub fn look(tools: &Path) -> Self {
        let first = |path: &str, key: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
            line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let memory = first("/proc/meminfo", "MemTotal");
        let kilobytes = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
        let tool = |name: &str, argument: &str| {
            let said = said(Command::new(tools.join(name)).arg(argument));
            if said.contains(name) { said } else { format!("{name} {said}") }
        };
        Self {
            time: said(Command::new("date").args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"])),
            cpu: first("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mb: kilobytes / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            commit: said(Command::new("git").args(["describe", "--always", "--dirty"])),
            rustc: said(Command::new("rustc").arg("--version")),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            tools: vec![tool("wrk", "-v"), tool("pocketbase", "--version"), tool("litestream", "version")],
            others: vec![others()],
            load: vec![load()],
            speed: speed(),
        }
    }

    /// The same after the work.
    pub fn finish(&mut self) {
        self.load.push(load());
        self.others.push(others());
    }

    /// Two lines for people, and one more where figures can only be compared with each other.
    pub fn describe(&self) -> String {
        let busy = self.others.iter().any(|share| *share > BUSY);
        let warning = if busy { "\nThe machine was BUSY with other work: look at ratios only." } else { "" };
        let debug = if cfg!(debug_assertions) { "\nThis is a DEBUG build: its figures say nothing." } else { "" };
        let text = format!(
            "{}; {} x {}, {} MB, Linux {}; VSKI {} ({}, {})\n{}; others used {:.0?} % before and after, load {:?}",
            self.time,
            self.cores,
            self.cpu,
            self.memory_mb,
            self.kernel,
            self.commit,
            self.profile,
            self.rustc,
            self.tools.join(", "),
            self.others,
            self.load
        );
        text + warning + debug
    }
}

/// The first line that a command prints.
fn said(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return "unknown".to_owned() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

/// Share of all cores that is in use during a second in which this process does nothing, percent.
fn others() -> f64 {
    let before = fs::read_to_string("/proc/stat").unwrap_or_default();
    std::thread::sleep(Duration::from_secs(1));
    let after = fs::read_to_string("/proc/stat").unwrap_or_default();
    busy_share(&before, &after).unwrap_or(f64::NAN)
}

/// From two readings of /proc/stat; its first line sums up all cores: user, nice, system, idle, iowait, irq, …, steal.
fn busy_share(before: &str, after: &str) -> Option<f64> {
    let times = |text: &str| -> Option<Vec<f64>> {
        text.lines().next()?.split_whitespace().skip(1).map(|field| field.parse().ok()).collect()
    };
    let (before, after) = (times(before)?, times(after)?);
    let passed: Vec<f64> = after.iter().zip(&before).map(|(after, before)| after - before).take(8).collect();
    let (all, idle) = (passed.iter().sum::<f64>(), passed.get(3)? + passed.get(4)?);
    Some((all - idle) / all * 100.0)
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

fn speed() -> f64 {
    const TURNS: u64 = 10_000;
    let (started, mut rounds, mut state) = (Instant::now(), 0_u64, 1_u64);
    while started.elapsed() < Duration::from_millis(100) {
        for _ in 0..TURNS {
            state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        rounds += 1;
    }
    (rounds * TURNS) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_idle_nor_waits_for_the_disk_is_busy() {
        let before = "cpu 100 0 50 1000 10 0 0 5 7 0\ncpu0 1 2 3";
        let after = "cpu 130 0 60 1150 20 0 0 5 7 0\ncpu0 1 2 3";
        assert_eq!(busy_share(before, after), Some(20.0));
        assert_eq!(busy_share("", after), None);
    }
}
