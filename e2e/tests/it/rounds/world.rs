use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::cluster::READY;
use e2e::process::{self, Finished};
use e2e::program::Program;
use e2e::proxy::{Network, Proxy};
use e2e::{Cluster, Node, content, eventually, load, offline, programs, shell};
use rand::RngExt;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::json;

use super::judge::{self, Cause, Judge};
use crate::trio::POSTS;

/// What happens in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// SIGKILL to any process, and a restart.
    Kill,
    /// SIGTERM to any process, and a restart.
    Stop,
    /// SIGSTOP to any process for a while.
    Freeze,
    /// The network between a replica and its master breaks, for this round or a few more.
    Network,
    /// An old copy of the master, for later.
    Backup,
    /// The master comes back as that old copy.
    Restore,
    /// Another program changes a replica's file.
    EditReplica,
    /// Another program changes the master's file.
    EditMaster,
    /// A replica is promoted that reaches the living master.
    PromoteCaughtUp,
    /// A replica is promoted after the master was killed.
    PromoteAfterDeath,
    /// A replica is promoted that does not reach the master, which lives.
    PromoteCutOff,
}

/// How many of the nodes may be the master; those after them follow the last of these, whatever it is.
const CANDIDATES: usize = 3;

/// Three nodes, each of which may be the master, and a child of the third. Each has a network of its own towards whom it
/// follows.
pub(super) struct World {
    nodes: Vec<Member>,
    /// Which of them is the master.
    master: usize,
    /// The master's directory as it was once, in its present generation.
    backup: PathBuf,
    /// The last number that was written.
    written: i64,
    judge: Judge,
}

struct Member {
    node: Node,
    network: Proxy,
}

impl Member {
    /// Sets a variable of its processes, for all later starts.
    fn set(&mut self, name: &str, value: &str) {
        self.node.programs().for_each(|program| program.set(name, value));
    }

    /// Runs `vski-server promote` or `demote` with its settings.
    fn succeeds(&self, command: &str) -> Result<()> {
        let done = process::run(command, &mut self.node.server.subcommand(&[command]), READY)?;
        ensure!(done.status.success(), "{command}: {done:?}");
        Ok(())
    }

    /// Runs `vski-sync-agent` with its settings.
    fn agent(&self, arguments: &[&str]) -> Result<Finished> {
        let settings = self.node.agent.as_ref().unwrap_or(&self.node.server).subcommand(&[]);
        let mut command = process::command(programs::agent()?);
        command.args(arguments).envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
        process::run(arguments[0], &mut command, READY)
    }

    /// The same, again and again until it succeeds: a network may have healed just now.
    fn agent_succeeds(&self, arguments: &[&str]) -> Result<()> {
        eventually(&format!("{arguments:?} on {}", self.node.name()), READY, || {
            let done = self.agent(arguments)?;
            ensure!(done.status.success(), "{:?} {:?}", done.stdout, done.stderr);
            Ok(true)
        })
    }
}

impl World {
    /// A master, a replica of one process, one of two, and a replica of that one.
    pub(super) fn start(cluster: &Cluster) -> Result<Self> {
        let mut master = cluster.master("one")?;
        master.start()?;
        master.admin()?.create_collection(POSTS, &load::FIELDS)?;
        let (two, three) = (cluster.embedded("two", &master)?, cluster.external("three", &master)?);
        let four = cluster.embedded("four", &three)?;
        let (url, parent) = (master.server.url(), three.server.url());
        let mut nodes = Vec::new();
        for (node, url) in [(master, &url), (two, &url), (three, &url), (four, &parent)] {
            let network = Proxy::start(url)?;
            let mut member = Member { node, network };
            let (id, address) = (member.node.name().to_owned(), member.network.url());
            [("SYNC_MODE", "stream"), ("REPLICA_ID", &id), ("MASTER_URL", &address)]
                .iter()
                .for_each(|(name, value)| member.set(name, value));
            nodes.push(member);
        }
        for replica in &mut nodes[1..] {
            replica.node.start()?;
            replica.node.wait_ready()?;
        }
        let backup = cluster.path().join("backup");
        let mut world = Self { nodes, master: 0, backup, written: 0, judge: Judge::default() };
        world.write(5)?;
        world.take_backup()?;
        Ok(world)
    }

