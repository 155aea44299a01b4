//! The upgrade of OPERATIONS.md: every container is made anew, one after another, while clients write and read.

use anyhow::{Context, Result, ensure};
use e2e::eventually;
use e2e::load::{FIELDS, Load, seed};

use super::balancer::{Balanced, FAULT_LIMIT};
use super::images::Images;
use super::plain::NO_ADMIN;
use super::project::READY;
use super::quiet::proxy;
use e2e::reads::{NODES, Reads};

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
    reads.stop_without_master(FAULT_LIMIT)?;
    project.equal(&["posts", "load"])?;
    for node in NODES {
        let client = project.client(node, 3001)?;
        eventually(&format!("{node} holds what was acknowledged"), READY, || ledger.check(&client).map(|()| true))?;
    }
    project.assert_quiet(&[&[NO_ADMIN, "sync failed"], proxy("haproxy")].concat())?;
    balanced.project.succeeded();
    Ok(())
}
