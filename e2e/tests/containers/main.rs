//! Scenarios in containers: the image, the very files in compose/, and each load balancer, with faults.
//!
//! Docker is one for all: scenarios run one after another, in the order below. Images are made first, where they are
//! missing. Everything that a scenario makes is labelled, and removed at its end, at a signal, and before the next run.

/// What scenarios start.
mod images;

/// A topology of compose/ that runs.
mod project;

/// What may stand in logs.
mod quiet;

/// The image itself, and the files as files.
mod files;

/// compose.yaml alone.
mod plain;

/// What every load balancer has to do.
mod balancer;

/// A client that keeps its connection.
mod kept;

/// Files of load balancers with a broken line.
mod broken;

/// Who gets a dead node's address.
mod stranger;

/// The specification's examples as they are printed.
mod printed;

/// A fresh clone, whose image has to be built.
mod fresh;

/// Everything is restarted, one after another.
mod rolling;

/// Commands of OPERATIONS.md, as they stand there.
mod typed;

/// The secret is changed by them.
mod rotation;

/// A replica takes over by them.
mod promotion;

/// A real Prometheus beside the nodes.
mod monitoring;

use std::process::ExitCode;

use e2e::scenarios::{self, Scenario};

use self::images::Images;

type Proof = fn(&Images) -> anyhow::Result<()>;

const fn running(name: &'static str, run: Proof) -> Scenario<Proof> {
    Scenario { name, needs_docker: true, run }
}

const SCENARIOS: &[Scenario<Proof>] = &[
    running("the_test_image_is_what_the_dockerfile_describes", files::same_image),
    running("the_image_build_sees_the_whole_workspace", files::build_context),
    running("example_settings_are_those_that_the_files_know", files::settings),
    running("each_proxy_accepts_its_file_and_refuses_the_printed_form", files::proxies),
    running("each_pair_of_files_is_one_project", files::pairs),
    running("the_printed_examples_do_what_the_readme_says_of_them", printed::scenario),
    running("one_service_builds_the_image_that_all_start", fresh::scenario),
    running("the_compose_file_starts_without_settings_and_its_replicas_are_equal", plain::scenario),
    running("haproxy_routes_and_reads_survive_faults", balancer::haproxy),
    running("nginx_routes_and_reads_survive_faults", balancer::nginx),
    running("traefik_routes_and_reads_survive_faults", balancer::traefik),
    running("everything_is_restarted_under_load_without_a_failed_read", rolling::scenario),
    running("the_secret_is_changed_by_the_runbook_under_load_without_a_failed_read", rotation::scenario),
    running("a_replica_is_promoted_by_the_runbook_with_and_without_the_old_master", promotion::scenario),
    running("alerts_fire_for_real_faults_reach_a_webhook_and_clear", monitoring::scenario),
];

fn main() -> ExitCode {
    scenarios::main(SCENARIOS, e2e::docker::available(), |_| Images::prepare(), |run, images| run(images))
}
