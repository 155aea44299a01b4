use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};

use crate::manifests::repository;
use crate::process::command;

/// How long a command may take on a busy machine, seconds.
const COMMAND: &str = "180";

/// How long a script may take that fetches packages or compiles, seconds.
const SCRIPT: &str = "1800";

/// On everything that a namespace makes; its value is the namespace's name.
pub const LABEL: &str = "dev.vski.e2e.pods";

/// Whether there is a Docker to talk to.
pub fn available() -> Result<()> {
    docker(&["version", "--format", "{{.Server.Version}}"]).map(drop).context("Docker does not answer")
}

/// Runs `docker …`, which must succeed. Returns its stdout.
pub fn docker(arguments: &[&str]) -> Result<String> {
    must(try_docker(arguments)?, &format!("docker {}", arguments.join(" ")))
}

/// Runs `docker …`.
pub fn try_docker(arguments: &[&str]) -> Result<Output> {
    run(COMMAND, OsStr::new("docker"), arguments)
}

/// Runs a program to its end, which comes after so many seconds at the latest.
fn run(seconds: &str, program: &OsStr, arguments: &[&str]) -> Result<Output> {
    let mut limited = command("timeout");
    limited.arg(seconds).arg(program).args(arguments).current_dir(repository()).stdin(Stdio::null());
    limited.output().with_context(|| format!("run {}", program.display()))
}

/// What a command printed, if it succeeded.
pub fn must(ended: Output, what: &str) -> Result<String> {
    let shown = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{what}: {}\n{shown}", ended.status);
    Ok(String::from_utf8_lossy(&ended.stdout).trim_end().to_owned())
}

/// Runs a script of the repository. Returns its last line.
pub fn script(file: &str, arguments: &[&str]) -> Result<String> {
    let ended = run(SCRIPT, repository().join(file).as_os_str(), arguments)?;
    Ok(must(ended, file)?.lines().last().unwrap_or_default().to_owned())
}

/// Makes stand-ins for public images that are not here.
pub fn stand_ins(images: &[&str]) -> Result<()> {
    let mut missing = images.to_vec();
    missing.retain(|image| docker(&["image", "inspect", image]).is_err());
    if missing.is_empty() { Ok(()) } else { script("e2e/images/stand-ins", &missing).map(drop) }
}

/// The beginning of the names of this checkout's namespaces: others may run beside it.
pub fn prefix() -> String {
    let place = std::fs::canonicalize(repository()).unwrap_or_else(|_| repository());
    format!("pods-{}-", &blake3::hash(place.as_os_str().as_encoded_bytes()).to_hex()[..8])
}

/// Removes what earlier runs of this checkout have left behind.
pub fn sweep() -> Result<()> {
    let (filter, mut found) = (format!("label={LABEL}"), BTreeSet::new());
    let format = format!("{{{{.Label \"{LABEL}\"}}}}");
    for list in [&["ps", "--all"][..], &["network", "ls"], &["volume", "ls"]] {
        let names = docker(&[list, &["--filter", &filter, "--format", &format]].concat())?;
        found.extend(names.lines().filter(|name| name.starts_with(&prefix())).map(str::to_owned));
    }
    found.iter().try_for_each(|namespace| remove(namespace))
}

/// Removes containers, networks and volumes of a namespace.
pub fn remove(namespace: &str) -> Result<()> {
    let filter = format!("label={LABEL}={namespace}");
    for (list, remove) in [
        (&["ps", "--all", "--quiet"][..], &["rm", "--force", "--volumes"][..]),
        (&["network", "ls", "--quiet"], &["network", "rm"]),
        (&["volume", "ls", "--quiet"], &["volume", "rm", "--force"]),
    ] {
        let found = docker(&[list, &["--filter", &filter]].concat())?;
        let found: Vec<&str> = found.lines().collect();
        if !found.is_empty() {
            docker(&[remove, &found].concat())?;
        }
    }
    Ok(())
}
