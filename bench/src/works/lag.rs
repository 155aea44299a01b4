use std::time::Duration;

use anyhow::Result;

use crate::delay::{self, delay_ms};
use crate::options::Options;
use crate::pair::Pair;
use crate::report::{Bound, Report, VSKI, metric};
use crate::usage::Usage;

/// Writes a second.
const RATE: u32 = 200;

/// Share of the rate that must be reached.
const REACHED: f64 = 0.95;

/// How much longer than a load each part lasts: a mostly idle process takes few ticks.
const LONGER: u64 = 2;

/// Measures it: in each round a new pair idles first, then takes writes.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new("lag", "commit to visible through the replica's HTTP read, stream mode, 200 writes/s");
    let time = Duration::from_secs(options.seconds * LONGER);
    for round in 1..=options.rounds {
        let mut pair = Pair::start()?;
        idle(&mut report, &mut pair, time)?;
        written(&mut report, &mut pair, time)?;
        pair.replica.stop()?;
        pair.master.stop()?;
        eprintln!("lag: round {round} of {}", options.rounds);
    }
    report.note("The clock starts when the master's answer to the write has arrived, and stops with the answer of the replica that has the record; a look alone takes about 0.3 ms.");
    report.note("CPU and memory are those of the agent, a process of its own. Writer, readers, master, replica and agent share the machine.");
    // Less than that was another work.
    report.own("200 writes/s", metric::RATE, Bound::AtLeast(f64::from(RATE) * REACHED));
    report.own("200 writes/s", metric::P50, Bound::AtMost(3.0));
    report.own("200 writes/s", metric::P99, Bound::AtMost(10.0));
    report.own("200 writes/s", metric::CPU, Bound::AtMost(5.0));
    report.own("idle", metric::CPU, Bound::AtMost(0.2));
    Ok(report)
}

fn idle(report: &mut Report, pair: &mut Pair, time: Duration) -> Result<()> {
    let usage = Usage::begin(&[pair.agent_pid()?])?;
    std::thread::sleep(time);
    let taken = usage.taken()?;
    report.add("idle", VSKI, metric::CPU, taken.cpu);
    report.add("idle", VSKI, metric::MEMORY, taken.peak_mb);
    Ok(())
}

fn written(report: &mut Report, pair: &mut Pair, time: Duration) -> Result<()> {
    let usage = Usage::begin(&[pair.agent_pid()?])?;
    let seen = delay::measure(pair, RATE, time)?;
    let taken = usage.taken()?;
    let values = [
        (metric::RATE, seen.len() as f64 / time.as_secs_f64()),
        (metric::P50, delay_ms(&seen, 0.5)),
        (metric::P99, delay_ms(&seen, 0.99)),
        ("max ms", delay_ms(&seen, 1.0)),
        (metric::CPU, taken.cpu),
        (metric::MEMORY, taken.peak_mb),
    ];
    for (metric, value) in values {
        report.add("200 writes/s", VSKI, metric, value);
    }
    Ok(())
}
