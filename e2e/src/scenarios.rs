//! A test harness for what needs machine-wide tools: scenarios run one after another, in their order.
//!
//! Words on the command line choose scenarios whose names contain one of them; `--list` names them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};

/// Something to prove.
pub struct Scenario {
    /// A sentence.
    pub name: &'static str,
    /// Whether it starts containers.
    pub needs_docker: bool,
    /// The proof.
    pub run: fn() -> Result<()>,
}

/// Runs what the command line chooses. `prepare` comes before the first scenario, with whether there is a Docker; those
/// that need it are told of, and not run, where there is none.
pub fn main(scenarios: &[Scenario], docker: Result<()>, prepare: impl FnOnce(bool) -> Result<()>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen = |scenario: &&Scenario| words.is_empty() || words.iter().any(|word| scenario.name.contains(*word));
    let mut chosen: Vec<&Scenario> = scenarios.iter().filter(chosen).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = &docker {
        let all = chosen.len();
        chosen.retain(|scenario| !scenario.needs_docker);
        println!("{} container scenarios were not run: {error:#}", all - chosen.len());
    }
    if chosen.is_empty() {
        return ExitCode::SUCCESS;
    }
    if let Err(error) = prepare(docker.is_ok()) {
        println!("FAILED to prepare: {error:#}");
        return ExitCode::FAILURE;
    }
    println!("\nrunning {} scenarios", chosen.len());
    let failed: Vec<&str> =
        chosen.iter().filter(|scenario| !succeeds(scenario)).map(|scenario| scenario.name).collect();
    println!("\n{} passed, {} failed: {}", chosen.len() - failed.len(), failed.len(), failed.join(", "));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn succeeds(scenario: &Scenario) -> bool {
    let began = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(scenario.run)).unwrap_or_else(|_| Err(anyhow!("it panicked")));
    let seconds = began.elapsed().as_secs_f64();
    match &ended {
        Ok(()) => println!("test {} ... ok ({seconds:.1} s)", scenario.name),
        Err(error) => println!("test {} ... FAILED ({seconds:.1} s)\n{error:#}", scenario.name),
    }
    ended.is_ok()
}
