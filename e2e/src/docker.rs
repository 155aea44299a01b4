//! `docker` and `docker compose` as an operator types them, each with a deadline, and how scenarios keep to their own
//! things on a Docker that others use too.
//!
//! Whatever a scenario makes carries the label of its `Scope`, and under it a name that begins with the
//! prefix of this checkout. By that it is removed: at the scenario's end, at a signal, and before the next run.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::eventually;
use crate::manifests::repository;
use crate::reserve::reserve;

/// How long a command may take on a busy machine.
pub const COMMAND: Duration = Duration::from_secs(300);

/// How long it may take until Docker has let go of what is to be removed.
const REMOVED: Duration = Duration::from_secs(60);

/// How long a script may take that fetches packages or compiles.
const SCRIPT: Duration = Duration::from_secs(1800);

/// On everything that Docker Compose makes; its value is the project's name.
pub const COMPOSE: &str = "com.docker.compose.project";

/// How a kind of scenarios marks what it makes.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// On everything; its value is the name of one scenario's things.
    pub label: &'static str,
    /// The beginning of those names, in lower case.
    pub word: &'static str,
}

impl Scope {
    /// The beginning of all names that scenarios of this checkout give: others may run beside it.
    #[must_use]
    pub fn prefix(&self) -> String {
        let place = std::fs::canonicalize(repository()).unwrap_or_else(|_| repository());
        format!("{}-{}-", self.word, &blake3::hash(place.as_os_str().as_encoded_bytes()).to_hex()[..8])
    }

    /// A new name.
    #[must_use]
    pub fn name(&self, what: &str) -> String {
        format!("{}{what}-{:06x}", self.prefix(), rand::random::<u32>() & 0xff_ffff)
    }

    /// The value of `--label` for what belongs to a name.
    #[must_use]
    pub fn tag(&self, name: &str) -> String {
        format!("{}={name}", self.label)
    }

    /// Removes what runs of this checkout have left behind.
    pub fn sweep(&self) -> Result<()> {
        let (filter, mut found) = (format!("label={}", self.label), BTreeSet::new());
        let format = format!("{{{{.Label \"{}\"}}}}", self.label);
        for list in [&["ps", "--all"][..], &["network", "ls"], &["volume", "ls"]] {
            let names = docker(&[list, &["--filter", &filter, "--format", &format]].concat())?;
            found.extend(names.lines().filter(|name| name.starts_with(&self.prefix())).map(str::to_owned));
        }
        let removed: Vec<Result<()>> = found.iter().map(|name| self.remove(name)).collect();
        removed.into_iter().collect()
    }

    /// Removes containers, networks and volumes of a name. What Docker is busy with, such as a container that it removes
    /// already, is tried again.
    pub fn remove(&self, name: &str) -> Result<()> {
        eventually(&format!("what belongs to {name} is removed"), REMOVED, || self.try_remove(name).map(|()| true))
    }

    /// All that can be removed, whatever else fails.
    fn try_remove(&self, name: &str) -> Result<()> {
        let filter = format!("label={}", self.tag(name));
        let removed = [
            (&["ps", "--all", "--quiet"][..], &["rm", "--force", "--volumes"][..]),
            (&["network", "ls", "--quiet"], &["network", "rm"]),
            (&["volume", "ls", "--quiet"], &["volume", "rm", "--force"]),
        ]
        .map(|(list, remove)| {
            let found = docker(&[list, &["--filter", &filter]].concat())?;
            let found: Vec<&str> = found.lines().collect();
            if found.is_empty() { Ok(()) } else { docker(&[remove, &found].concat()).map(drop) }
        });
        removed.into_iter().collect()
    }

    /// [`Scope::sweep`] where an error has nowhere to go but the run's output.
    pub fn clean_up(&self) {
        if let Err(error) = self.sweep() {
            println!("something was not removed: {error:#}");
        }
    }

