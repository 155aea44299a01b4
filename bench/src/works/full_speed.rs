use std::time::Duration;

use anyhow::Result;

use crate::delay;
use crate::figures::percentile;
use crate::options::Options;
use crate::pair::Pair;
use crate::report::{Bound, Report, VSKI, metric};
use crate::usage::Usage;
use crate::wrk::{self, Load};

/// Records a second that are looked for; all others are wrk's.
const RATE: u32 = 50;

const SECONDS: u64 = 60;

const CASE: &str = "c=64";
const BEGINNING: &str = "p99 ms, first third";
const END: &str = "p99 ms, last third";
const GROWTH: &str = "last / first third";

/// Measures it.
pub fn run(options: &Options) -> Result<Report> {
    let seconds = options.scaled(SECONDS);
    let title = format!("commit to visible on the replica while wrk makes records at full speed for {seconds} s");
    let mut report = Report::new("full-speed", title);
    for round in 1..=options.rounds {
        let mut pair = Pair::start()?;
        written(&mut report, &mut pair, options, seconds)?;
        pair.wait_equal()?;
        pair.replica.stop()?;
        pair.master.stop()?;
        eprintln!("full-speed: round {round} of {}", options.rounds);
    }
    report.note("50 records a second are written beside wrk's and looked for on the replica. requests/s are wrk's.");
    report.note("CPU and memory are those of the agent. wrk, master, replica, agent and readers share the machine.");
    report.own(CASE, metric::P99, Bound::AtMost(50.0));
    report.own(CASE, GROWTH, Bound::AtMost(1.5));
    Ok(report)
}

fn written(report: &mut Report, pair: &mut Pair, options: &Options, seconds: u64) -> Result<()> {
    // wrk's script wants a file of ids, which a load of new records does not use.
    let ids = pair.cluster.path().join("ids");
    std::fs::write(&ids, "")?;
    let load = Load { kind: wrk::Kind::Create, connections: 64, query: "", ids: &ids };
    let usage = Usage::begin(&[pair.agent_pid()?])?;
    let writer = options.wrk().start(&pair.master.server.url(), &load, seconds)?;
    let seen = delay::measure(pair, RATE, Duration::from_secs(seconds));
    let counted = wrk::finish(writer)?;
    let (seen, taken) = (seen?, usage.taken()?);
    let delays = delay::delays(&seen);
    let third = delays.len() / 3;
    let (first, last) = (percentile(&delays[..third], 0.99), percentile(&delays[delays.len() - third..], 0.99));
    let values = [
        (metric::RATE, counted.rate()),
        (metric::P50, percentile(&delays, 0.5)),
        (metric::P99, percentile(&delays, 0.99)),
        ("max ms", percentile(&delays, 1.0)),
        (BEGINNING, first),
        (END, last),
        (GROWTH, last / first),
        (metric::CPU, taken.cpu),
        (metric::MEMORY, taken.peak_mb),
    ];
    for (metric, value) in values {
        report.add(CASE, VSKI, metric, value);
    }
    Ok(())
}
