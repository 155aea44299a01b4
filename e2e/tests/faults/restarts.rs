//! The master is restarted, and crashes, while it is written to. Nothing that it acknowledged is lost, replicas serve on,
//! and follow again by themselves.

use anyhow::{Context, Result};
use e2e::load::{self, Load};

use super::cluster::Cluster;
use super::node::{NodeReads, assert_equal};

/// Writes before and after each restart.
const SOME: u64 = 30;

/// What an agent says while the master is away.
const AWAY: [&str; 2] = ["\"error_name\":\"master_unreachable\"", "\"error_name\":\"master_overloaded\""];

pub fn scenario(cluster: &Cluster) -> Result<()> {
    let (mut master, mut one, mut two) = (cluster.master()?, cluster.replica("r001")?, cluster.replica("r002")?);
    cluster.expect("r001-agent", &AWAY);
    cluster.expect("r002-agent", &AWAY);
    master.server.revive();
    master.start_ready()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &load::FIELDS)?;
    let load = Load::start(admin, "posts", load::seed()?);
    load.wait_for(SOME)?;
    for replica in [&mut one, &mut two] {
        replica.start_ready()?;
    }
    let reads = [one.read("posts")?, two.read("posts")?];

    master.server.restart()?;
    master.wait_ready()?;
    load.wait_for(SOME).context("after a restart")?;
    master.server.crash()?;
    master.server.wait_revived()?;
    master.wait_ready()?;
    load.wait_for(SOME).context("after a crash")?;
    // The same containers, made anew: what `docker compose up` does when a setting has changed.
    master.stop()?;
    master.start_ready()?;
    load.wait_for(SOME).context("after it was made anew")?;

    let ledger = load.stop()?;
    reads.into_iter().try_for_each(NodeReads::stop)?;
    assert_equal(&master, &[&one, &two])?;
    [&master, &one, &two]
        .iter()
        .try_for_each(|node| ledger.check(&node.client()?).with_context(|| node.name().to_owned()))
}