    /// A run that is told to stop cleans up before it does.
    pub fn clean_up_on_signals(self) {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let stopped = runtime.expect("a runtime can be made").block_on(async {
                let mut terminate = signal(SignalKind::terminate())?;
                let mut interrupt = signal(SignalKind::interrupt())?;
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                std::io::Result::Ok(())
            });
            if stopped.is_ok() {
                println!("stopped by a signal");
                self.clean_up();
                std::process::exit(130);
            }
        });
    }
}

/// Whether there is a Docker to talk to.
pub fn available() -> Result<()> {
    docker(&["version", "--format", "{{.Server.Version}}"]).map(drop).context("Docker does not answer")
}

/// A program that reaches into containers from this machine. It is stopped when its time is over.
pub fn as_root(program: &str) -> Command {
    if rustix::process::getuid().is_root() {
        return limited(program, COMMAND);
    }
    let mut command = limited("sudo", COMMAND);
    command.args(["--non-interactive", program]);
    command
}

/// Runs `docker …`, which must succeed. Returns its stdout.
pub fn docker(arguments: &[&str]) -> Result<String> {
    finish(cli().args(arguments))
}

/// Runs `docker …`.
pub fn try_docker(arguments: &[&str]) -> Result<Output> {
    cli().args(arguments).output().context("start docker")
}

/// Docker's command line.
#[must_use]
pub fn cli() -> Command {
    limited("docker", COMMAND)
}

/// A program in the repository that is stopped when its time is over.
#[must_use]
pub fn limited(program: impl AsRef<OsStr>, limit: Duration) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", &limit.as_secs().to_string()]).arg(program);
    command.current_dir(repository()).stdin(Stdio::null());
    command
}

/// Runs a command that must succeed. Returns its stdout.
pub fn finish(command: &mut Command) -> Result<String> {
    let ended = command.output().with_context(|| format!("start {command:?}"))?;
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    must(&ended, &words.join(" "))
}

/// What a command printed, if it succeeded.
pub fn must(ended: &Output, what: &str) -> Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    ensure!(ended.status.success(), "{what}: {}\n{}", ended.status, text(&ended.stderr));
    Ok(text(&ended.stdout))
}

/// Runs a script of the repository. Returns its last line.
pub fn script(file: &str, arguments: &[&str]) -> Result<String> {
    let stdout = finish(limited(repository().join(file), SCRIPT).args(arguments))?;
    Ok(stdout.lines().last().unwrap_or_default().to_owned())
}

/// Makes Docker Compose available, if it is not.
pub fn compose() -> Result<()> {
    if docker(&["compose", "version"]).is_ok() { Ok(()) } else { script("e2e/tools/compose-v2", &[]).map(drop) }
}

/// Public images that are not here are pulled; where no registry answers, stand-ins are made.
pub fn stand_ins(images: &[&str]) -> Result<()> {
    let here = |image: &str| docker(&["image", "inspect", image]).is_ok();
    let mut missing = images.to_vec();
    missing.retain(|image| !here(image) && docker(&["pull", "--quiet", image]).is_err());
    if missing.is_empty() { Ok(()) } else { script("e2e/images/stand-ins", &missing).map(drop) }
}

/// A subnet of 256 addresses that no network of Docker has, and that no other run of tests is given: the scenarios give
/// addresses away themselves.
pub fn free_subnet() -> Result<String> {
    let networks = docker(&["network", "ls", "--quiet"])?;
    let mut inspect = vec!["network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}"];
    inspect.extend(networks.lines());
    let listed = try_docker(&inspect)?;
    let (taken, complaint) = (String::from_utf8_lossy(&listed.stdout), String::from_utf8_lossy(&listed.stderr));
    // A network that somebody has removed meanwhile is an error, after all others are listed.
    let gone = complaint.contains("not found") || complaint.contains("No such network");
    ensure!(listed.status.success() || gone, "list subnets: {complaint}");
    let taken: BTreeSet<&str> = taken.split_whitespace().collect();
    let start = rand::random::<u8>();
    for step in 0..=255 {
        let third = start.wrapping_add(step);
        let subnet = format!("10.213.{third}.0/24");
        if !taken.contains(subnet.as_str()) && reserve(&format!("subnet-10.213.{third}"))? {
            return Ok(subnet);
        }
    }
    bail!("all subnets are taken")
}
