//! A `Node` is what an operator calls one: a data directory with the process, or the two processes, that work on it.
//! Directories and ports stay the same over kills and restarts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use vski_replication::datadir::DataDir;
use vski_replication::node::{DatabaseState, NodeDb};

use crate::client::{Client, SECRET};
use crate::program::{Program, free_port};
use crate::{eventually, process, programs};

/// The admin that masters create at their first start.
pub const ADMIN: (&str, &str) = ("admin@example.com", "correct horse battery staple");

/// How long a replica may take to serve what its master has, on a busy machine.
pub const READY: Duration = Duration::from_secs(120);

/// Data directories that live as long as the test. Declare it before its nodes: it must go last.
pub struct Cluster {
    temporary: TempDir,
}

/// A master or a replica.
pub struct Node {
    name: String,
    dir: PathBuf,
    /// The `vski-server`.
    pub server: Program,
    /// The `vski-sync-agent`, where it is a process of its own.
    pub agent: Option<Program>,
}

impl Cluster {
    /// An empty one. Its directories stay if `VSKI_KEEP` is set.
    pub fn new() -> Result<Self> {
        let keep = std::env::var_os("VSKI_KEEP").is_some();
        let temporary = tempfile::Builder::new().prefix("vski-e2e-").disable_cleanup(keep).tempdir()?;
        if keep {
            println!("data directories stay in {}", temporary.path().display());
        }
        Ok(Self { temporary })
    }

    /// Where everything of it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// A master, not yet started.
    pub fn master(&self, name: &str) -> Result<Node> {
        let node = self.node(name, "master", None)?;
        Ok(node.env("ADMIN_EMAIL", ADMIN.0).env("ADMIN_PASSWORD", ADMIN.1))
    }

    /// A replica whose server runs the agent itself, not yet started. It streams unless told otherwise.
    pub fn embedded(&self, name: &str, master: &Node) -> Result<Node> {
        let node = self.node(name, "replica", None)?.follow(master);
        Ok(node.env("SYNC_MODE", "stream"))
    }

    /// A replica of two processes, neither started yet. Its agent asks every second unless told otherwise.
    pub fn external(&self, name: &str, master: &Node) -> Result<Node> {
        let port = free_port()?;
        let mut agent = Program::new(&format!("{name}'s agent"), programs::agent()?, "run", "agent listening", port);
        agent.set("AGENT_ADDR", format!("127.0.0.1:{port}"));
        let node = self.node(name, "replica", Some(agent))?.follow(master);
        Ok(node.env("SYNC_AGENT", "external").env("SYNC_INTERVAL", "1"))
    }

    fn node(&self, name: &str, role: &str, agent: Option<Program>) -> Result<Node> {
        let (dir, port) = (self.path().join(name), free_port()?);
        let mut server = Program::new(&format!("{name}'s server"), programs::server()?, "serve", "listening", port);
        server.set("PORT", port.to_string());
        server.set("HOST", "127.0.0.1");
        server.set("REPLICA_MODE", role);
        let node = Node { name: name.to_owned(), dir: dir.clone(), server, agent };
        Ok(node.env("JWT_SECRET", SECRET).env("DATA_DIR", dir).env("LOG_FORMAT", "json"))
    }
}