    pub(super) fn round(&mut self, event: Event, random: &mut StdRng) -> Result<()> {
        if random.random() {
            self.heal();
        }
        match event {
            Event::Kill => {
                let victim = self.program(random)?;
                victim.kill9().and_then(|()| victim.start())?;
            }
            Event::Stop => {
                let victim = self.program(random)?;
                victim.stop().and_then(|()| victim.start())?;
            }
            Event::Freeze => self.freeze(random)?,
            Event::Network => self.break_network(random)?,
            Event::Backup => self.take_backup()?,
            Event::Restore => self.restore()?,
            Event::EditReplica => self.edit_replica(random)?,
            Event::EditMaster => self.edit_master(random)?,
            Event::PromoteCaughtUp | Event::PromoteAfterDeath | Event::PromoteCutOff => self.promote(event, random)?,
        }
        self.write(random.random_range(1..8))
    }

    fn master(&mut self) -> &mut Node {
        &mut self.nodes[self.master].node
    }

    /// Any replica.
    fn replica(&self, random: &mut StdRng) -> usize {
        let others: Vec<usize> = (0..self.nodes.len()).filter(|at| *at != self.master).collect();
        others[random.random_range(0..others.len())]
    }

    /// Any process.
    fn program(&mut self, random: &mut StdRng) -> Result<&mut Program> {
        let mut all: Vec<&mut Program> = self.nodes.iter_mut().flat_map(|member| member.node.programs()).collect();
        let which = random.random_range(0..all.len());
        Ok(all.swap_remove(which))
    }

    fn heal(&self) {
        self.nodes.iter().for_each(|member| member.network.set(Network::Whole));
    }

