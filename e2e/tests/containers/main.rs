//! Scenarios in containers: the image, the very files in compose/, and each load balancer, with faults.
//!
//! A harness of its own, because Docker is one for all: scenarios run one after another, in the order below. Words on
//! the command line choose those whose names contain one of them; `--list` names them. Images are made first, where they
//! are missing. Everything that a scenario makes is labelled, and removed at its end, at a signal, and before the next
//! run. Without Docker nothing runs, and a line says so.

/// Docker's command line.
mod docker;

/// A topology of compose/ that runs.
mod project;

/// Reads in the background that notice every failure.
mod reads;

/// The image itself, and the files as files.
mod files;

/// compose.yaml alone.
mod plain;

/// What every load balancer has to do.
mod balancer;

/// Everything is restarted, one after another.
mod rolling;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};

use self::docker::Images;

/// Something to prove.
struct Scenario {
    name: &'static str,
    run: fn(&Images) -> Result<()>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "the_test_image_is_what_the_dockerfile_describes", run: files::same_image },
    Scenario { name: "the_image_build_sees_the_whole_workspace", run: files::build_context },
    Scenario { name: "example_settings_are_those_that_the_files_know", run: files::settings },
    Scenario { name: "each_proxy_accepts_its_file_and_refuses_the_printed_form", run: files::proxies },
    Scenario { name: "the_compose_file_starts_without_settings_and_its_replicas_are_equal", run: plain::scenario },
    Scenario { name: "haproxy_routes_and_reads_survive_faults", run: balancer::haproxy },
    Scenario { name: "nginx_routes_and_reads_survive_faults", run: balancer::nginx },
    Scenario { name: "traefik_routes_and_reads_survive_faults", run: balancer::traefik },
    Scenario { name: "everything_is_restarted_under_load_without_a_failed_read", run: rolling::scenario },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen = |scenario: &&Scenario| words.is_empty() || words.iter().any(|word| scenario.name.contains(*word));
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(chosen).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    if chosen.is_empty() {
        return ExitCode::SUCCESS;
    }
    if let Err(error) = docker::available() {
        println!("container scenarios were not run: {error:#}");
        return ExitCode::SUCCESS;
    }
    docker::clean_up_on_signals();
    docker::clean_up();
    match docker::images() {
        Ok(images) => run_all(&chosen, &images),
        Err(error) => {
            println!("FAILED to make the images: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(chosen: &[&Scenario], images: &Images) -> ExitCode {
    println!("\nrunning {} container scenarios", chosen.len());
    let mut failed = Vec::new();
    for scenario in chosen {
        let began = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| (scenario.run)(images)));
        let outcome = ended.unwrap_or_else(|_| Err(anyhow!("it panicked")));
        let seconds = began.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("test {} ... ok ({seconds:.1} s)", scenario.name),
            Err(error) => {
                println!("test {} ... FAILED ({seconds:.1} s)\n{error:#}", scenario.name);
                failed.push(scenario.name);
            }
        }
    }
    docker::clean_up();
    println!("\n{} passed, {} failed: {}", chosen.len() - failed.len(), failed.len(), failed.join(", "));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
