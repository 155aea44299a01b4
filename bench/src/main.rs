//! `bench/run NAME`: a benchmark of the release programs, run as an operator runs them.
//!
//! Every figure is measured in the same run as the thing that it is compared with, several times over, and printed with
//! its least, middle and greatest value. `--json FILE` keeps the raw ones.

/// How long, how much and how many bytes a converge takes, beside the same merge in plain SQL.
mod converge;

/// The databases that are measured.
mod database;

/// Least, middle and greatest of several runs.
mod figures;

/// The same merge without VSKI.
mod plain;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Benchmarks of VSKI on this machine
#[derive(Parser)]
#[command(name = "bench/run")]
enum Benchmark {
    /// A replica whose log was cut off converges: bytes, time and memory, beside a merge in plain SQL
    Converge(converge::ConvergeArgs),
}

fn main() -> Result<ExitCode> {
    match Benchmark::parse() {
        Benchmark::Converge(args) => converge::execute(&args),
    }
}
