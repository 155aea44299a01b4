//! A master and a replica of two processes that streams, both running.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Cluster, Node, eventually, offline};

use crate::posts;

/// How long the replica may take to reach the master's head.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The two nodes. The last field is the place where they lie.
pub struct Pair {
    pub master: Node,
    pub replica: Node,
    pub cluster: Cluster,
}

impl Pair {
    /// Starts both, with the collection of the benchmark, and waits until the replica serves it.
    pub fn start() -> Result<Self> {
        let cluster = Cluster::new()?;
        let mut master = cluster.master("master")?;
        master.start()?;
        posts::create(&master.admin()?)?;
        let mut replica = cluster.external("replica", &master)?.env("SYNC_MODE", "stream");
        replica.start()?;
        let pair = Self { master, replica, cluster };
        pair.replica.wait_ready()?;
        pair.wait_equal()?;
        Ok(pair)
    }

    /// Waits until the replica's log ends where the master's does.
    pub fn wait_equal(&self) -> Result<()> {
        eventually("the replica is at the master's head", PATIENCE, || {
            Ok(offline::position(&self.replica.file("default"))? == offline::position(&self.master.file("default"))?)
        })
    }

    /// The process of the replica's agent.
    pub fn agent_pid(&mut self) -> Result<u32> {
        Ok(self.replica.agent.as_mut().context("an agent of its own")?.process()?.pid())
    }
}
