//! `healthcheck` tells by its exit code whether the process of a container lives, and whether it is ready.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::program::free_port;
use e2e::{Cluster, process, programs};

const ENDED: Duration = Duration::from_secs(30);

fn asked(command: &mut Command) -> Result<(Option<i32>, Vec<String>)> {
    let ended = process::run("healthcheck", command, ENDED)?;
    ensure!(ended.stdout.is_empty(), "{ended:?}");
    Ok((ended.status.code(), ended.stderr))
}

fn healthy(mut command: Command) -> Result<()> {
    let (code, said) = asked(&mut command)?;
    ensure!(code == Some(0) && said.is_empty(), "{command:?}: {code:?} {said:?}");
    Ok(())
}

fn unhealthy(mut command: Command, words: &str) -> Result<()> {
    let (code, said) = asked(&mut command)?;
    ensure!(code == Some(1) && said.len() == 1 && said[0].contains(words), "{command:?}: {code:?} {said:?}");
    Ok(())
}

#[test]
fn a_server_and_an_agent_that_live_are_healthy_and_ready_when_they_are() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    let mut replica = cluster.external("replica", &master)?;
    unhealthy(master.server.subcommand(&["healthcheck"]), "does not answer")?;

    replica.start()?;
    healthy(replica.server.subcommand(&["healthcheck"]))?;
    unhealthy(replica.server.subcommand(&["healthcheck", "--ready"]), "/readyz answers 503")?;
    let agent = replica.agent.as_ref().context("an agent of its own")?;
    healthy(agent.subcommand(&["healthcheck"]))?;
    unhealthy(agent.subcommand(&["healthcheck", "--ready"]), "/readyz answers 503")?;

    master.start()?;
    replica.wait_ready()?;
    healthy(master.server.subcommand(&["healthcheck", "--ready"]))?;
    healthy(replica.server.subcommand(&["healthcheck", "--ready"]))?;
    let agent = replica.agent.as_ref().context("an agent of its own")?;
    healthy(agent.subcommand(&["healthcheck", "--ready"]))?;

    master.kill9()?;
    unhealthy(master.server.subcommand(&["healthcheck"]), "does not answer")
}

#[test]
fn the_server_program_asks_the_agent_where_no_server_runs() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = cluster.master("master")?;
    let mut replica = cluster.external("replica", &master)?;
    let agent = replica.agent.as_mut().context("an agent of its own")?;
    let check = |agent_addr: Option<&str>| -> Result<Command> {
        let mut command = process::command(programs::server()?);
        command.arg("healthcheck").env("PORT", free_port()?.to_string()).env("HOST", "0.0.0.0");
        command.envs(agent_addr.map(|address| ("AGENT_ADDR", address)));
        Ok(command)
    };
    let address = agent.url().replace("http://", "");
    unhealthy(check(Some(&address))?, &address)?;
    agent.start()?;
    healthy(check(Some(&address))?)?;
    unhealthy(check(None)?, "does not answer")
}

#[test]
fn a_process_that_is_frozen_is_unhealthy() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    master.server.process()?.pause()?;
    let check = master.server.subcommand(&["healthcheck"]);
    let asked = unhealthy(check, "does not answer");
    master.server.process()?.resume()?;
    asked
}