impl Node {
    /// Sets a variable of its processes, for all later starts.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        let value = value.into();
        self.programs().for_each(|program| program.set(name, value.clone()));
        self
    }

    /// Makes it follow a master from its next start on.
    #[must_use]
    pub fn follow(self, master: &Self) -> Self {
        let name = self.name.clone();
        self.env("MASTER_URL", master.server.url()).env("REPLICA_ID", name)
    }

    /// Starts its processes, the agent first, and waits until both listen.
    pub fn start(&mut self) -> Result<()> {
        self.agent.iter_mut().try_for_each(Program::start)?;
        self.server.start()
    }

    /// Starts its processes, the server first, and waits until both listen.
    pub fn start_server_first(&mut self) -> Result<()> {
        self.server.start()?;
        self.agent.iter_mut().try_for_each(Program::start)
    }

    /// Stops its processes gracefully.
    pub fn stop(&mut self) -> Result<()> {
        self.programs().try_for_each(Program::stop)
    }

    /// Kills its processes.
    pub fn kill9(&mut self) -> Result<()> {
        self.programs().try_for_each(Program::kill9)
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

    /// Its name, as in logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file of one of its databases.
    #[must_use]
    pub fn file(&self, db: &str) -> PathBuf {
        self.dir.join(format!("{db}.db"))
    }

    /// A client that is not logged in.
    pub fn client(&self) -> Result<Client> {
        Client::new(&self.server.url())
    }

    /// A client that is logged in as the admin.
    pub fn admin(&self) -> Result<Client> {
        self.client()?.login(ADMIN.0, ADMIN.1)
    }

    /// Has the agent of a replica of two processes compare every row with the master's.
    pub fn verify(&self) -> Result<()> {
        let agent = self.agent.as_ref().context("an agent of its own")?;
        let done = process::run("verify", &mut agent.subcommand(&["verify"]), READY)?;
        ensure!(done.status.success(), "{} is not equal by verify: {done:?}", self.name);
        Ok(())
    }

    /// Asks the agent of a replica of two processes to sync now, until that worked: a pause that it is in ends.
    pub fn sync(&self) -> Result<()> {
        let agent = self.agent.as_ref().context("an agent of its own")?;
        eventually(&format!("{} syncs when asked to", self.name), READY, || {
            Ok(process::run("sync", &mut agent.subcommand(&["sync"]), READY)?.status.success())
        })
    }

    /// What node.db says of one of its databases.
    pub fn state(&self, db: &str) -> Result<DatabaseState> {
        let node = NodeDb::read(&DataDir::open(&self.dir)?)?.context("there is no node.db yet")?;
        let state = node.databases()?.into_iter().find(|state| state.name == db);
        state.with_context(|| format!("{} does not know database {db} yet", self.name))
    }

    /// Waits until a replica's database is in a state.
    pub fn wait_state(&self, db: &str, wanted: &str) -> Result<DatabaseState> {
        eventually(&format!("{} is in state {wanted}", self.name), READY, || {
            let state = self.state(db)?;
            ensure!(state.state == wanted, "it is {state:?}");
            Ok(Some(state))
        })
    }

    /// WARN and ERROR lines of its processes, but those that contain one of `expected`.
    #[must_use]
    pub fn alarms(&self, expected: &[&str]) -> Vec<String> {
        let programs = std::iter::once(&self.server).chain(&self.agent);
        programs.flat_map(|program| program.alarms(expected)).map(|line| format!("{}: {line}", self.name)).collect()
    }

    /// Waits until its processes have printed `text` in as many lines, and fails if it is in more: what was done can be
    /// seen before it is told.
    pub fn wait_told(&self, text: &str, times: usize) -> Result<()> {
        let count = || {
            let programs = std::iter::once(&self.server).chain(&self.agent);
            programs.flat_map(Program::lines).filter(|line| line.contains(text)).count()
        };
        let what = format!("{} says {text:?} {times} times", self.name);
        eventually(&what, READY, || {
            ensure!(count() >= times, "{} times", count());
            Ok(true)
        })?;
        ensure!(count() == times, "{}: {text:?} {} times instead of {times}", self.name, count());
        Ok(())
    }

    /// Its processes, in the order in which they are stopped.
    pub fn programs(&mut self) -> impl Iterator<Item = &mut Program> {
        std::iter::once(&mut self.server).chain(self.agent.as_mut())
    }
}

/// Fails with the WARN and ERROR lines of `nodes`, but those that contain one of `expected`.
pub fn assert_quiet(nodes: &[&Node], expected: &[&str]) -> Result<()> {
    let alarms: Vec<String> = nodes.iter().flat_map(|node| node.alarms(expected)).collect();
    ensure!(alarms.is_empty(), "unexpected warnings:\n{}", alarms.join("\n"));
    Ok(())
}
