//! Random rounds of everything that happens to nodes: kills, freezes, a master restored from an old copy, edits by other
//! programs on both sides. Whatever the order, at the end every node proves by `verify` that it holds the same.
//! `VSKI_SEED` repeats a run as far as the machine lets it; `VSKI_ROUNDS` makes it longer.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::cluster::READY;
use e2e::program::Program;
use e2e::{Cluster, Node, content, eventually, load, offline, process, programs};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::json;

use crate::trio::{POSTS, Trio};

const ROUNDS: u32 = 40;

struct World {
    trio: Trio,
    /// Follows the external replica.
    child: Node,
    random: StdRng,
    /// The master's directory as it was once.
    backup: PathBuf,
    written: u64,
}

#[test]
fn whatever_happens_to_the_nodes_they_prove_equal_at_the_end() -> Result<()> {
    let cluster = Cluster::new()?;
    let trio = Trio::start(&cluster, Node::start)?;
    let mut child = cluster.embedded("child", &trio.external)?;
    child.start()?;
    child.wait_ready()?;
    let random = StdRng::seed_from_u64(load::seed()?);
    let mut world = World { trio, child, random, backup: cluster.path().join("backup"), written: 0 };
    world.write()?;
    world.take_backup()?;
    for round in 1..=rounds()? {
        world.round().with_context(|| format!("round {round}"))?;
    }
    world.prove()
}

fn rounds() -> Result<u32> {
    match std::env::var("VSKI_ROUNDS") {
        Ok(text) => text.parse().with_context(|| format!("VSKI_ROUNDS={text} is no number")),
        Err(_) => Ok(ROUNDS),
    }
}

impl World {
    fn round(&mut self) -> Result<()> {
        let event = self.random.random_range(0..10);
        println!("event {event}");
        match event {
            0..4 => {
                let victim = self.victim()?;
                victim.kill9()?;
                victim.start()?;
            }
            4..6 => {
                // Not the master: a frozen one answers nothing, and each write would wait for its time-out.
                let which = self.random.random_range(1..5);
                self.program(which)?.process()?.pause()?;
                let written = self.write();
                self.program(which)?.process()?.resume()?;
                written?;
            }
            6 => self.take_backup()?,
            7 => {
                self.trio.master.kill9()?;
                offline::restore(&self.backup, self.trio.master.dir())?;
                self.trio.master.start()?;
            }
            8 => self.edit_replica()?,
            _ => self.edit_master()?,
        }
        self.write()
    }

    fn victim(&mut self) -> Result<&mut Program> {
        let which = self.random.random_range(0..5);
        self.program(which)
    }

    fn program(&mut self, which: u8) -> Result<&mut Program> {
        match which {
            0 => Ok(&mut self.trio.master.server),
            1 => Ok(&mut self.trio.embedded.server),
            2 => Ok(&mut self.trio.external.server),
            3 => Ok(&mut self.child.server),
            _ => self.trio.external.agent.as_mut().context("the external replica has an agent"),
        }
    }

    /// Some writes. One without an answer is none that anybody counts on.
    fn write(&mut self) -> Result<()> {
        let client = self.trio.master.client()?.with_token(&operator());
        for _ in 0..self.random.random_range(1..8) {
            self.written += 1;
            let record = json!({"n": self.written, "note": format!("note {}", self.written)});
            let sent = client.send(Method::POST, &e2e::client::records(POSTS), Some(&record));
            ensure!(
                sent.is_err() || sent.is_ok_and(|reply| [200, 503].contains(&reply.status)),
                "an answer of another kind"
            );
        }
        Ok(())
    }

    /// Kills the master for it: a copy of a running one would be torn.
    fn take_backup(&mut self) -> Result<()> {
        self.trio.master.kill9()?;
        if self.backup.exists() {
            std::fs::remove_dir_all(&self.backup)?;
        }
        offline::copy(self.trio.master.dir(), &self.backup)?;
        self.trio.master.start()
    }

    fn edit_replica(&mut self) -> Result<()> {
        let number = self.random.random_range(1..=self.written);
        edit(&self.trio.external, &format!("UPDATE {POSTS} SET note = 'edited' WHERE n = {number}"))
    }

    /// Begins a new generation, so an older backup would be a stale master from now on.
    fn edit_master(&mut self) -> Result<()> {
        let number = self.random.random_range(1..=self.written);
        edit(
            &self.trio.master,
            &format!(
                "DELETE FROM {POSTS} WHERE n = {number}; INSERT INTO {POSTS} (id, created, updated, n) VALUES (hex(randomblob(7)) || 'z', '', '', 0)"
            ),
        )?;
        let client = self.trio.master.client()?.with_token(&operator());
        eventually("the master takes a write and notices", READY, || {
            let reply = client.send(Method::POST, &e2e::client::records(POSTS), Some(&json!({"n": 0})))?;
            Ok(reply.status == 200)
        })?;
        self.take_backup()
    }

    /// Every replica compares itself with the node that it follows, row by row, and mends what nobody has noticed yet.
    fn prove(&mut self) -> Result<()> {
        for (replica, program) in [
            ("embedded", &self.trio.embedded.server),
            ("external", self.trio.external.agent.as_ref().context("an agent")?),
            ("child", &self.child.server),
        ] {
            let settings = program.subcommand(&["verify"]);
            eventually(&format!("{replica} is verified"), READY, || {
                let mut command = process::command(programs::agent()?);
                command.args(["verify", "--repair"]);
                command.envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
                let verified = process::run("verify", &mut command, READY)?;
                ensure!(verified.status.success(), "{:?} {:?}", verified.stdout, verified.stderr);
                Ok(true)
            })?;
        }
        self.trio.wait_equal()?;
        content::wait_all_equal(&[self.trio.external.dir(), self.child.dir()], READY)
    }
}

fn edit(node: &Node, sql: &str) -> Result<()> {
    let conn = Connection::open(node.file("default"))?;
    conn.busy_timeout(READY)?;
    conn.execute_batch(sql).with_context(|| sql.to_owned())
}

fn operator() -> String {
    let secrets = vski_replication::token::Secrets::new(e2e::client::SECRET, None);
    secrets.mint(&vski_replication::token::Claims::operator())
}
