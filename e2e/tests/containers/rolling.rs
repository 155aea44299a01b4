//! The upgrade of OPERATIONS.md: every container is made anew, one after another, while clients write and read.

use anyhow::{Context, Result, ensure};
use e2e::eventually;
use e2e::load::{FIELDS, Load, seed};

use super::balancer::{Balanced, FAULT_LIMIT};
use super::images::Images;
use super::project::READY;
use super::reads::{NODES, Reads};

/// Writes that have to be acknowledged between two restarts.
const WRITES: u64 = 20;

/// Replicas first, the master last: only its own restart holds writes up.
const ORDER: [&str; 5] = ["r001-agent", "r001", "r002-agent", "r002", "master"];

pub fn scenario(images: &Images) -> Result<()> {
    let balanced = Balanced::up("haproxy", images, &[])?;
    let project = &balanced.project;
    balanced.admin.create_collection("load", &FIELDS)?;
    let reads = Reads::start(&balanced.admin, "posts");
    let load = Load::start(balanced.admin.clone(), "load", seed()?);
    load.wait_for(WRITES)?;
    for service in ORDER {
        let old = project.container(service)?;
        project.up_again(service, None)?;
        ensure!(project.container(service)? != old, "{service} was not made anew");
        load.wait_for(WRITES).with_context(|| format!("after the restart of {service}"))?;
    }
    let ledger = load.stop()?;
    let report = reads.stop(FAULT_LIMIT)?;
    println!("    {:?}, slowest {:?}", report.answered, report.slowest);
    project.verify()?;
    for node in NODES {
        let client = project.client(node, 3001)?;
        eventually(&format!("{node} holds what was acknowledged"), READY, || ledger.check(&client).map(|()| true))?;
    }
    balanced.project.succeeded();
    Ok(())
}
