//! A new JWT_SECRET comes to a cluster that is written to, node by node and the master first: each node is restarted
//! with the new secret and the old one as JWT_SECRET_PREVIOUS, and once all of them were, again without the old one.

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, SECRET};
use e2e::cluster::READY;
use e2e::load::{self, Ledger, Load};
use e2e::{Cluster, Node, eventually, offline};

use crate::trio::{POSTS, Trio};

const NEW_SECRET: &str = "the-secret-of-tomorrow-with-more-than-32-characters";

/// Written between two restarts.
const SOME: u64 = 20;

/// The second round's collection: a [`Load`] is the only writer of its own.
const LATER: &str = "later";

#[test]
fn nodes_rotate_to_a_new_secret_one_by_one_under_load() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut trio = Trio::start(&cluster, Node::start)?;
    trio.admin.create_collection(LATER, &load::FIELDS)?;
    trio.wait_equal()?;
    let old = trio.admin.clone();
    let seed = load::seed()?;

    let first = round(&mut trio, old.clone(), POSTS, seed, |node| {
        set(node, NEW_SECRET, Some(SECRET));
    })?;
    for node in trio.nodes() {
        ensure!(status(node, &old)? == 200, "{} takes the old secret's tokens for now", node.name());
    }

    let new = trio.master.admin()?;
    let second = round(&mut trio, new.clone(), LATER, seed, |node| set(node, NEW_SECRET, None))?;
    for node in trio.nodes() {
        ensure!(status(node, &old)? == 401, "{} still takes the old secret's tokens", node.name());
        ensure!(status(node, &new)? == 200, "{} refuses the new secret's tokens", node.name());
    }
    trio.wait_equal()?;
    for node in trio.nodes() {
        first.check(&node.client()?)?;
        second.check(&node.client()?)?;
        let refused = node.alarms(&[]).into_iter().find(|line| line.contains("authenticat"));
        ensure!(refused.is_none(), "a token was refused: {refused:?}");
    }
    Ok(())
}

#[test]
fn no_login_is_refused_while_nodes_rotate_that_all_know_the_new_secret_beforehand() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut trio = Trio::start(&cluster, Node::start)?;
    for (secret, previous) in [(SECRET, NEW_SECRET), (NEW_SECRET, SECRET)] {
        for turn in 0..3 {
            restart(&mut trio, turn, |node| set(node, secret, Some(previous)))?;
            for (at, of) in (0..3).flat_map(|at| (0..3).map(move |of| (at, of))) {
                let (at, of) = (trio.nodes()[at], trio.nodes()[of]);
                ensure!(status(at, &of.admin()?)? == 200, "{} refuses a login at {}", at.name(), of.name());
            }
        }
    }
    trio.wait_equal()
}

/// Restarts every node with other secrets while one user writes, and sees the writes arrive everywhere in between.
fn round(trio: &mut Trio, user: Client, collection: &str, seed: u64, change: fn(&mut Node)) -> Result<Ledger> {
    let load = Load::start(user.clone(), collection, seed);
    load.wait_for(SOME)?;
    for turn in 0..3 {
        let name = restart(trio, turn, change)?;
        load.wait_for(SOME).with_context(|| format!("after {name} was restarted"))?;
        wait_arrived(trio).with_context(|| format!("after {name} was restarted"))?;
        for node in trio.nodes() {
            ensure!(status(node, &user)? == 200, "{} refuses the user after {name} was restarted", node.name());
        }
    }
    load.stop()
}

/// Restarts one node, the master first, and tells its name.
fn restart(trio: &mut Trio, turn: usize, change: impl Fn(&mut Node)) -> Result<String> {
    let node = match turn {
        0 => &mut trio.master,
        1 => &mut trio.embedded,
        _ => &mut trio.external,
    };
    node.stop()?;
    change(node);
    node.start()?;
    node.wait_ready()?;
    Ok(node.name().to_owned())
}

fn set(node: &mut Node, secret: &str, previous: Option<&str>) {
    for program in node.programs() {
        program.set("JWT_SECRET", secret);
        match previous {
            Some(previous) => program.set("JWT_SECRET_PREVIOUS", previous),
            None => program.unset("JWT_SECRET_PREVIOUS"),
        }
    }
}

/// Waits until the replicas hold what the master holds now.
fn wait_arrived(trio: &Trio) -> Result<()> {
    let wanted = offline::position(&trio.master.file("default"))?.version;
    for node in [&trio.embedded, &trio.external] {
        eventually(&format!("{} holds entry {wanted}", node.name()), READY, || {
            Ok(offline::position(&node.file("default"))?.version >= wanted)
        })?;
    }
    Ok(())
}

/// What a node answers to a user on a route for admins only.
fn status(node: &Node, user: &Client) -> Result<u16> {
    let token = user.token().context("a user with a token")?;
    Ok(node.client()?.with_token(&token).get("/api/collections")?.status)
}
