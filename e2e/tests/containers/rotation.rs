//! A new JWT_SECRET by exactly the commands of docs/OPERATIONS.md, behind HAProxy, while clients write and read: the secret
//! of before is the random one of the first start. tests/faults/rotation.rs is the longer way, without Compose.

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::load::{FIELDS, Load, seed};
use e2e::reads::{NODES, Reads};

use super::balancer::{Balanced, FAULT_LIMIT};
use super::images::Images;
use super::plain::NO_ADMIN;
use super::project::ADMIN;
use super::quiet::proxy;
use super::typed;

/// Where the commands stand.
const TITLE: &str = "## A new JWT_SECRET\n";

/// One round over all nodes, as the commands call it.
const ROUND: &str = "nodes";

/// Writes that have to be acknowledged at each stage.
const WRITES: u64 = 20;

pub fn scenario(images: &Images) -> Result<()> {
    let balanced = Balanced::up("haproxy", images, &[])?;
    let commands = typed::commands(TITLE)?;
    let rounds: Vec<usize> = (0..commands.len()).filter(|at| commands[*at] == ROUND).collect();
    let [first, second] = rounds[..] else { anyhow::bail!("not two rounds: {commands:?}") };
    let function = commands.iter().find(|command| command.starts_with("nodes() {")).context("no function")?;
    ["before", "after"].iter().try_for_each(|name| balanced.admin.create_collection(name, &FIELDS).map(drop))?;

    let old = balanced.admin.clone();
    round(&balanced, &old, "before", &commands[..=first]).context("all learn the new secret")?;
    for node in NODES {
        ensure!(status(&balanced, node, &old)? == 200, "{node} refuses a login of before");
    }
    let new = balanced.project.client("haproxy", 8080)?.login(ADMIN.0, ADMIN.1)?;
    let rest = [std::slice::from_ref(function), &commands[first + 1..=second]].concat();
    round(&balanced, &new, "after", &rest).context("all forget the old secret")?;
    for node in NODES {
        ensure!(status(&balanced, node, &old)? == 401, "{node} still takes the old secret's logins");
        ensure!(status(&balanced, node, &new)? == 200, "{node} refuses the new secret's logins");
    }
    typed::one_by_one(&balanced.project, &commands[second + 1..])?;
    balanced.project.equal(&["posts", "before", "after"])?;
    balanced.project.assert_quiet(&[&[NO_ADMIN, "sync failed"], proxy("haproxy")].concat())?;
    balanced.project.succeeded();
    Ok(())
}

/// Types commands while a user writes and others read. No read fails, and nothing that was acknowledged is lost.
fn round(balanced: &Balanced, user: &Client, collection: &str, commands: &[String]) -> Result<()> {
    let reads = Reads::start(user, "posts");
    let load = Load::start(user.clone(), collection, seed()?);
    load.wait_for(WRITES)?;
    typed::in_one_shell(&balanced.project, commands)?;
    load.wait_for(WRITES).context("clients do not go on")?;
    let ledger = load.stop()?;
    reads.stop_without_master(FAULT_LIMIT)?;
    balanced.project.equal(&["posts", collection])?;
    for node in NODES {
        ledger.check(&balanced.project.client(node, 3001)?).with_context(|| format!("what {node} holds"))?;
    }
    Ok(())
}

/// What a node answers to a user on a route for admins only.
fn status(balanced: &Balanced, node: &str, user: &Client) -> Result<u16> {
    let token = user.token().context("a user with a token")?;
    Ok(balanced.project.client(node, 3001)?.with_token(&token).get("/api/collections")?.status)
}
