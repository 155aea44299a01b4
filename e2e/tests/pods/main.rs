//! `k8s/`: what the manifests say, by schemas and by our own rules, and what their pods do when they run.
//!
//! What is missing of tools and images is made first, by scripts of e2e/tools and e2e/images.

/// Every folder is valid and keeps our rules.
mod manifests;

/// Every rule can fail.
mod mutations;

/// The pod runner itself, with small pods.
mod runner;

/// A master and replicas as pods: faults, scaling, updates.
mod replication;

/// A new secret, as k8s/README.md says.
mod rotation;

/// A replica's volume becomes the master's, as k8s/README.md says.
mod promotion;

/// Rules, dashboard and configuration as files; tests/containers has the Prometheus that runs.
mod monitoring;

use std::process::ExitCode;

use e2e::docker;
use e2e::pods::SCOPE;
use e2e::scenarios::{self, Scenario};

type Proof = fn() -> anyhow::Result<()>;

const fn files(name: &'static str, run: Proof) -> Scenario<Proof> {
    Scenario { name, needs_docker: false, run }
}

const fn running(name: &'static str, run: Proof) -> Scenario<Proof> {
    Scenario { name, needs_docker: true, run }
}

const SCENARIOS: &[Scenario<Proof>] = &[
    files("every_object_is_valid_for_the_newest_versions_of_kubernetes", manifests::valid_for_the_newest),
    files("the_plain_sidecar_is_valid_before_native_sidecars_and_the_others_are_not", manifests::valid_for_old),
    files("every_folder_keeps_our_rules", manifests::rules),
    files("secrets_that_no_overlay_holds_are_made_by_a_command_of_the_readme", manifests::secrets),
    files("a_key_that_stands_twice_is_an_error", manifests::duplicate_keys),
    files("a_manifest_with_one_thing_wrong_breaks_the_rule_that_is_for_it", mutations::against_our_rules),
    files("a_manifest_with_an_unknown_kind_field_or_type_is_refused_by_the_schemas", mutations::against_the_schemas),
    files("a_field_that_the_pod_runner_does_not_emulate_is_an_error", runner::unknown_fields),
    files("rules_and_dashboard_name_only_metrics_that_are_documented", monitoring::names),
    files("grafana_finds_its_dashboard_and_its_panels_ask_the_prometheus_that_is_there", monitoring::grafana),
    files("the_collectors_pipelines_are_whole_and_it_listens_where_traces_are_sent", monitoring::collector),
    files("every_alert_has_a_repair_and_the_operators_rules_are_the_same", monitoring::repairs),
    running("prometheus_and_alertmanager_accept_their_files_and_every_alert_is_tested", monitoring::checks),
    running("a_small_pod_gets_what_a_kubelet_would_give_it", runner::facts),
    running("a_small_pod_starts_restarts_and_stops_in_order_and_keeps_its_claim", runner::life),
    running("replicas_follow_through_crashes_deletions_scaling_and_updates", replication::scenario),
    running("a_plain_sidecar_works_too", replication::plain_sidecar),
    running("pods_get_a_new_secret_and_logins_and_replication_go_on", rotation::scenario),
    running("a_replica_pod_is_promoted_and_the_old_master_follows", promotion::scenario),
];

fn main() -> ExitCode {
    let prepare = |has_docker| {
        docker::script("e2e/tools/kubernetes", &[])?;
        SCOPE.clean_up_on_signals();
        if has_docker { SCOPE.sweep() } else { Ok(()) }
    };
    scenarios::main(SCENARIOS, docker::available(), prepare, |run, ()| run())
}