    /// Some writes. One without an answer is none that anybody counts on.
    fn write(&mut self, count: u32) -> Result<()> {
        let client = self.master().client()?.with_token(&operator());
        for _ in 0..count {
            self.written += 1;
            let record = json!({"n": self.written, "note": format!("note {}", self.written)});
            match client.send(Method::POST, &e2e::client::records(POSTS), Some(&record)) {
                Ok(reply) if reply.status == 200 => self.judge.acknowledge(self.written),
                Ok(reply) => ensure!(reply.status == 503, "a write was answered {}: {}", reply.status, reply.body),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Every replica answers from what it has, whatever became of its master.
    fn replicas_serve(&self) -> Result<()> {
        for (_, member) in self.nodes.iter().enumerate().filter(|(at, _)| *at != self.master) {
            let reply = member.node.client()?.get(&format!("{}?perPage=1", e2e::client::records(POSTS)))?;
            ensure!(reply.status == 200, "{} answers {}: {}", member.node.name(), reply.status, reply.body);
        }
        Ok(())
    }

    fn freeze(&mut self, random: &mut StdRng) -> Result<()> {
        let at = random.random_range(0..self.nodes.len());
        if at == self.master {
            // No write: each would wait for its time-out.
            self.master().server.process()?.pause()?;
            let served = self.replicas_serve();
            self.master().server.process()?.resume()?;
            return served;
        }
        // The last of its processes: the one that syncs.
        let frozen = self.nodes[at].node.programs().last().context("a process")?;
        frozen.process()?.pause()?;
        let written = self.write(3);
        let frozen = self.nodes[at].node.programs().last().context("a process")?;
        frozen.process()?.resume()?;
        written
    }

    fn break_network(&mut self, random: &mut StdRng) -> Result<()> {
        let network = match random.random_range(0..3) {
            0 => Network::Refuses,
            1 => Network::Silent,
            _ => Network::CutAfter(random.random_range(0..4_000)),
        };
        let at = self.replica(random);
        println!("the network of {}: {network:?}", self.nodes[at].node.name());
        self.nodes[at].network.set(network);
        self.write(3)?;
        self.replicas_serve()
    }

    /// Kills the master for it: a copy of a running one would be torn.
    fn take_backup(&mut self) -> Result<()> {
        self.master().kill9()?;
        if self.backup.exists() {
            std::fs::remove_dir_all(&self.backup)?;
        }
        offline::copy(self.nodes[self.master].node.dir(), &self.backup)?;
        self.master().start()
    }

    fn restore(&mut self) -> Result<()> {
        self.master().kill9()?;
        let replicas = self.nodes.iter().enumerate().filter(|(at, _)| *at != self.master);
        let replicas: Vec<&Node> = replicas.map(|(_, member)| &member.node).collect();
        let master = &self.nodes[self.master].node;
        self.judge.collect_reports(master)?;
        offline::restore(&self.backup, master.dir())?;
        self.judge.leave_behind(Cause::Restore, &judge::numbers(master)?, &replicas)?;
        self.master().start()
    }

    fn edit_replica(&mut self, random: &mut StdRng) -> Result<()> {
        let (at, n) = (self.replica(random), random.random_range(1..=self.written));
        self.judge.touch(n);
        let edit = format!("UPDATE {POSTS} SET note = 'edited' WHERE n = {n}");
        shell::sqlite3(&self.nodes[at].node.file("default"), &edit).map(drop)
    }

    /// Begins a new generation, so that an older backup would be a stale master from now on.
    fn edit_master(&mut self, random: &mut StdRng) -> Result<()> {
        let n = random.random_range(1..=self.written);
        self.judge.delete(n);
        let edit = format!(
            "DELETE FROM {POSTS} WHERE n = {n};
             INSERT INTO {POSTS} (id, created, updated, n) VALUES (lower(hex(randomblob(7))) || 'z', '', '', 0)"
        );
        shell::sqlite3(&self.master().file("default"), &edit)?;
        let client = self.master().client()?.with_token(&operator());
        eventually("the master takes a write and notices", READY, || {
            let reply = client.send(Method::POST, &e2e::client::records(POSTS), Some(&json!({"n": 0})))?;
            Ok(reply.status == 200)
        })?;
        self.take_backup()
    }

    /// A replica takes the master's place, which comes back as a replica; the third follows the new one. The child stays
    /// with its parent.
    fn promote(&mut self, event: Event, random: &mut StdRng) -> Result<()> {
        let candidates: Vec<usize> = (0..CANDIDATES).filter(|at| *at != self.master).collect();
        let (old, new) = (self.master, candidates[random.random_range(0..candidates.len())]);
        self.nodes[new].network.set(Network::Whole);
        if event != Event::PromoteCaughtUp {
            // As an operator would: not one that never heard of the last promotion, or two would open one generation.
            self.nodes[new].agent_succeeds(&["sync"])?;
            self.nodes[new].network.set(Network::Refuses);
            self.write(random.random_range(0..5))?;
        }
        if event == Event::PromoteAfterDeath {
            self.master().kill9()?;
        }
        println!("{} takes the place of {}", self.nodes[new].node.name(), self.nodes[old].node.name());
        self.nodes[new].succeeds("promote")?;
        self.nodes[new].node.stop()?;
        let others: Vec<&Node> =
            self.nodes.iter().enumerate().filter(|(at, _)| *at != new).map(|(_, member)| &member.node).collect();
        let counting = judge::numbers(&self.nodes[new].node)?;
        if event == Event::PromoteCaughtUp {
            let lost = self.judge.missing(&counting);
            ensure!(lost.is_empty(), "the old master lived, and {lost:?} were not fetched from it");
        }
        self.judge.leave_behind(Cause::Promotion, &counting, &others)?;
        self.nodes[new].set("REPLICA_MODE", "master");
        self.nodes[new].node.start()?;

        if event != Event::PromoteAfterDeath {
            if random.random() { self.master().kill9()? } else { self.master().stop()? }
        }
        self.nodes[old].succeeds("demote")?;
        self.nodes[old].set("REPLICA_MODE", "replica");
        self.master = new;
        let url = self.nodes[new].node.server.url();
        self.nodes[..CANDIDATES].iter().try_for_each(|member| member.network.lead_to(&url))?;
        self.nodes[old].network.set(Network::Whole);
        self.nodes[old].node.start()?;
        self.write(2)?;
        self.replicas_serve()?;
        self.take_backup()
    }

    /// Every replica compares itself with the node that it follows, row by row, and mends what nobody has noticed yet. Then the files
    /// are equal, `verify` says so, and the judge is content.
    pub(super) fn prove(mut self) -> Result<()> {
        self.heal();
        let replicas: Vec<&Member> =
            self.nodes.iter().enumerate().filter(|(at, _)| *at != self.master).map(|(_, member)| member).collect();
        for member in &replicas {
            member.agent_succeeds(&["verify", "--repair"])?;
        }
        let dirs: Vec<_> = self.nodes.iter().map(|member| member.node.dir()).collect();
        content::wait_all_equal(&dirs, READY)?;
        for member in &replicas {
            let verified = member.agent(&["verify"])?;
            ensure!(verified.status.code() == Some(0), "{:?} {:?}", verified.stdout, verified.stderr);
        }
        for Member { node, .. } in &self.nodes {
            self.judge.collect_reports(node)?;
            let panics: Vec<String> =
                std::iter::once(&node.server).chain(&node.agent).flat_map(Program::panics).collect();
            ensure!(panics.is_empty(), "{}: {}", node.name(), panics.join("\n"));
        }
        self.judge.judge(&self.nodes[self.master].node)
    }
}

fn operator() -> String {
    let secrets = vski_replication::token::Secrets::new(e2e::client::SECRET, None);
    secrets.mint(&vski_replication::token::Claims::operator())
}
