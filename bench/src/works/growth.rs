use anyhow::Result;

use crate::figures::short;
use crate::http::{self, Case};
use crate::options::Options;
use crate::report::{Report, metric};
use crate::system::Kind;
use crate::wrk;

/// Rows of the tables; the last one only if it is asked for.
const SIZES: [u64; 3] = [10_000, 1_000_000, 10_000_000];

/// Measures it: one size after the other, so that only one large database lies on the disk.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new("growth", "new records and records by id as the table grows, c=64");
    let larger = if options.huge { &SIZES[1..] } else { &SIZES[1..2] };
    let larger = larger.iter().map(|size| options.scaled(*size));
    let sizes: Vec<u64> = std::iter::once(SIZES[0]).chain(larger).collect();
    for &rows in &sizes {
        let case = |kind: wrk::Kind| Case {
            name: format!("{kind:?}, {} rows", short(rows as f64)).to_lowercase(),
            kind,
            connections: 64,
            query: "",
        };
        let cases = [case(wrk::Kind::Get), case(wrk::Kind::Create)];
        http::measure(&mut report, options, &[Kind::Vski, Kind::PocketBase], rows, &cases)?;
    }
    http::notes(&mut report);
    report.note("Reads choose from 10,000 ids that are spread over the whole table.");
    report.note("Sizes are measured one after the other, so a change of the machine's speed between them shows.");
    compare(&mut report, &sizes);
    Ok(report)
}

/// Says how each larger table does beside the smallest one.
fn compare(report: &mut Report, sizes: &[u64]) {
    for kind in ["get", "create"] {
        let rate = |size: u64| {
            let case = format!("{kind}, {} rows", short(size as f64));
            report.figure(&case, crate::report::VSKI, metric::RATE).map(crate::figures::Figure::median)
        };
        let small = rate(sizes[0]);
        let ratios: Vec<String> = sizes[1..]
            .iter()
            .filter_map(|&size| Some(format!("{} x at {} rows", short(small? / rate(size)?), short(size as f64))))
            .collect();
        report.note(format!("VSKI, cost of a {kind} beside 10,000 rows (goal: within 2 x): {}", ratios.join(", ")));
    }
}
