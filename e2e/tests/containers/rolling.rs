//! The upgrade of OPERATIONS.md: every container is made anew, one after another, while clients write and read. And the
//! load balancer takes a changed file, as compose/README.md says, without a failed read.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::eventually;
use e2e::load::{FIELDS, Load, seed};
use e2e::reads::{NODES, Reads};

use super::balancer::{Balanced, FAULT_LIMIT};
use super::broken::lines_of;
use super::images::{Images, compose_file};
use super::kept::Kept;
use super::plain::NO_ADMIN;
use super::project::READY;
use super::quiet::proxy;

/// Writes that have to be acknowledged between two restarts.
const WRITES: u64 = 20;

/// What anybody may ask a node, over a connection that is kept.
const READ: &str = "/livez";

/// So many answers by the changed file are waited for.
const AFTER: usize = 5;

/// Replicas first, the master last: only its own restart holds writes up.
const REPLICAS: [&str; 4] = ["r001-agent", "r001", "r002-agent", "r002"];

/// How a load balancer is told to read its file again.
const fn reload(service: &str) -> &'static [&'static str] {
    match service.as_bytes() {
        b"haproxy" => &["kill", "--signal", "USR2", "haproxy"],
        b"nginx" => &["exec", "-T", "nginx", "nginx", "-s", "reload"],
        _ => &["kill", "--signal", "HUP", "traefik"],
    }
}

pub fn scenario(images: &Images) -> Result<()> {
    for service in ["haproxy", "nginx", "traefik"] {
        let began = Instant::now();
        behind(service, images).with_context(|| format!("behind {service}"))?;
        println!("    {service}: {:.1} s", began.elapsed().as_secs_f64());
    }
    Ok(())
}

fn behind(service: &'static str, images: &Images) -> Result<()> {
    let mut balanced = Balanced::up(service, images, &[])?;
    // Its own file, in a place where it can be changed. This restart of the load balancer is a gap, which none could close.
    let file = lines_of(service);
    let text = std::fs::read_to_string(compose_file(file.file))?;
    balanced.replace(Some((file.place, &text)))?;
    balanced.wait_routed()?;

    let project = &balanced.project;
    balanced.admin.create_collection("load", &FIELDS)?;
    let reads = Reads::start(&balanced.admin, "posts");
    let load = Load::start(balanced.admin.clone(), "load", seed()?);
    load.wait_for(WRITES)?;
    for node in REPLICAS {
        restart(&balanced, node, &load)?;
    }
    reads.stop(FAULT_LIMIT).context("while replicas were restarted")?;

    let reads = Reads::start(&balanced.admin, "posts");
    restart(&balanced, "master", &load)?;
    let ledger = load.stop()?;
    reads.stop_without_master(FAULT_LIMIT).context("while the master was restarted")?;

    let reads = Reads::start(&balanced.admin, "posts");
    ensure!(balanced.admin.get("/metrics")?.status == 403, "the file's own routes");
    project.place("instead", &text.replace("/metrics", "/nothing"))?;
    let mut kept = Kept::new(&project.url(service, 8080)?)?;
    kept.ask(READ)?;
    project.compose(reload(service))?;
    let mut changed = 0;
    // The old processes go a moment after the new ones have begun to answer.
    eventually("the changed file is in use", READY, || {
        changed += usize::from(balanced.admin.get("/metrics")?.status != 403);
        Ok(changed == AFTER)
    })?;
    kept.ask(READ).context("a connection that was kept meanwhile")?;
    balanced.wait_routed()?;
    reads.stop(FAULT_LIMIT).context("while the load balancer read its file")?;

    project.equal(&["posts", "load"])?;
    for node in NODES {
        let client = project.client(node, 3001)?;
        eventually(&format!("{node} holds what was acknowledged"), READY, || ledger.check(&client).map(|()| true))?;
    }
    project.assert_quiet(&[&[NO_ADMIN, "sync failed"], proxy(service)].concat())?;
    balanced.project.succeeded();
    Ok(())
}

/// Makes a node's container anew, and waits until writes go on.
fn restart(balanced: &Balanced, node: &str, load: &Load) -> Result<()> {
    let project = &balanced.project;
    let old = project.container(node)?;
    project.up_again(node, None)?;
    ensure!(project.container(node)? != old, "{node} was not made anew");
    load.wait_for(WRITES).with_context(|| format!("after the restart of {node}"))
}
