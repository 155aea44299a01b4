//! `bench/run [NAME...]`: benchmarks of the release programs, run as an operator runs them.
//!
//! Every figure is measured in the same round as the thing that it is compared with, several times over, and told with
//! its median, least and greatest value. Raw values and plots go to `target/bench`.

/// Works by name, and how long and how often they are measured.
mod options;

/// The works.
mod works;

/// The flow of works over HTTP.
mod http;

/// What is measured: how it is prepared, started and stopped.
mod system;

/// SQLite's own statements, without a server around them.
mod statements;

/// A master and a replica.
mod pair;

/// Writes at a fixed rate.
mod pace;

/// From a commit to the replica's answer.
mod delay;

/// From a commit to a file of Litestream's.
mod litestream;

/// The collection that all systems have.
mod posts;

/// The load generator.
mod wrk;

/// CPU and memory of processes.
mod usage;

/// Tables, goals, JSON.
mod report;

/// Pictures.
mod plot;

/// What it was measured on.
mod machine;

/// Least, middle and greatest of several runs.
mod figures;

/// How long, how much and how many bytes a converge takes, beside the same merge in plain SQL.
mod converge;

/// The databases that converge and bootstrap measure.
mod database;

/// The same merge without VSKI.
mod plain;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

use crate::machine::Machine;
use crate::options::{Options, Work};

/// Benchmarks of VSKI on this machine
#[derive(Parser)]
#[command(name = "bench/run", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    alone: Option<Alone>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Alone {
    /// A replica whose log was cut off converges: bytes, time and memory, beside a merge in plain SQL
    Converge(converge::ConvergeArgs),
}

fn main() -> Result<ExitCode> {
    let Arguments { alone, options } = Arguments::parse();
    if let Some(Alone::Converge(args)) = alone {
        return converge::execute(&args);
    }
    let works = if options.works.is_empty() { Work::value_variants() } else { &options.works };
    for work in works {
        measure(*work, &options).with_context(|| format!("{work:?}"))?;
    }
    if options.works.is_empty() {
        return converge::execute(&converge::ConvergeArgs::beside(&options));
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(work: Work, options: &Options) -> Result<()> {
    let mut machine = Machine::look(&options.tools);
    let report = work.run(options)?;
    machine.finish();
    report.write(&options.out, &machine, options)?;
    println!("{}\n\n{}\n", report.table(), machine.describe());
    Ok(())
}
