use std::path::Path;

use anyhow::Result;
use e2e::client::Client;
use e2e::{Cluster, Node, content, load};

/// The collection that the scenarios write to.
pub(crate) const POSTS: &str = "posts";

/// A master, a replica that is one process and streams, and a replica of two processes that asks every second.
pub(crate) struct Trio {
    pub(crate) master: Node,
    pub(crate) embedded: Node,
    pub(crate) external: Node,
    pub(crate) admin: Client,
}

impl Trio {
    /// Starts all three, in the order that `start_external` decides for the third, with an empty [`POSTS`].
    pub(crate) fn start(cluster: &Cluster, start_external: fn(&mut Node) -> Result<()>) -> Result<Self> {
        let mut master = cluster.master("master")?;
        master.start()?;
        let admin = master.admin()?;
        admin.create_collection(POSTS, &load::FIELDS)?;
        let mut embedded = cluster.embedded("embedded", &master)?;
        let mut external = cluster.external("external", &master)?;
        embedded.start()?;
        start_external(&mut external)?;
        let trio = Self { master, embedded, external, admin };
        trio.embedded.wait_ready()?;
        trio.external.wait_ready()?;
        Ok(trio)
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> [&Node; 3] {
        [&self.master, &self.embedded, &self.external]
    }

    /// Waits until all three hold the same in every database.
    pub(crate) fn wait_equal(&self) -> Result<()> {
        let dirs: [&Path; 3] = self.nodes().map(Node::dir);
        content::wait_all_equal(&dirs, e2e::cluster::READY)
    }
}
