use std::time::Duration;

use anyhow::Result;
use e2e::Cluster;

use crate::delay;
use crate::figures::percentile;
use crate::litestream::Copied;
use crate::options::Options;
use crate::pair::Pair;
use crate::report::{Bound, Report, VSKI, metric};
use crate::usage::{Taken, Usage};

/// Writes a second.
const RATE: u32 = 200;

/// Share of the rate that must be reached.
const REACHED: f64 = 0.95;

/// How much longer than a load each part lasts: a mostly idle process takes few ticks.
const LONGER: u64 = 2;

/// Litestream with its defaults, and with the shortest intervals that were tried.
const LITESTREAM: [(&str, Option<&str>); 2] = [("Litestream", None), ("Litestream, 1 ms", Some("1ms"))];

/// Measures it: in each round a new pair idles first, then takes writes.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new("lag", "commit to visible through the replica's HTTP read, stream mode, 200 writes/s");
    let time = Duration::from_secs(options.seconds * LONGER);
    for round in 1..=options.rounds {
        let mut pair = Pair::start()?;
        let usage = Usage::begin(&[pair.agent_pid()?])?;
        idle(&mut report, VSKI, &usage, time)?;
        written(&mut report, &mut pair, time)?;
        pair.replica.stop()?;
        pair.master.stop()?;
        for (name, interval) in LITESTREAM {
            litestream(&mut report, options, (name, interval), time)?;
        }
        eprintln!("lag: round {round} of {}", options.rounds);
    }
    report.note("The clock starts when the master's answer to the write has arrived, and stops with the answer of the replica that has the record; a look alone takes about 0.3 ms.");
    report.note("CPU and memory are those of the agent, a process of its own. Writer, readers, master, replica and agent share the machine.");
    report.note(
        "Litestream copies another program's database into a folder. The clock starts when the commit has returned, and stops when a file that has \
         it is there: nobody can read it by HTTP then, or by SQL without a restore. It looks for commits every second by default.",
    );
    // Less than that was another work.
    report.own("200 writes/s", metric::RATE, Bound::AtLeast(f64::from(RATE) * REACHED));
    report.own("200 writes/s", metric::P50, Bound::AtMost(3.0));
    report.own("200 writes/s", metric::P99, Bound::AtMost(10.0));
    report.own("200 writes/s", metric::CPU, Bound::AtMost(5.0));
    report.own("idle", metric::CPU, Bound::AtMost(0.2));
    for (name, _) in LITESTREAM {
        report.beside("200 writes/s", metric::P50, name, Bound::AtMost(1.0));
    }
    Ok(report)
}

fn idle(report: &mut Report, system: &str, usage: &Usage, time: Duration) -> Result<()> {
    std::thread::sleep(time);
    let taken = usage.taken()?;
    report.add("idle", system, metric::CPU, taken.cpu);
    report.add("idle", system, metric::MEMORY, taken.peak_mb);
    Ok(())
}

fn written(report: &mut Report, pair: &mut Pair, time: Duration) -> Result<()> {
    let usage = Usage::begin(&[pair.agent_pid()?])?;
    let seen = delay::measure(pair, RATE, time)?;
    let taken = usage.taken()?;
    add(report, VSKI, &delay::delays(&seen), time, &taken);
    Ok(())
}

fn litestream(
    report: &mut Report,
    options: &Options,
    (name, interval): (&str, Option<&str>),
    time: Duration,
) -> Result<()> {
    let place = Cluster::new()?;
    let copied = Copied::start(&place.path().join("litestream"), &options.tools, interval)?;
    idle(report, name, &copied.usage()?, time)?;
    let (delays, taken) = copied.measure(RATE, time)?;
    copied.stop()?;
    add(report, name, &delays, time, &taken);
    Ok(())
}

fn add(report: &mut Report, system: &str, delays: &[f64], time: Duration, taken: &Taken) {
    let values = [
        (metric::RATE, delays.len() as f64 / time.as_secs_f64()),
        (metric::P50, percentile(delays, 0.5)),
        (metric::P99, percentile(delays, 0.99)),
        ("max ms", percentile(delays, 1.0)),
        (metric::CPU, taken.cpu),
        (metric::MEMORY, taken.peak_mb),
    ];
    for (metric, value) in values {
        report.add("200 writes/s", system, metric, value);
    }
}
