//! A new JWT_SECRET by the steps of docs/OPERATIONS.md, under load, the longer way: first all nodes learn the new secret,
//! then they sign with it, then they forget the old one. In each round the master is first, and each container is made anew
//! with other variables. No write is refused beyond a restart, no read by a node that is not being restarted, no login.

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, SECRET};
use e2e::load::{self, Load};

use super::cluster::Cluster;
use super::node::{Node, NodeReads, assert_equal};

const NEW_SECRET: &str = "the-secret-of-tomorrow-with-more-than-32-characters";

/// Writes between two restarts.
const SOME: u64 = 20;

/// What an agent says while the master is away.
const AWAY: [&str; 2] = ["\"error_name\":\"master_unreachable\"", "\"error_name\":\"master_overloaded\""];

pub fn scenario(cluster: &Cluster) -> Result<()> {
    let mut nodes = [cluster.master()?, cluster.replica("r001")?, cluster.replica("r002")?];
    cluster.expect("r001-agent", &AWAY);
    cluster.expect("r002-agent", &AWAY);
    nodes.iter_mut().try_for_each(Node::start_ready)?;
    let old = nodes[0].admin()?;
    // A load is the only writer of its collection.
    ["before", "after"].iter().try_for_each(|name| old.create_collection(name, &load::FIELDS).map(drop))?;
    let seed = load::seed()?;

    let before = Load::start(old.clone(), "before", seed);
    round(&mut nodes, &before, (SECRET, Some(NEW_SECRET)), true).context("all learn the new secret")?;
    round(&mut nodes, &before, (NEW_SECRET, Some(SECRET)), true).context("all sign with the new secret")?;
    for node in &nodes {
        ensure!(status(node, &old)? == 200, "{} takes logins of before for now", node.name());
    }
    let before = before.stop()?;
    let new = nodes[0].admin()?;
    let after = Load::start(new.clone(), "after", seed);
    round(&mut nodes, &after, (NEW_SECRET, None), false).context("all forget the old secret")?;
    let after = after.stop()?;

    let [master, one, two] = &nodes;
    assert_equal(master, &[one, two])?;
    for node in &nodes {
        ensure!(status(node, &old)? == 401, "{} still takes the old secret's logins", node.name());
        ensure!(status(node, &new)? == 200, "{} refuses the new secret's logins", node.name());
        before.check(&node.client()?).with_context(|| node.name().to_owned())?;
        after.check(&node.client()?).with_context(|| node.name().to_owned())?;
    }
    Ok(())
}

/// Restarts every node with other secrets, the master first, while one user writes and others read from the rest.
fn round(nodes: &mut [Node; 3], load: &Load, secrets: (&str, Option<&str>), logins: bool) -> Result<()> {
    load.wait_for(SOME)?;
    for turn in 0..nodes.len() {
        let name = nodes[turn].name().to_owned();
        let others = nodes.iter().filter(|node| node.name() != name);
        let reads: Vec<NodeReads> = others.map(|node| node.read("before")).collect::<Result<_>>()?;
        restart(&mut nodes[turn], secrets).with_context(|| format!("restart {name}"))?;
        load.wait_for(SOME).with_context(|| format!("after {name} was restarted"))?;
        reads.into_iter().try_for_each(NodeReads::stop).with_context(|| format!("while {name} was restarted"))?;
        if logins {
            every_login_is_valid_everywhere(nodes).with_context(|| format!("after {name} was restarted"))?;
        }
    }
    Ok(())
}

fn restart(node: &mut Node, (secret, previous): (&str, Option<&str>)) -> Result<()> {
    node.stop()?;
    for part in node.parts() {
        part.set("JWT_SECRET", secret);
        match previous {
            Some(previous) => part.set("JWT_SECRET_PREVIOUS", previous),
            None => part.unset("JWT_SECRET_PREVIOUS"),
        }
    }
    node.start_ready()
}

fn every_login_is_valid_everywhere(nodes: &[Node; 3]) -> Result<()> {
    for of in nodes {
        let login = of.admin()?;
        for at in nodes {
            ensure!(status(at, &login)? == 200, "{} refuses a login at {}", at.name(), of.name());
        }
    }
    Ok(())
}

/// What a node answers to a user on a route for admins only.
fn status(node: &Node, user: &Client) -> Result<u16> {
    let token = user.token().context("a user with a token")?;
    Ok(node.client()?.with_token(&token).get("/api/collections")?.status)
}
