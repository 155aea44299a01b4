//! `docker` and `docker compose` as an operator types them, each with a deadline, and what has to be there before.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

/// How long a command may take on a busy machine.
pub const COMMAND: Duration = Duration::from_secs(120);

/// How long the images may take: packages are fetched, programs are compiled.
const IMAGES: Duration = Duration::from_secs(1800);

/// Compose's own label names the project; whatever else a scenario starts gets it too.
pub const LABEL: &str = "com.docker.compose.project";

/// The public images that the files name and the scenarios start.
const PUBLIC: [&str; 3] = ["haproxy:3.2", "nginx:1.30", "traefik:v3"];

/// Names of the images that were made here.
pub struct Images {
    /// The programs, as compose/Dockerfile packs them.
    pub vski: String,
    /// A server that is no VSKI.
    pub backend: String,
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// The beginning of all names that scenarios of this checkout give: others may run beside it.
pub fn prefix() -> String {
    let hash = blake3::hash(root().as_os_str().as_encoded_bytes()).to_hex();
    format!("vski-e2e-{}-", &hash[..8])
}

/// Whether there is a Docker to talk to.
pub fn available() -> Result<()> {
    docker(&["version", "--format", "{{.Server.Version}}"]).map(drop)
}

/// Makes what is missing of Compose and the images.
pub fn images() -> Result<Images> {
    if docker(&["compose", "version"]).is_err() {
        script("e2e/tools/compose-v2", &[])?;
    }
    let missing = |image: &&&str| docker(&["image", "inspect", image]).is_err();
    for image in PUBLIC.iter().filter(missing) {
        // Where no registry answers.
        if docker(&["pull", "--quiet", image]).is_err() {
            script("e2e/images/stand-ins", &[image])?;
        }
    }
    Ok(Images { vski: script("e2e/images/test-image", &[])?, backend: script("e2e/images/backend", &[])? })
}

/// Runs a script of the repository. Returns its last line.
pub fn script(file: &str, arguments: &[&str]) -> Result<String> {
    let mut command = limited(root().join(file), IMAGES);
    let stdout = finish(command.args(arguments).current_dir(root()))?;
    Ok(stdout.lines().last().unwrap_or_default().to_owned())
}

/// Docker's command line.
pub fn cli() -> Command {
    limited("docker", COMMAND)
}

/// A program that is stopped when its time is over.
pub fn limited(program: impl AsRef<OsStr>, limit: Duration) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", &limit.as_secs().to_string()]).arg(program).stdin(Stdio::null());
    command
}

/// Runs `docker …`. Returns its stdout.
pub fn docker(arguments: &[&str]) -> Result<String> {
    finish(cli().args(arguments))
}

/// Runs a command that must succeed. Returns its stdout.
pub fn finish(command: &mut Command) -> Result<String> {
    let ended = command.output().with_context(|| format!("start {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    ensure!(ended.status.success(), "{command:?}: {}\n{}", ended.status, text(&ended.stderr));
    Ok(text(&ended.stdout))
}

/// A subnet of 256 addresses that no network of Docker has: the scenarios give addresses away themselves.
pub fn free_subnet() -> Result<String> {
    let networks = docker(&["network", "ls", "--quiet"])?;
    let mut inspect = vec!["network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}"];
    inspect.extend(networks.lines());
    let taken = docker(&inspect)?;
    let taken: BTreeSet<&str> = taken.split_whitespace().collect();
    let start = rand::random::<u8>();
    let free = (0..=255).map(|step| format!("10.213.{}.0/24", start.wrapping_add(step)));
    free.into_iter().find(|subnet| !taken.contains(subnet.as_str())).context("all subnets are taken")
}

/// Whatever a scenario could not remove is removed once all have ended.
impl Drop for Images {
    fn drop(&mut self) {
        clean_up();
    }
}

/// Removes everything that scenarios of this checkout left behind.
pub fn clean_up() {
    let Ok(projects) = projects() else { return };
    for project in projects {
        remove(&project);
    }
}

/// Removes the containers, networks and volumes of a project.
pub fn remove(project: &str) {
    let filter = format!("label={LABEL}={project}");
    for (list, remove) in [
        (&["ps", "--all", "--quiet"][..], &["rm", "--force", "--volumes"][..]),
        (&["network", "ls", "--quiet"], &["network", "rm"]),
        (&["volume", "ls", "--quiet"], &["volume", "rm", "--force"]),
    ] {
        let found = docker(&[list, &["--filter", &filter]].concat()).unwrap_or_default();
        let found: Vec<&str> = found.lines().collect();
        if found.is_empty() {
            continue;
        }
        if let Err(error) = docker(&[remove, &found].concat()) {
            println!("{project} was not removed: {error:#}");
        }
    }
}

/// The projects of this checkout that have left anything.
fn projects() -> Result<BTreeSet<String>> {
    let (label, mut found) = (format!("label={LABEL}"), BTreeSet::new());
    let format = format!("{{{{.Label \"{LABEL}\"}}}}");
    for list in [&["ps", "--all"][..], &["network", "ls"], &["volume", "ls"]] {
        let names = docker(&[list, &["--filter", &label, "--format", &format]].concat())?;
        found.extend(names.lines().filter(|name| name.starts_with(&prefix())).map(str::to_owned));
    }
    Ok(found)
}

/// A run that is told to stop cleans up before it does.
pub fn clean_up_on_signals() {
    std::thread::spawn(|| {
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
            clean_up();
            std::process::exit(130);
        }
    });
}

/// A file of compose/.
pub fn compose_file(name: &str) -> PathBuf {
    root().join("compose").join(name)
}
