use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::report::Report;
use crate::works;
use crate::wrk::Wrk;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// New records, beside PocketBase
    Create,
    /// Records by id, beside PocketBase and a bare axum server
    Get,
    /// The first page of 10,000 records with a filter and an order, beside PocketBase
    List,
    /// Changes of records, beside PocketBase
    Update,
    /// Nine reads to one new record, beside PocketBase
    Mix,
    /// New records and records by id in small and large tables
    Growth,
    /// What capture and log cost the writer, beside the same inserts without them
    Capture,
    /// From commit to visible on a replica, at 200 writes a second and without writes, beside Litestream
    Lag,
    /// The same while the master takes writes at full speed
    FullSpeed,
    /// A replica that catches up a million rows, beside the bare changesets
    CatchUp,
    /// A new replica's first 500 MB, beside cp + sync + sha256sum and Litestream
    Bootstrap,
    /// A thousand agents, as long polls, on one master
    Agents,
}

/// How much, how long and how often.
#[derive(Args, Serialize)]
pub struct Options {
    /// Which works; all, and `converge`, if none is named
    #[arg(value_enum)]
    #[serde(skip)]
    pub works: Vec<Work>,
    /// How often each system is started and measured, in turn
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// How long each load lasts
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Share of the rows, bytes, agents and minutes where a work names how many: 0.1 for a first look
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// In `growth`: ten million rows, too
    #[arg(long)]
    pub huge: bool,
    /// Where raw results and plots go
    #[arg(long, default_value = "target/bench")]
    pub out: PathBuf,
    /// Where bench/tools/install has put wrk, PocketBase and Litestream
    #[arg(long, default_value = "target/tools/bench/bin")]
    pub tools: PathBuf,
}

impl Options {
    /// A number of the full benchmark for this run, 1 at least.
    pub fn scaled(&self, number: u64) -> u64 {
        ((number as f64 * self.scale).round() as u64).max(1)
    }

    /// The load generator.
    pub fn wrk(&self) -> Wrk {
        Wrk { program: self.tools.join("wrk"), script: PathBuf::from("bench/load.lua") }
    }
}

impl Work {
    /// Measures.
    pub fn run(self, options: &Options) -> Result<Report> {
        match self {
            Self::Create => works::create::run(options),
            Self::Get => works::get::run(options),
            Self::List => works::list::run(options),
            Self::Update => works::update::run(options),
            Self::Mix => works::mix::run(options),
            Self::Growth => works::growth::run(options),
            Self::Capture => works::capture::run(options),
            Self::Lag => works::lag::run(options),
            Self::FullSpeed => works::full_speed::run(options),
            Self::CatchUp => works::catch_up::run(options),
            Self::Bootstrap => works::bootstrap::run(options),
            Self::Agents => works::agents::run(options),
        }
    }
}
