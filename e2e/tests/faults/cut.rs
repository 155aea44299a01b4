//! The network between master and replica is cut while the master is written to, and healed.

use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::cluster::READY;
use e2e::eventually;
use e2e::load::{self, FIELDS, Load};

use super::cluster::Cluster;
use super::node::assert_equal;
use super::told::{ROUNDING, agent_client, assert_copied_once, lag, metric};

/// Lag at which the replica is told of as still cut off: more than any healthy one has, seconds.
const CUT_OFF: f64 = 8.0;

/// The lag that the replica's server tells in its metrics, and the one that the agent does.
const SERVERS_LAG: &str = "vski_replica_lag_seconds{db=\"default\"}";
const AGENTS_LAG: &str = "vski_sync_lag_seconds{db=\"default\"}";

pub fn scenario(cluster: &Cluster) -> Result<()> {
    let (mut master, mut replica) = (cluster.master()?, cluster.replica("r001")?);
    cluster.expect("r001-agent", &["sync failed"]);
    master.start_ready()?;
    let admin = master.admin()?;
    admin.create_collection("load", &FIELDS)?;
    replica.start_ready()?;
    let client = replica.client()?;
    let agent = agent_client(replica.agent()?)?;
    let load = Load::start(admin.clone(), "load", load::seed()?);
    load.wait_for(100)?;
    eventually("the replica follows", READY, || Ok(client.count("load")? > 0))?;

    let (before, lag_before) = (Instant::now(), lag(&client)?);
    cluster.cut(&master.server)?;
    let cut = Instant::now();
    let mut lies = Vec::new();
    eventually("the replica is known to be cut off", READY, || {
        replica.assert_answers("load")?;
        let at_least = cut.elapsed().as_secs_f64() - ROUNDING;
        let told = [lag(&client)?, metric(&client, SERVERS_LAG)?, metric(&agent, AGENTS_LAG)?];
        let at_most = lag_before + before.elapsed().as_secs_f64() + ROUNDING;
        lies.extend(
            told.iter().filter(|told| !(at_least..=at_most).contains(*told)).map(|told| (at_least, *told, at_most)),
        );
        Ok(told[0] > CUT_OFF)
    })?;
    ensure!(lies.is_empty(), "lags that cannot be, and between what they should be: {lies:?}");
    ensure!(client.get("/readyz?max_lag=5s")?.status == 503, "it says that it is fresh");
    client.get("/readyz")?.ok()?;
    load.wait_for(100)?;
    ensure!(admin.count("load")? != client.count("load")?, "the network is not cut");

    cluster.heal(&master.server)?;
    load.wait_for(50)?;
    let ledger = load.stop()?;
    assert_equal(&master, &[&replica])?;
    for node in [&master, &replica] {
        ledger.check(&node.client()?)?;
    }
    eventually("the lag is small again", READY, || Ok(client.get("/readyz?max_lag=5s")?.status == 200))?;
    assert_copied_once(replica.agent()?)
}
