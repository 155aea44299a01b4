//! The flow of all works over HTTP: each round starts every system on a fresh copy of its data, sends it the same
//! loads, and stops it. The order of the systems turns round by round.

use anyhow::{Context, Result};
use e2e::Cluster;

use crate::options::Options;
use crate::report::{Bound, Report, metric};
use crate::system::{Kind, System};
use crate::usage::Usage;
use crate::wrk::{self, Load};

/// How long a load runs before it is measured, seconds. Its records stay.
const WARM_UP: u64 = 1;

/// One load, sent to all systems.
pub struct Case {
    pub name: String,
    pub kind: wrk::Kind,
    pub connections: usize,
    pub query: &'static str,
}

/// Systems with tables of the same rows, and the directory that holds them.
pub struct Prepared {
    systems: Vec<System>,
    _place: Cluster,
}

impl Prepared {
    /// Prepares each of `kinds`.
    pub fn new(options: &Options, kinds: &[Kind], rows: u64) -> Result<Self> {
        let place = Cluster::new()?;
        let prepare = |kind: &Kind| {
            let prepared = System::prepare(*kind, rows, place.path(), &options.tools);
            prepared.with_context(|| format!("prepare {}", kind.name()))
        };
        Ok(Self { systems: kinds.iter().map(prepare).collect::<Result<_>>()?, _place: place })
    }

    /// The one of this kind.
    pub fn system(&self, kind: Kind) -> Option<&System> {
        self.systems.iter().find(|system| system.kind == kind)
    }

    /// Measures all of them once, in turn; the next round begins with the other end.
    pub fn round(&mut self, report: &mut Report, options: &Options, cases: &[Case]) -> Result<()> {
        for system in &self.systems {
            run(report, options, system, cases).with_context(|| system.kind.name())?;
        }
        self.systems.reverse();
        Ok(())
    }
}

/// Measures `cases` on `systems` with tables of `rows` rows.
pub fn measure(report: &mut Report, options: &Options, systems: &[Kind], rows: u64, cases: &[Case]) -> Result<()> {
    let mut prepared = Prepared::new(options, systems, rows)?;
    for round in 1..=options.rounds {
        prepared.round(report, options, cases)?;
        eprintln!("{}: round {round} of {}", report.work, options.rounds);
    }
    Ok(())
}

fn run(report: &mut Report, options: &Options, system: &System, cases: &[Case]) -> Result<()> {
    let (running, wrk) = (system.start()?, options.wrk());
    for case in cases {
        let load = Load { kind: case.kind, connections: case.connections, query: case.query, ids: &system.ids };
        wrk.run(&running.url, &load, WARM_UP)?;
        let usage = Usage::begin(&[running.pid()])?;
        let counted = wrk.run(&running.url, &load, options.seconds)?;
        let taken = usage.taken()?;
        let values = [
            (metric::RATE, counted.rate()),
            (metric::P50, counted.p50_ms),
            (metric::P99, counted.p99_ms),
            (metric::CPU, taken.cpu),
            (metric::MEMORY, taken.peak_mb),
        ];
        for (metric, value) in values {
            report.add(&case.name, system.kind.name(), metric, value);
        }
    }
    running.stop()
}

/// A work that is one load of 64 connections on tables of `rows` rows, with the goals beside PocketBase of what writes.
pub fn beside_pocketbase(
    options: &Options,
    (work, title): (&'static str, &'static str),
    kind: wrk::Kind,
    rows: u64,
) -> Result<Report> {
    let name = "c=64";
    let mut report = Report::new(work, title);
    let case = Case { name: name.to_owned(), kind, connections: 64, query: "" };
    measure(&mut report, options, &[Kind::Vski, Kind::PocketBase], rows, &[case])?;
    notes(&mut report);
    report.beside(name, metric::RATE, "PocketBase", Bound::AtLeast(8.0));
    report.beside(name, metric::MEMORY, "PocketBase", Bound::AtMost(0.2));
    Ok(report)
}

/// What differs between VSKI and PocketBase, whatever the work.
pub fn notes(report: &mut Report) {
    report.note(
        "VSKI: WAL with synchronous=FULL, every write is in the log for replicas; its defaults otherwise. PocketBase: its \
         defaults, that is WAL with synchronous=NORMAL (a power cut may lose the last writes), no log for replicas, and \
         a log of requests in a second database, written in the background.",
    );
    report.note(
        "Both: the same collection, rules open to everybody, an index on `created`. Ids of the rows are made as each \
         system makes them: in order by VSKI, random by PocketBase.",
    );
    report.note(
        "wrk runs on the same cores, in a closed loop: latency includes no waiting outside its connections. Memory is \
         VmHWM, so pages of mapped files count; it is reset before each load, but not what a process holds.",
    );
}
