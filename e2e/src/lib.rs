//! Black-box harness: the built programs run as processes, are asked over HTTP, killed, and their files compared.
//!
//! Reading order: [`mod@eventually`] is the one way to wait. [`mod@reserve`] keeps what two runs must not share. [`programs`] finds the binaries, [`output`] keeps what they
//! print, [`process`] runs one of them, [`memory`] watches it, [`program`] one that can be started again, [`cluster`] whole nodes. [`client`]
//! talks to a node, [`load`] writes to it and remembers what was acknowledged, [`reads`] notices reads that fail or are
//! stale, [`content`] compares data directories,
//! [`offline`] edits those of stopped nodes. [`proxy`] is the network between nodes, [`link`] that of one container, [`disk`]
//! a small one, [`shell`] an administrator's sqlite3, [`faults`] lists where programs can be made to die or fail.
//! [`mod@docker`] is the way to containers. [`mod@manifests`] renders and judges what is in `k8s/`, [`mod@pods`] runs it,
//! [`scenarios`] is the harness of all that needs containers.
//!
//! Environment: `VSKI_BIN_DIR` (where the binaries are), `VSKI_SEED` (repeats a random run), `VSKI_ROUNDS` (how many random
//! rounds), `VSKI_KEEP` (set: data directories stay), `RUST_LOG` (passed on to the programs).

/// Wait for a condition, with a deadline.
pub mod eventually;

/// Names that one process of this machine has at a time.
pub mod reserve;

/// Where the built programs are.
pub mod programs;

/// The lines that a process printed.
pub mod output;

/// One child process.
pub mod process;

/// A program with its settings and its port, which can be killed and started again.
pub mod program;

/// How much memory a process has at most.
pub mod memory;

/// Masters, replicas and their agents, each on its own data directory.
pub mod cluster;

/// A blocking HTTP client for the REST interface.
pub mod client;

/// Writes in the background that remember what was acknowledged.
pub mod load;

/// Reads in the background that notice every failure and every stale answer.
pub mod reads;

/// What a database file contains, as hashes that can be compared.
pub mod content;

/// Forms with files.
pub mod form;

/// Uploaded files on the disk, and the rows that name them.
pub mod storage;

/// What can happen to the data directory of a node that is not running.
pub mod offline;

/// The network between two nodes, which can fail.
pub mod proxy;

/// The network of one container, which can get worse.
pub mod link;

/// A small disk, which can be full.
pub mod disk;

/// The sqlite3 shell of the machine.
pub mod shell;

/// Places where debug builds can be killed or made to fail.
pub mod faults;

/// Kubernetes manifests, and what must be true of them.
pub mod manifests;

/// Docker's command line, and what scenarios make on a Docker that is shared.
pub mod docker;

/// Pods of rendered manifests, run over Docker as a kubelet would.
pub mod pods;

/// A harness for scenarios that run one after another.
pub mod scenarios;

pub use cluster::{Cluster, Node};
pub use eventually::eventually;
