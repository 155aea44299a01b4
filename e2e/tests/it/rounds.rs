//! Random rounds of everything that happens to nodes: kills, stops, freezes, networks that break, a master restored from
//! an old copy, edits by other programs on both sides, promotions. Whatever the order, at the end every node proves by
//! `verify` that it holds the same, and a judge finds every acknowledged write: in the databases, or, where a restore or
//! a promotion has cost it, in the report of a node that had it.
//!
//! Several runs share the rounds, so that they go on side by side. `VSKI_SEED` repeats them as far as the machine lets
//! it; `VSKI_ROUNDS` makes them longer.

use anyhow::{Context, Result};
use e2e::{Cluster, load};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// What was acknowledged, and what may be missing.
mod judge;

/// Nodes in changing roles, and what happens to them.
mod world;

use world::{Event, World};

/// Rounds of all runs together.
const ROUNDS: u32 = 200;
const RUNS: u32 = 4;

/// Every event comes as often as it is here before any comes again, in an order of chance.
const DECK: [Event; 20] = [
    Event::Kill,
    Event::Kill,
    Event::Kill,
    Event::Kill,
    Event::Stop,
    Event::Freeze,
    Event::Freeze,
    Event::Network,
    Event::Network,
    Event::Network,
    Event::Network,
    Event::Backup,
    Event::Restore,
    Event::Restore,
    Event::EditReplica,
    Event::EditReplica,
    Event::EditMaster,
    Event::PromoteCaughtUp,
    Event::PromoteAfterDeath,
    Event::PromoteCutOff,
];

fn run(number: u32) -> Result<()> {
    let mut random = StdRng::seed_from_u64(load::seed()?.wrapping_add(number.into()));
    let cluster = Cluster::new()?;
    let mut world = World::start(&cluster)?;
    let mut deck = Vec::new();
    for round in 1..=rounds()?.div_ceil(RUNS) {
        if deck.is_empty() {
            deck = DECK.to_vec();
            deck.shuffle(&mut random);
        }
        let event = deck.pop().context("a card")?;
        world.round(event, &mut random).with_context(|| format!("round {round}: {event:?}"))?;
    }
    world.prove()
}

fn rounds() -> Result<u32> {
    match std::env::var("VSKI_ROUNDS") {
        Ok(text) => text.parse().with_context(|| format!("VSKI_ROUNDS={text} is no number")),
        Err(_) => Ok(ROUNDS),
    }
}

#[test]
fn whatever_happens_all_nodes_prove_equal_and_nothing_vanishes_unreported_first_run() -> Result<()> {
    run(0)
}

#[test]
fn whatever_happens_all_nodes_prove_equal_and_nothing_vanishes_unreported_second_run() -> Result<()> {
    run(1)
}

#[test]
fn whatever_happens_all_nodes_prove_equal_and_nothing_vanishes_unreported_third_run() -> Result<()> {
    run(2)
}

#[test]
fn whatever_happens_all_nodes_prove_equal_and_nothing_vanishes_unreported_fourth_run() -> Result<()> {
    run(3)
}
