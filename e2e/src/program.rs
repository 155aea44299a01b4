use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::output::{is_alarming, is_panic, log_field};
use crate::process::{self, Process};

/// How long a debug build may take until it listens, on a busy machine.
const STARTED: Duration = Duration::from_secs(60);

/// How long a graceful stop may take, on a busy machine.
const STOPPED: Duration = Duration::from_secs(60);

/// A program with fixed settings and a fixed port.
pub struct Program {
    name: String,
    binary: PathBuf,
    command: &'static str,
    /// The message of the log line that names its address.
    announcement: &'static str,
    env: BTreeMap<String, OsString>,
    port: u16,
    process: Option<Process>,
    /// What the processes before this one printed.
    past: Vec<String>,
}

impl Program {
    /// A program that is run as `binary command`; its port was chosen by [`free_port`].
    #[must_use]
    pub fn new(name: &str, binary: PathBuf, command: &'static str, announcement: &'static str, port: u16) -> Self {
        let (name, env) = (name.to_owned(), BTreeMap::new());
        Self { name, binary, command, announcement, env, port, process: None, past: Vec::new() }
    }

    /// Sets a variable for all later starts.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.env.insert(name.to_owned(), value.into());
    }

    /// Removes a variable for all later starts.
    pub fn unset(&mut self, name: &str) {
        self.env.remove(name);
    }

    /// Base address at which it is reached.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The command line with all settings, for another subcommand of the same program on the same directory.
    #[must_use]
    pub fn subcommand(&self, arguments: &[&str]) -> Command {
        let mut command = process::command(&self.binary);
        command.args(arguments).envs(&self.env);
        command
    }

    /// Starts it and waits until it says that it listens.
    pub fn start(&mut self) -> Result<()> {
        self.launch(&[])?;
        self.wait_listening()
    }

    /// Starts it with further variables and does not wait: it may be meant to die.
    pub fn launch(&mut self, extra: &[(&str, &str)]) -> Result<()> {
        self.forget_process()?;
        let mut command = self.subcommand(&[self.command]);
        command.envs(extra.iter().copied());
        self.process = Some(Process::spawn(&self.name, &mut command)?);
        Ok(())
    }

    /// Waits for the log line that names the address, which must be the one that was asked for.
    pub fn wait_listening(&mut self) -> Result<()> {
        let announcement = self.announcement;
        let what = format!("the log line {announcement:?} of {}", self.name);
        let address = self.process()?.output().wait_for(&what, STARTED, |line| {
            let said = log_field(line, "message").is_some_and(|message| message == announcement);
            said.then(|| log_field(line, "address")).flatten()
        })?;
        let expected = format!("127.0.0.1:{}", self.port);
        ensure!(address == expected, "{} listens on {address} instead of {expected}", self.name);
        Ok(())
    }

    /// SIGKILL, as by a power cut.
    pub fn kill9(&mut self) -> Result<()> {
        self.process()?.kill9()?;
        self.forget_process()
    }

    /// SIGTERM; a graceful stop ends with exit code 0.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process()?.terminate(STOPPED)?;
        ensure!(status.success(), "{} did not stop cleanly: {status}", self.name);
        self.forget_process()
    }

    /// Waits until it has ended by itself.
    pub fn wait_exit(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let status = self.process()?.wait_exit(deadline)?;
        self.forget_process()?;
        Ok(status)
    }

    /// The running process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} is not running", self.name))
    }

    /// Everything that all its processes have printed.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let now = self.process.iter().flat_map(|process| process.output().lines());
        self.past.iter().cloned().chain(now).collect()
    }

    /// WARN and ERROR lines, and panics, but those that contain one of `expected`.
    #[must_use]
    pub fn alarms(&self, expected: &[&str]) -> Vec<String> {
        let lines = self.lines().into_iter().filter(|line| is_alarming(line));
        lines.filter(|line| is_panic(line) || !expected.iter().any(|text| line.contains(text))).collect()
    }

    /// Lines that report a panic.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        self.lines().into_iter().filter(|line| is_panic(line)).collect()
    }

    fn forget_process(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            ensure!(process.exited()?.is_some(), "{} is still running", self.name);
            process.output().wait_for_end(STOPPED)?;
            self.past.extend(process.output().lines());
        }
        Ok(())
    }
}

/// A port that is free now, and that the kernel gives to nobody else while its program is down: it lies below the
/// range of which outgoing connections take theirs.
pub fn free_port() -> Result<u16> {
    free_ports(1)
}

/// The first of `count` neighbouring ports that are free now, and that no other test of this process is given.
pub fn free_ports(count: u16) -> Result<u16> {
    const RANGE: std::ops::Range<u16> = 20_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run side by side begin at different places.
    let begin = u16::try_from(std::process::id() % 1200).context("a small number")? * 10;
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    for _ in RANGE {
        let step = NEXT.fetch_add(count, Ordering::Relaxed);
        let first = RANGE.start + begin.wrapping_add(step) % (RANGE.end - RANGE.start - count);
        if (first..first + count).all(is_free) {
            return Ok(first);
        }
    }
    anyhow::bail!("no {count} free ports in {RANGE:?}")
}
