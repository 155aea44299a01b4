//! Links between master and replicas that are slow, narrow, or lose what they carry.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::cluster::READY;
use e2e::eventually;
use e2e::link::{Fate, Link, Trouble};
use e2e::load::{self, FIELDS, Load};
use e2e::proxy::{Network, Proxy};

use super::cluster::Cluster;
use super::node::{Node, assert_equal};
use super::rows;
use super::told::{address, agent_client, assert_copied_once, assert_lag_is_true, metric};

/// How long each byte takes to the replica that is far away, one way.
const FAR: Duration = Duration::from_millis(100);

/// What gets through to the other one, kilobits a second.
const NARROW: u32 = 16_000;

/// Rows of 300 bytes that a slow link carries at first, together with their entry, and a lossy one.
const FEW: u64 = 6_000;
const MANY: u64 = 40_000;

/// Parts of all packets that vanish, or end their connection.
const LOST: f64 = 0.03;
const RESET: f64 = 0.01;

/// How long a first copy may take over such a link, on a busy machine.
const COPIED: Duration = Duration::from_secs(300);

/// One replica is far away, the other one at the end of a narrow link. Neither may state a lag that is too small.
pub fn slow(cluster: &Cluster) -> Result<()> {
    let master = filled_master(cluster, FEW)?;
    let gateway = cluster.gateway()?.parse()?;
    let proxy = Proxy::start_on(std::net::IpAddr::V4(gateway), &format!("http://{}:3001", address(&master.server)?))?;
    proxy.set(Network::Slow(FAR));
    let narrow = Link::new(master.server.pid()?, gateway).narrow(NARROW)?;
    let mut far = cluster.replica("far")?.env("MASTER_URL", &proxy.url());
    let mut near = cluster.replica("near")?;
    let admin = master.admin()?;
    for replica in [&mut far, &mut near] {
        replica.start_ready()?;
        assert_lag_is_true(&admin, &replica.client()?, "posts", 10)?;
    }
    // More at once than the links carry in a moment.
    rows::insert(&admin, "posts", FEW + 1, FEW)?;
    for replica in [&far, &near] {
        assert_lag_is_true(&admin, &replica.client()?, "posts", 3)?;
        let client = replica.client()?;
        eventually("the lag is small", READY, || Ok(client.get("/readyz?max_lag=5s")?.status == 200))?;
    }
    assert_equal(&master, &[&far, &near])?;
    narrow.heal()?;
    [&mut far, &mut near].into_iter().try_for_each(|replica| assert_copied_once(replica.agent()?))
}

/// Packets vanish while one replica is copied, and connections are reset while the other is; then both happens while both
/// follow.
pub fn lossy(cluster: &Cluster) -> Result<()> {
    for name in ["r001-agent", "r002-agent"] {
        cluster.expect(name, &["sync failed"]);
    }
    let master = filled_master(cluster, MANY)?;
    let link = Link::new(master.server.pid()?, cluster.gateway()?.parse()?);
    let mut replicas = [cluster.replica("r001")?, cluster.replica("r002")?];
    for (replica, (fate, chance)) in replicas.iter_mut().zip([(Fate::Lost, LOST), (Fate::Reset, RESET)]) {
        let trouble = link.lossy(fate, chance)?;
        replica.start()?;
        let client = replica.client()?;
        eventually("the first copy is whole", COPIED, || Ok(client.get("/readyz")?.status == 200))?;
        // A copy takes few packets that come to the master: now and then all of them get through.
        eventually(&format!("a packet meets {fate:?}"), COPIED, || {
            if trouble.struck()? == 0 {
                replica.agent_command(&["verify"])?;
            }
            Ok(trouble.struck()? > 0)
        })?;
        trouble.heal()?;
    }
    let copied = metric(&agent_client(replicas[0].agent()?)?, "vski_sync_bootstrap_bytes_total{db=\"default\"}")?;
    ensure!(copied > 20e6, "{copied} bytes are not enough to prove anything");

    let admin = master.admin()?;
    admin.create_collection("load", &FIELDS)?;
    let troubles = [link.lossy(Fate::Lost, LOST)?, link.lossy(Fate::Reset, RESET)?];
    let load = Load::start(admin, "load", load::seed()?);
    load.wait_for(100)?;
    let ledger = load.stop()?;
    for replica in &replicas {
        let client = replica.client()?;
        // The link may strike our own request, too.
        let head = eventually("the master tells its head", READY, || master.client()?.status_of("default").map(Some))?;
        eventually("the replica comes to the head", READY, || {
            Ok(client.status_of("default")?["version"] == head["version"])
        })?;
    }
    ensure!(troubles.iter().map(Trouble::struck).sum::<Result<u64>>()? > 0, "no packet was struck");
    drop(troubles);
    assert_equal(&master, &replicas.each_ref())?;
    replicas.iter().try_for_each(|replica| ledger.check(&replica.client()?))?;
    replicas.iter_mut().try_for_each(|replica| assert_copied_once(replica.agent()?))
}

/// A running master with that many rows.
fn filled_master(cluster: &Cluster, rows: u64) -> Result<Node> {
    let mut master = cluster.master()?;
    master.start_ready()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("n", "number"), ("note", "text")])?;
    rows::insert(&admin, "posts", 1, rows)?;
    Ok(master)
}
