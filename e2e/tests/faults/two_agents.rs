//! Two agents are started over one volume, by mistake or as a spare: one works, the other one says why it does not, and
//! is there when the first one dies, since Docker starts it again and again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::READY;
use e2e::eventually;
use e2e::load::{self, FIELDS, Load};

use super::cluster::Cluster;
use super::node::assert_equal;
use super::told::{agent_client, assert_copied_once, error_series, metric};

/// How long the spare may take to be there: Docker waits for up to a minute before it starts one anew that has often ended.
const TAKEN_OVER: Duration = Duration::from_secs(180);

pub fn scenario(cluster: &Cluster) -> Result<()> {
    let (mut master, mut replica) = (cluster.master()?, cluster.replica("r001")?);
    master.start_ready()?;
    let admin = master.admin()?;
    admin.create_collection("load", &FIELDS)?;
    replica.start_ready()?;
    let load = Load::start(admin, "load", load::seed()?);

    let mut spare = replica.agent()?.twin("r001-spare");
    spare.revive();
    spare.start()?;
    eventually("the spare has been refused twice", READY, || {
        let refused = spare.lines().iter().filter(|line| line.contains("in use by")).count();
        Ok(refused >= 2)
    })?;
    let lines = spare.lines();
    let refused = lines.iter().find(|line| line.contains("in use by")).context("a refusal")?;
    for told in ["/data is in use by a running agent", "stop that process first, or set DATA_DIR to another directory"]
    {
        ensure!(refused.contains(told), "{told:?} is not told: {refused}");
    }
    // While it runs again there is no exit code.
    eventually("its exit code tells of a mistake", READY, || Ok(spare.fact("{{.State.ExitCode}}")? == "2"))?;
    load.wait_for(100)?;
    let client = replica.client()?;
    eventually("the first one goes on", READY, || Ok(client.get("/readyz?max_lag=5s")?.status == 200))?;
    let agent = agent_client(replica.agent()?)?;
    for name in ["database_busy", "meddled", "sqlite_failed"] {
        ensure!(metric(&agent, &error_series(name))? < 0.5, "the first one met {name}");
    }
    assert_copied_once(replica.agent()?)?;

    replica.agent()?.crash()?;
    load.wait_for(100)?;
    eventually("the spare takes over", TAKEN_OVER, || {
        Ok(spare.lines().iter().any(|line| line.contains("agent listening")))
    })?;
    let ledger = load.stop()?;
    let first = replica.agent.replace(spare);
    assert_equal(&master, &[&replica])?;
    ledger.check(&client)?;
    drop(first);
    eventually("the lag is small again", READY, || Ok(client.get("/readyz?max_lag=5s")?.status == 200))
}
