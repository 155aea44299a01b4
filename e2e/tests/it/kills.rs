//! Each round kills one process at a random moment and starts it again at once, so that it meets whatever the others
//! are doing then. `VSKI_SEED` repeats a run as far as the machine lets it; `VSKI_ROUNDS` makes it longer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::load::{self, Load};
use e2e::program::Program;
use e2e::{Cluster, Node};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::trio::{POSTS, Trio};

const ROUNDS: u32 = 60;
const WRITERS: u64 = 4;

/// A round ends after at most that many acknowledged writes, and then up to this part of the next one.
const MOST_WRITES: u64 = 60;
const PART_OF_A_WRITE: Duration = Duration::from_millis(3);

#[derive(Clone, Copy, Debug)]
enum Victim {
    Master,
    EmbeddedReplica,
    ReplicaServer,
    Agent,
}

#[test]
fn no_acknowledged_write_is_lost_and_all_nodes_end_equal_whoever_is_killed() -> Result<()> {
    let seed = load::seed()?;
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Cluster::new()?;
    let mut trio = Trio::start(&cluster, Node::start)?;
    let loads = loads(&trio, seed)?;
    for round in 1..=rounds()? {
        let victim = match random.random_range(0..4) {
            0 => Victim::Master,
            1 => Victim::EmbeddedReplica,
            2 => Victim::ReplicaServer,
            _ => Victim::Agent,
        };
        loads[0].wait_for(random.random_range(1..=MOST_WRITES))?;
        pass(random.random_range(Duration::ZERO..PART_OF_A_WRITE));
        println!("round {round}: {victim:?}");
        let victim = program(&mut trio, victim)?;
        victim.kill9().and_then(|()| victim.start()).with_context(|| format!("round {round}"))?;
    }
    let ledgers = loads.into_iter().map(Load::stop).collect::<Result<Vec<_>>>()?;

    trio.wait_equal()?;
    for node in trio.nodes() {
        node.wait_ready()?;
        for ledger in &ledgers {
            ledger.check(&node.client()?).with_context(|| format!("on {}", node.name()))?;
        }
        let panics: Vec<String> = std::iter::once(&node.server).chain(&node.agent).flat_map(Program::panics).collect();
        ensure!(panics.is_empty(), "{}: {}", node.name(), panics.join("\n"));
    }
    Ok(())
}

/// Several writers, each to a collection of its own, so that transactions are shared.
fn loads(trio: &Trio, seed: u64) -> Result<Vec<Load>> {
    let start = |number: u64| {
        let name = if number == 0 { POSTS.to_owned() } else { format!("{POSTS}{number}") };
        if number > 0 {
            trio.admin.create_collection(&name, &load::FIELDS)?;
        }
        Ok(Load::start(trio.admin.clone(), &name, seed.wrapping_add(number)))
    };
    (0..WRITERS).map(start).collect()
}

fn rounds() -> Result<u32> {
    match std::env::var("VSKI_ROUNDS") {
        Ok(text) => text.parse().with_context(|| format!("VSKI_ROUNDS={text} is no number")),
        Err(_) => Ok(ROUNDS),
    }
}

fn program(trio: &mut Trio, victim: Victim) -> Result<&mut Program> {
    match victim {
        Victim::Master => Ok(&mut trio.master.server),
        Victim::EmbeddedReplica => Ok(&mut trio.embedded.server),
        Victim::ReplicaServer => Ok(&mut trio.external.server),
        Victim::Agent => trio.external.agent.as_mut().context("the external replica has an agent"),
    }
}

/// Lets a moment pass that is shorter than what a sleeping thread can be woken after.
fn pass(moment: Duration) {
    let end = Instant::now() + moment;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}
