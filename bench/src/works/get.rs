use anyhow::Result;

use crate::http::{self, Case};
use crate::options::Options;
use crate::report::{Bound, Report, metric};
use crate::system::Kind;
use crate::wrk;

/// Rows that are read, at random.
const ROWS: u64 = 10_000;

/// Measures it.
pub fn run(options: &Options) -> Result<Report> {
    let name = "c=64";
    let mut report = Report::new("get", "records by id, at random");
    let case = Case { name: name.to_owned(), kind: wrk::Kind::Get, connections: 64, query: "" };
    http::measure(&mut report, options, &[Kind::Vski, Kind::PocketBase, Kind::BareAxum], ROWS, &[case])?;
    http::notes(&mut report);
    report.note("The bare axum server answers the same request with the same number of bytes, which it has in memory.");
    report.beside(name, metric::RATE, "PocketBase", Bound::AtLeast(6.0));
    report.beside(name, metric::RATE, "bare axum", Bound::AtLeast(0.5));
    report.beside(name, metric::MEMORY, "PocketBase", Bound::AtMost(0.2));
    Ok(report)
}
