//! A test harness for what needs machine-wide tools: scenarios run one after another, in their order.
//!
//! Words on the command line choose scenarios whose names contain one of them; `--list` names them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};

/// Something to prove, by a function that may need what was prepared for all.
pub struct Scenario<F> {
    /// A sentence.
    pub name: &'static str,
    /// Whether it starts containers.
    pub needs_docker: bool,
    /// The proof.
    pub run: F,
}

/// Runs what the command line chooses. `prepare` comes before the first scenario, with whether there is a Docker; what it
/// makes is there for `run` until the last one has ended. Those that need Docker are told of, and not run, where there is
/// none.
pub fn main<F, P>(
    scenarios: &[Scenario<F>],
    docker: Result<()>,
    prepare: impl FnOnce(bool) -> Result<P>,
    run: impl Fn(&F, &P) -> Result<()>,
) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen = |scenario: &&Scenario<F>| words.is_empty() || words.iter().any(|word| scenario.name.contains(*word));
    let mut chosen: Vec<&Scenario<F>> = scenarios.iter().filter(chosen).collect();
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
    let prepared = match prepare(docker.is_ok()) {
        Ok(prepared) => prepared,
        Err(error) => {
            println!("FAILED to prepare: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    println!("\nrunning {} scenarios", chosen.len());
    let mut failed = Vec::new();
    for Scenario { name, run: proof, .. } in &chosen {
        if !succeeds(name, || run(proof, &prepared)) {
            failed.push(*name);
        }
    }
    drop(prepared);
    println!("\n{} passed, {} failed: {}", chosen.len() - failed.len(), failed.len(), failed.join(", "));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn succeeds(name: &str, run: impl FnOnce() -> Result<()>) -> bool {
    let began = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(anyhow!("it panicked")));
    let seconds = began.elapsed().as_secs_f64();
    match &ended {
        Ok(()) => println!("test {name} ... ok ({seconds:.1} s)"),
        Err(error) => println!("test {name} ... FAILED ({seconds:.1} s)\n{error:#}"),
    }
    ended.is_ok()
}
