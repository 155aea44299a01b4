//! A node: a volume, and the container, or the two containers, that work on it.

use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, SECRET, records};
use e2e::cluster::{ADMIN, READY};
use e2e::docker::docker;
use e2e::eventually;
use e2e::program::free_port;

use super::cluster::Shared;
use super::part::{Done, Part};
use e2e::reads::Reads;

/// A master or a replica.
pub struct Node {
    name: String,
    port: u16,
    volume: String,
    /// `vski-server`.
    pub server: Part,
    /// `vski-sync-agent`, where it has a container of its own.
    pub agent: Option<Part>,
}

impl Node {
    /// The master, which makes its admin at its first start.
    pub(super) fn master(shared: &Rc<Shared>) -> Result<Self> {
        let node = Self::new(shared, "master", false)?.env("REPLICA_MODE", "master");
        Ok(node.env("ADMIN_EMAIL", ADMIN.0).env("ADMIN_PASSWORD", ADMIN.1))
    }

    /// A replica of two containers.
    pub(super) fn replica(shared: &Rc<Shared>, name: &str) -> Result<Self> {
        let mut node = Self::new(shared, name, true)?.follow();
        node.server.set("SYNC_AGENT", "external");
        Ok(node)
    }

    /// A replica of one container.
    pub(super) fn embedded(shared: &Rc<Shared>, name: &str) -> Result<Self> {
        Ok(Self::new(shared, name, false)?.follow())
    }

    fn new(shared: &Rc<Shared>, name: &str, with_agent: bool) -> Result<Self> {
        let (volume, port) = (shared.volume(name)?, free_port()?);
        let server = Part::new(shared, name, &["vski-server", "serve"], &volume, Some(port));
        let run: &[&str] = &["vski-sync-agent", "run"];
        let agent = with_agent.then(|| Part::new(shared, &format!("{name}-agent"), run, &volume, None));
        let node = Self { name: name.to_owned(), port, volume, server, agent };
        Ok(node.env("JWT_SECRET", SECRET).env("LOG_FORMAT", "json").env("REPLICA_ID", name))
    }

    fn follow(self) -> Self {
        let node = self.env("REPLICA_MODE", "replica").env("MASTER_URL", "http://master:3001");
        node.env("SYNC_MODE", "stream")
    }

    /// Sets a variable of all its containers, for all later starts.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.parts().for_each(|part| part.set(name, value));
        self
    }

    /// Its containers, in the order in which they are stopped.
    pub fn parts(&mut self) -> impl Iterator<Item = &mut Part> {
        std::iter::once(&mut self.server).chain(self.agent.as_mut())
    }

    /// The container of the agent.
    pub fn agent(&mut self) -> Result<&mut Part> {
        self.agent.as_mut().with_context(|| format!("{} has no agent of its own", self.name))
    }

    /// Starts its containers, the agent first, and waits until the server lives.
    pub fn start(&mut self) -> Result<()> {
        self.agent.iter_mut().try_for_each(Part::start)?;
        self.server.start()?;
        let client = self.client()?;
        eventually(&format!("{} lives", self.name), READY, || Ok(client.get("/livez")?.status == 200))
    }

    /// Starts its containers, and waits until it serves everything it should.
    pub fn start_ready(&mut self) -> Result<()> {
        self.start()?;
        self.wait_ready()
    }

    /// Stops and removes its containers. The volume stays.
    pub fn stop(&mut self) -> Result<()> {
        self.parts().try_for_each(Part::stop)
    }

    /// Waits until it serves everything it should.
    pub fn wait_ready(&self) -> Result<()> {
        let client = self.client()?;
        eventually(&format!("{} is ready", self.name), READY, || {
            let reply = client.get("/readyz")?;
            ensure!(reply.status == 200, "/readyz: {} {}", reply.status, reply.body);
            Ok(true)
        })
    }

    /// Its name, as in logs and as X-Replica-Id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A client that is not logged in. Its port is the same after every restart.
    pub fn client(&self) -> Result<Client> {
        Client::new(&format!("http://127.0.0.1:{}", self.port))
    }

    /// A client that is logged in as the admin.
    pub fn admin(&self) -> Result<Client> {
        self.client()?.login(ADMIN.0, ADMIN.1)
    }

    /// Runs a command of the agent where the agent runs.
    pub fn agent_command(&self, arguments: &[&str]) -> Result<Done> {
        let part = self.agent.as_ref().unwrap_or(&self.server);
        part.exec(&[&["vski-sync-agent"], arguments].concat())
    }

    /// Has the agent compare every row with the master's.
    pub fn verify(&self) -> Result<()> {
        let done = self.agent_command(&["verify"])?;
        ensure!(done.code == 0, "{} is not equal by verify: {done:?}", self.name);
        Ok(())
    }

    /// Where the volume lies on this machine. Only root gets there.
    pub fn dir(&self) -> Result<PathBuf> {
        docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &self.volume]).map(PathBuf::from)
    }

    /// Reads a collection that has records again and again, by several clients.
    pub fn read(&self, collection: &str) -> Result<NodeReads> {
        Ok(NodeReads { node: self.name.clone(), reads: Reads::start(&self.client()?, collection) })
    }

    /// Fails unless this node itself answers a read of a collection.
    pub fn assert_answers(&self, collection: &str) -> Result<()> {
        let reply = self.client()?.get(&records(collection))?.ok().with_context(|| self.name.clone())?;
        let answered = reply.header("x-replica-id");
        ensure!(answered == Some(self.name()), "{answered:?} answers instead of {}", self.name);
        Ok(())
    }
}

/// Reads from one node that go on in the background.
pub struct NodeReads {
    node: String,
    reads: Reads,
}

impl NodeReads {
    /// Stops reading, and fails unless the node itself answered every time.
    pub fn stop(self) -> Result<()> {
        let answered = self.reads.stop(READY).with_context(|| self.node.clone())?.answered;
        ensure!(answered.keys().eq([&self.node]), "reads from {} were answered by {answered:?}", self.node);
        Ok(())
    }
}

/// Waits until replicas hold what the master holds, which nobody writes to: rows in every collection, by count and by
/// `verify`, told by the node itself.
pub fn assert_equal(master: &Node, replicas: &[&Node]) -> Result<()> {
    let admin = master.admin()?;
    let listed = admin.get("/api/collections?perPage=500")?.ok()?.json()?;
    let listed = listed["items"].as_array().with_context(|| format!("no collections in {listed}"))?;
    let names = listed.iter().filter(|entry| entry["system"] != true).filter_map(|entry| entry["name"].as_str());
    let names: Vec<&str> = names.collect();
    ensure!(!names.is_empty(), "the master has no collections");
    for replica in replicas {
        let client = replica.client()?.with_token(&admin.token().context("a token")?);
        for name in &names {
            let rows = admin.count(name)?;
            eventually(&format!("{} has the {rows} rows of {name}", replica.name()), READY, || {
                let found = client.count(name)?;
                ensure!(found == rows, "it has {found}");
                Ok(true)
            })?;
            replica.assert_answers(name)?;
        }
        replica.verify()?;
        replica.wait_ready()?;
    }
    master.assert_answers(names[0])
}
