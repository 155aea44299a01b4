//! The link of one container to a network: less bandwidth, packets that get lost, connections that are reset. It is
//! changed from outside, in the container's network namespace, so that its programs know nothing. Docker's own rules there
//! stay as they are. What was changed ends with the container at the latest.
//!
//! Needs root (or sudo without a password), and nsenter, ip, tc and iptables of this machine. Which of a container's
//! interfaces leads to the network is found out at each change, because one that was cut and healed comes back on another.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use crate::docker;

/// Bytes that may leave at once through a narrow link.
const BURST: &str = "32kb";

/// How long a packet waits at a narrow link before it is dropped.
const PATIENCE: &str = "400ms";

/// The network namespace of a running container, and a network of 256 addresses to whose traffic the changes apply.
#[derive(Clone, Debug)]
pub struct Link {
    /// Process id of the container, as this machine sees it.
    pid: u32,
    /// Any address of the network but the container's own.
    peer: Ipv4Addr,
}

/// What is wrong with a link, until this is dropped.
#[derive(Debug)]
pub struct Trouble {
    link: Link,
    /// Commands that put it right, each a program and its arguments.
    remedies: Vec<Vec<String>>,
}

/// What happens to a part of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They vanish, in both directions.
    Lost,
    /// Those that come to the container are answered by a reset of their connection.
    Reset,
}

impl Link {
    /// The link of the container whose process is `pid` to the network that `peer` is in.
    #[must_use]
    pub fn new(pid: u32, peer: Ipv4Addr) -> Self {
        Self { pid, peer }
    }

    /// Lets `kilobits` a second through at most, in the direction from the container.
    pub fn narrow(&self, kilobits: u32) -> Result<Trouble> {
        let device = self.device()?;
        let rate = format!("{kilobits}kbit");
        let shape = ["tc", "qdisc", "add", "dev", &device, "root", "tbf", "rate", &rate, "burst", BURST];
        self.run(&owned(&[&shape[..], &["latency", PATIENCE]].concat()))?;
        let remedies = vec![owned(&["tc", "qdisc", "del", "dev", &device, "root"])];
        Ok(Trouble { link: self.clone(), remedies })
    }

    /// Lets `fate` happen to each packet with a probability between 0 and 1.
    pub fn lossy(&self, fate: Fate, probability: f64) -> Result<Trouble> {
        let (peer, chance) = (format!("{}/24", self.peer), probability.to_string());
        let mut trouble = Trouble { link: self.clone(), remedies: Vec::new() };
        for (chain, side) in fate.directions() {
            let rule = [chain, "--protocol", "tcp", side, &peer];
            let chosen = ["--match", "statistic", "--mode", "random", "--probability", &chance];
            let rule = [&rule[..], &chosen, fate.target()].concat();
            self.run(&owned(&[&["iptables", "--wait", "--append"], &rule[..]].concat()))?;
            trouble.remedies.push(owned(&[&["iptables", "--wait", "--delete"], &rule[..]].concat()));
        }
        Ok(trouble)
    }

    /// The interface that leads to the network.
    fn device(&self) -> Result<String> {
        let route = self.run(&owned(&["ip", "route", "get", &self.peer.to_string()]))?;
        let device = route.split_whitespace().skip_while(|word| *word != "dev").nth(1);
        device.map(str::to_owned).with_context(|| format!("no interface leads to {}: {route}", self.peer))
    }

    /// Runs a command of this machine in the container's network namespace.
    fn run(&self, command: &[String]) -> Result<String> {
        let mut entered = docker::as_root("nsenter");
        docker::finish(entered.args(["--target", &self.pid.to_string(), "--net"]).args(command))
    }
}

impl Fate {
    /// Chains of rules, and where the peer stands in their packets.
    fn directions(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Lost => &[("INPUT", "--source"), ("OUTPUT", "--destination")],
            // A reset of what leaves would reach the container itself, and its peer would wait in silence.
            Self::Reset => &[("INPUT", "--source")],
        }
    }

    fn target(self) -> &'static [&'static str] {
        match self {
            Self::Lost => &["--jump", "DROP"],
            Self::Reset => &["--jump", "REJECT", "--reject-with", "tcp-reset"],
        }
    }
}

impl Trouble {
    /// Packets that it has struck, of a lossy link.
    pub fn struck(&self) -> Result<u64> {
        let listed = self.link.run(&owned(&["iptables", "--wait", "--list", "--verbose", "--numeric", "--exact"]))?;
        let rules = listed.lines().filter(|line| line.contains("statistic"));
        let counts = rules.map(|line| line.split_whitespace().next().unwrap_or_default().parse::<u64>());
        counts.sum::<Result<u64, _>>().context("count packets")
    }

    /// Puts the link right. Dropping does the same and hides that it failed, as it does where the container is gone.
    pub fn heal(mut self) -> Result<()> {
        std::mem::take(&mut self.remedies).iter().try_for_each(|remedy| self.link.run(remedy).map(drop))
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        for remedy in &self.remedies {
            let _ = self.link.run(remedy);
        }
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
