//! An agent dies in the middle of an apply. What it had committed stays, in whole entries, and the replica serves on; who
//! comes after it, the scenario's next container or Docker's restart, ends equal.

use anyhow::{Context, Result, ensure};
use e2e::cluster::READY;
use e2e::{eventually, load};

use super::cluster::Cluster;
use super::node::{Node, assert_equal};
use super::rows;

/// Rows of one entry.
const ENTRY: u64 = 2000;

/// Entries of a load that takes several transactions to apply.
const ENTRIES: u64 = 60;

pub fn scenario(cluster: &Cluster) -> Result<()> {
    let (mut master, mut replica) = (cluster.master()?, cluster.replica("r001")?);
    master.start_ready()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &load::FIELDS)?;
    rows::insert(&admin, "posts", 0, ENTRY)?;
    replica.start_ready()?;
    assert_equal(&master, &[&replica])?;
    let reads = replica.read("posts")?;
    within_a_transaction(&master, &mut replica)?;
    between_transactions(&master, &mut replica)?;
    assert_equal(&master, &[&replica])?;
    reads.stop()
}

/// It kills itself before it commits, where a debug build can be told to, and is started again by the scenario.
fn within_a_transaction(master: &Node, replica: &mut Node) -> Result<()> {
    let admin = master.admin()?;
    replica.agent()?.stop()?;
    rows::insert(&admin, "posts", ENTRY, ENTRY)?;
    replica.agent()?.die_at("apply:before-commit")?;
    let found = replica.client()?.count("posts")?;
    ensure!(found == ENTRY, "{found} rows of an apply that was not committed are served");
    replica.agent()?.start()?;
    assert_equal(master, &[replica]).context("killed before its commit")
}

/// Its process on this machine is killed while a large load is applied, and Docker starts it again.
fn between_transactions(master: &Node, replica: &mut Node) -> Result<()> {
    let (admin, client) = (master.admin()?, replica.client()?);
    let before = client.count("posts")?;
    replica.agent()?.stop()?;
    (0..ENTRIES).try_for_each(|entry| rows::insert(&admin, "posts", before + entry * ENTRY, ENTRY))?;
    let agent = replica.agent()?;
    agent.revive();
    agent.start()?;
    eventually("a part is applied", READY, || Ok(client.count("posts")? > before))?;
    agent.crash()?;
    let applied = client.count("posts")? - before;
    println!("{applied} of {} rows were applied when the agent was killed", ENTRIES * ENTRY);
    ensure!(applied.is_multiple_of(ENTRY), "a part of an entry is served: {applied} rows");
    agent.wait_revived()?;
    assert_equal(master, &[replica]).context("started again by Docker")
}
