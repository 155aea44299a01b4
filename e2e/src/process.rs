//! A child process dies with its `Process`. When it is dropped its last lines are printed: the test runner shows
//! them only for a test that failed.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::eventually;
use crate::output::{Output, Stream};

/// How long a killed process may take to be gone, on a busy machine that still writes what it has begun.
const GONE: Duration = Duration::from_secs(60);

/// A running, or ended, child process.
pub struct Process {
    name: String,
    child: Child,
    output: Output,
    /// It leads a process group of its own, which is killed as a whole at the end.
    leads: bool,
}

/// What a command that ran to its end left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Lines on stdout.
    pub stdout: Vec<String>,
    /// Lines on stderr.
    pub stderr: Vec<String>,
}

/// A command without the environment of the test, but for what any program needs to run.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    for name in ["PATH", "HOME", "TMPDIR", "RUST_BACKTRACE", "RUST_LOG", "LLVM_PROFILE_FILE"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command
}

/// Runs a command to its end.
pub fn run(name: &str, command: &mut Command, deadline: Duration) -> Result<Finished> {
    let mut process = Process::spawn(name, command)?;
    let status = process.wait_exit(deadline)?;
    process.output.wait_for_end(GONE)?;
    let output = process.output();
    Ok(Finished { status, stdout: output.of(Stream::Stdout), stderr: output.of(Stream::Stderr) })
}

impl Process {
    /// Starts a child that gets the terminal's Ctrl-C together with the test.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        Self::start(name, command, false)
    }

    /// Starts a child that leads its own process group: for shells and commands that have children themselves.
    pub fn spawn_leader(name: &str, command: &mut Command) -> Result<Self> {
        Self::start(name, command.process_group(0), true)
    }

    fn start(name: &str, command: &mut Command, leads: bool) -> Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {name}: {command:?}"))?;
        let output = Output::default();
        output.follow(Stream::Stdout, child.stdout.take().context("stdout is piped")?)?;
        output.follow(Stream::Stderr, child.stderr.take().context("stderr is piped")?)?;
        Ok(Self { name: name.to_owned(), child, output, leads })
    }

    /// What it has printed.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("ask for {}", self.name))
    }

    /// Sends a signal, unless the process has ended: then its id may be another's.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.child), signal).with_context(|| format!("send {signal:?} to {}", self.name))
    }

    /// SIGKILL: what a power cut or the kernel's out-of-memory killer does.
    pub fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_exit(GONE).map(drop)
    }

    /// SIGTERM, and how the process ended.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_exit(deadline)
    }

    /// SIGSTOP: the process is there and answers nothing.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until it has ended by itself.
    pub fn wait_exit(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} (pid {}) ends", self.name, self.pid());
        let ended = eventually(&what, deadline, || self.exited());
        ended.with_context(|| format!("last lines of {}:\n{}", self.name, self.output.tail()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.leads {
            // The leader's id names the group as long as a member of it lives.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.kill9();
        eprintln!("--- last lines of {} (pid {})\n{}", self.name, self.pid(), self.output.tail());
    }
}

/// The children of a process, theirs, and so on.
pub fn descendants(pid: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").context("list processes")? {
        let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        parents.extend(status(process).map(|(_, parent)| (process, parent)));
    }
    let (mut found, mut next) = (vec![pid], 0);
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(process, _)| *process));
        next += 1;
    }
    Ok(found.split_off(1))
}

/// Whether a process still runs: one that only waits to be reaped does not.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    status(pid).is_some_and(|(state, _)| state != "Z" && state != "X")
}

/// State and parent of a process, if there is one.
fn status(pid: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in parentheses and may itself contain some.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut shell = command("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn a_command_that_ran_to_its_end_left_its_status_and_both_outputs() {
        let finished = run("shell", &mut shell("echo out; echo err >&2; exit 2"), GONE).unwrap();
        assert_eq!(finished.status.code(), Some(2));
        assert_eq!((finished.stdout, finished.stderr), (vec!["out".to_owned()], vec!["err".to_owned()]));
    }

    #[test]
    fn a_killed_process_tells_the_signal_and_its_children_are_known() {
        let mut process = Process::spawn_leader("shell", &mut shell("echo up; sleep 100 & wait")).unwrap();
        process.output().wait_for("up", GONE, |line| (line == "up").then_some(())).unwrap();
        let children = eventually("one child", GONE, || {
            Ok(Some(descendants(process.pid())?).filter(|children| children.len() == 1))
        });
        let child = children.unwrap()[0];
        process.kill9().unwrap();
        assert_eq!(process.exited().unwrap().and_then(|status| status.signal()), Some(9));
        assert!(is_running(child), "only the shell was killed");
        drop(process);
        eventually("the group is gone", GONE, || Ok(!is_running(child))).unwrap();
    }
}
