//! One fault at a time in a cluster of containers that testcontainers drives: a master, and replicas of a server and an
//! agent over one volume.
//!
//! Docker is one for all: scenarios run one after another, in the order below, each on containers, networks and volumes of
//! its own. Everything is labelled, and removed at a scenario's end, at a signal, and before the next run. A scenario
//! fails when a container warns of what the scenario does not expect. Some need root, which kills processes of containers
//! and reaches their volumes.

/// Networks, volumes, and logs that are judged.
mod cluster;

/// A node's containers.
mod node;

/// One container.
mod part;

/// The specification's quick start.
mod quick_start;

use std::process::ExitCode;

use e2e::docker;
use e2e::scenarios::{self, Scenario};

use self::cluster::{Cluster, SCOPE};

type Proof = fn(&Cluster) -> anyhow::Result<()>;

const fn running(name: &'static str, run: Proof) -> Scenario<Proof> {
    Scenario { name, needs_docker: true, run }
}

const SCENARIOS: &[Scenario<Proof>] =
    &[running("the_quick_start_of_the_specification_works_in_containers", quick_start::scenario)];

/// What is there for all scenarios.
struct Prepared {
    /// Name and tag of the image.
    image: String,
}

impl Prepared {
    fn new() -> anyhow::Result<Self> {
        SCOPE.clean_up_on_signals();
        SCOPE.sweep()?;
        Ok(Self { image: docker::script("e2e/images/test-image", &[])? })
    }
}

/// Whatever a scenario could not remove is removed once all have ended.
impl Drop for Prepared {
    fn drop(&mut self) {
        SCOPE.clean_up();
    }
}

fn main() -> ExitCode {
    let run = |proof: &Proof, prepared: &Prepared| Cluster::run(&prepared.image, proof);
    scenarios::main(SCENARIOS, docker::available(), |_| Prepared::new(), run)
}
