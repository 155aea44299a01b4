use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::process;

/// Runs SQL on a database file as an administrator does, with the real sqlite3 shell. Returns what it printed.
pub fn sqlite3(file: &Path, sql: &str) -> Result<String> {
    let mut command = process::command("sqlite3");
    // A running node may be writing at this moment.
    command.args(["-batch", "-bail", "-cmd", ".timeout 30000"]).arg(file).arg(sql);
    let done = command.output().context("run the sqlite3 shell: apt-get install sqlite3")?;
    let (said, complaint) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    ensure!(done.status.success(), "sqlite3 {sql}: {said} {complaint}");
    Ok(said.trim_end().to_owned())
}
