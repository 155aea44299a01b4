//! One fault at a time in a cluster of containers that testcontainers drives: a master, and replicas of a server and an
//! agent over one volume.
//!
//! Docker is one for all: scenarios run one after another, in the order below, each on containers, networks and volumes of
//! its own. Everything is labelled, and removed at a scenario's end, at a signal, and before the next run. A scenario
//! fails when a container warns of what the scenario does not expect. Some need root (or
//! sudo without a password), which kills processes of containers and reaches their volumes.

/// Networks, volumes, and logs that are judged.
mod cluster;

/// A node's containers.
mod node;

/// One container.
mod part;

/// Rows by the thousand.
mod rows;

/// A receiver of spans.
#[path = "../it/collector.rs"]
mod collector;

/// What nodes tell of themselves.
mod told;

/// The specification's quick start.
mod quick_start;

/// A replica that comes late.
mod late;

/// An agent that dies.
mod killed;

/// A master that is restarted.
mod restarts;

/// A replica with another secret.
mod wrong_secret;

/// A new secret for all.
mod rotation;

/// One trace through all nodes.
mod trace;

/// Rows that differ.
mod mismatch;

/// The network is cut.
mod cut;

/// The network is slow, narrow, or loses packets.
mod links;

/// A volume is full.
mod full_disk;

/// A volume has two agents.
mod two_agents;

use std::process::ExitCode;

use e2e::scenarios::{self, Scenario};
use e2e::{disk, docker};

use self::cluster::{Cluster, SCOPE};

type Proof = fn(&Cluster) -> anyhow::Result<()>;

const fn running(name: &'static str, run: Proof) -> Scenario<Proof> {
    Scenario { name, needs_docker: true, run }
}

const SCENARIOS: &[Scenario<Proof>] = &[
    running("the_quick_start_of_the_specification_works_in_containers", quick_start::scenario),
    running("a_replica_that_comes_late_catches_up_by_the_log_or_by_a_snapshot", late::scenario),
    running("an_agent_that_is_killed_in_the_middle_of_an_apply_leaves_whole_entries", killed::scenario),
    running("a_master_that_is_restarted_under_load_loses_nothing_and_is_followed_again", restarts::scenario),
    running("with_a_wrong_secret_nothing_is_served_and_both_logs_say_why", wrong_secret::scenario),
    running("a_new_secret_comes_to_all_nodes_under_load_without_a_refused_login", rotation::scenario),
    running("one_trace_leads_from_the_write_over_the_commit_to_every_apply", trace::scenario),
    running("rows_changed_behind_a_replicas_back_are_found_by_verify_and_mended", mismatch::scenario),
    running("a_cut_network_leaves_reads_and_a_true_lag_and_heals_without_a_new_copy", cut::scenario),
    running("slow_and_narrow_links_carry_everything_and_the_stated_lag_is_true", links::slow),
    running("links_that_lose_packets_and_connections_carry_everything", links::lossy),
    running("a_full_disk_of_a_replica_is_told_harms_nothing_and_heals_by_itself", full_disk::replica),
    running("a_full_disk_of_the_master_refuses_writes_and_loses_none_that_it_took", full_disk::master),
    running("of_two_agents_on_a_volume_one_works_and_the_other_waits", two_agents::scenario),
];

/// What is there for all scenarios.
struct Prepared {
    /// Name and tag of the image.
    image: String,
}

impl Prepared {
    fn new() -> anyhow::Result<Self> {
        SCOPE.clean_up_on_signals();
        SCOPE.sweep()?;
        // After the containers that use them.
        disk::sweep(&SCOPE.prefix())?;
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
