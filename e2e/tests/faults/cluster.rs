//! A master and replicas in containers, for one scenario: two networks, volumes, and the logs of all, which are judged
//! at the end.
//!
//! Ports are published through the *outer* network. Nodes talk to each other over the *inner* one, by name; it can be cut
//! without a test losing sight of a node. Agents are on the inner one only.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use e2e::disk::Disk;
use e2e::docker::{Scope, docker, free_subnet};

pub use e2e::docker::as_root;

use super::node::Node;
use super::part::{Part, is_unexpected};

/// The mark of everything that a scenario makes.
pub const SCOPE: Scope = Scope { label: "dev.vski.e2e.faults", word: "faults" };

/// The image's user and group.
const USER: u32 = 65532;

/// Lines of each container that a failed scenario prints.
const TAIL: usize = 60;

/// What the containers of a scenario have in common.
pub struct Shared {
    /// The label's value, with which all names begin.
    pub id: String,
    /// Name and tag of the image.
    pub image: String,
    /// The network of published ports.
    pub outer: String,
    /// The network between nodes.
    pub inner: String,
    /// What containers that are gone have printed, by their names.
    logs: RefCell<BTreeMap<String, Vec<String>>>,
}

/// Everything that a scenario makes. It is removed at the scenario's end, however that comes.
pub struct Cluster {
    shared: Rc<Shared>,
    /// Texts of alarming lines that are no surprise, by container.
    expected: RefCell<BTreeMap<String, Vec<String>>>,
    succeeded: Cell<bool>,
}

impl Cluster {
    /// Runs a scenario on a new cluster. Beyond what it proves itself, no container may have warned of what it did not
    /// [`expect`](Self::expect).
    pub fn run(image: &str, proof: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let cluster = Self::new(image)?;
        // Nodes go with the proof, and leave their logs.
        let proved = proof(&cluster).and_then(|()| cluster.assert_quiet());
        cluster.succeeded.set(proved.is_ok());
        proved
    }

    fn new(image: &str) -> Result<Self> {
        let id = SCOPE.name("cluster");
        let (outer, inner) = (format!("{id}-outer"), format!("{id}-inner"));
        let (image, logs) = (image.to_owned(), RefCell::default());
        let shared = Rc::new(Shared { id, image, outer, inner, logs });
        let cluster = Self { shared, expected: RefCell::default(), succeeded: Cell::new(false) };
        let shared = &cluster.shared;
        for network in [&shared.outer, &shared.inner] {
            let (label, subnet) = (shared.label(), free_subnet()?);
            docker(&["network", "create", "--label", &label, "--subnet", &subnet, network])?;
        }
        Ok(cluster)
    }

    /// The master, not started yet.
    pub fn master(&self) -> Result<Node> {
        Node::master(&self.shared)
    }

    /// A replica, not started yet: a read-only server and an agent that streams, over one volume.
    pub fn replica(&self, name: &str) -> Result<Node> {
        Node::replica(&self.shared, name)
    }

    /// A replica of one container, not started yet: its server runs the agent.
    pub fn embedded(&self, name: &str) -> Result<Node> {
        Node::embedded(&self.shared, name)
    }

    /// A small disk of that many MiB, which will be the volume of a node that does not exist yet.
    pub fn disk(&self, node: &str, mib: u64) -> Result<Disk> {
        let disk = Disk::new(&SCOPE.prefix(), mib, USER)?;
        let device = format!("device={}", disk.data().display());
        self.shared.volume_of(node, &["--opt", "type=none", "--opt", "o=bind", "--opt", &device])?;
        Ok(disk)
    }

    /// Says that lines of a container, as WARN or ERROR, are no surprise if they contain one of `texts`.
    pub fn expect(&self, container: &str, texts: &[&str]) {
        let texts = texts.iter().map(|text| (*text).to_owned());
        self.expected.borrow_mut().entry(container.to_owned()).or_default().extend(texts);
    }

    /// Takes a container off the inner network: its connections fall silent.
    pub fn cut(&self, part: &Part) -> Result<()> {
        docker(&["network", "disconnect", "--force", &self.shared.inner, part.id()?]).map(drop)
    }

    /// Puts it back, under its name.
    pub fn heal(&self, part: &Part) -> Result<()> {
        self.shared.join(part.id()?, part.name())
    }

    /// The host's address in the inner network, under which containers reach what listens there.
    pub fn gateway(&self) -> Result<String> {
        let format = "{{range .IPAM.Config}}{{.Gateway}}{{end}}";
        let gateway = docker(&["network", "inspect", "--format", format, &self.shared.inner])?;
        if !gateway.is_empty() {
            return Ok(gateway);
        }
        // Docker 20.10 tells no gateway that it chose itself: it is the first address.
        let subnet = docker(&[
            "network",
            "inspect",
            "--format",
            "{{range .IPAM.Config}}{{.Subnet}}{{end}}",
            &self.shared.inner,
        ])?;
        let start = subnet.strip_suffix(".0/24").with_context(|| format!("a subnet of 256 addresses, not {subnet}"))?;
        Ok(format!("{start}.1"))
    }

    fn assert_quiet(&self) -> Result<()> {
        let (logs, expected) = (self.shared.logs.borrow(), self.expected.borrow());
        let mut alarms = Vec::new();
        for (container, lines) in logs.iter() {
            let expected = expected.get(container).map(Vec::as_slice).unwrap_or_default();
            let found = lines.iter().filter(|line| is_unexpected(line, expected));
            alarms.extend(found.map(|line| format!("{container}: {line}")));
        }
        ensure!(alarms.is_empty(), "unexpected warnings:\n{}", alarms.join("\n"));
        Ok(())
    }
}

/// Logs of a scenario that failed are printed before everything of it is removed.
impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.succeeded.get() {
            for (container, lines) in self.shared.logs.borrow().iter() {
                let shown = &lines[lines.len().saturating_sub(TAIL)..];
                println!("--- {container}, {} lines, the last:\n{}", lines.len(), shown.join("\n"));
            }
        }
        if let Err(error) = SCOPE.remove(&self.shared.id) {
            println!("{error:#}");
        }
    }
}

impl Shared {
    /// The label of everything.
    pub fn label(&self) -> String {
        SCOPE.tag(&self.id)
    }

    /// Connects a container to the inner network under a name.
    pub fn join(&self, container: &str, name: &str) -> Result<()> {
        docker(&["network", "connect", "--alias", name, &self.inner, container]).map(drop)
    }

    /// Makes a volume, unless there is one for that node already. Returns its name.
    pub fn volume(&self, node: &str) -> Result<String> {
        self.volume_of(node, &[])
    }

    fn volume_of(&self, node: &str, options: &[&str]) -> Result<String> {
        let (label, volume) = (self.label(), format!("{}-{node}", self.id));
        docker(&[&["volume", "create", "--label", &label], options, &[&volume]].concat())?;
        Ok(volume)
    }

    /// Takes the log of a container that goes.
    pub fn keep_log(&self, container: &str, lines: Vec<String>) {
        self.logs.borrow_mut().entry(container.to_owned()).or_default().extend(lines);
    }
}
