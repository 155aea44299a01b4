//! A master that nobody can log in to says how to make an admin, and what it says can be typed as it is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::output::log_field;
use e2e::{Cluster, process};

const ENDED: Duration = Duration::from_secs(60);

const PASSWORD: &str = "correct horse battery staple";

#[test]
fn the_first_login_works_with_the_command_that_the_log_tells() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("it's the master")?;
    master.server.unset("ADMIN_EMAIL");
    master.server.unset("ADMIN_PASSWORD");
    master.start()?;
    let lines = master.server.lines();
    let line = lines.iter().find(|line| line.contains("there is no admin yet")).context("the line that tells it")?;
    ensure!(log_field(line, "level").as_deref() == Some("WARN"), "{line}");
    let command = log_field(line, "command").context("the command")?;
    ensure!(log_field(line, "message").is_some_and(|message| message.contains(&command)), "{line}");

    let mut shell = process::command("sh");
    // Only the secret, as in the shell of an operator; the password is typed.
    shell.args(["-c", &format!("printf '%s\\n' '{PASSWORD}' | {command}")]).env("JWT_SECRET", e2e::client::SECRET);
    let ended = process::run("sh", &mut shell, ENDED)?;
    ensure!(ended.status.success(), "{ended:?}");
    master.client()?.login("admin@example.com", PASSWORD)?;

    master.stop()?;
    master.start()?;
    let told = master.server.lines().iter().filter(|line| line.contains("there is no admin yet")).count();
    ensure!(told == 1, "it is told once, not again when there is one");
    Ok(())
}
