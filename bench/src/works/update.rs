use anyhow::Result;

use crate::http::{self, Case};
use crate::options::Options;
use crate::report::{Bound, Report, metric};
use crate::system::Kind;
use crate::wrk;

/// Rows that are changed, at random.
const ROWS: u64 = 10_000;

/// Measures it.
pub fn run(options: &Options) -> Result<Report> {
    let name = "c=64";
    let mut report = Report::new("update", "one number of a random record is changed");
    let case = Case { name: name.to_owned(), kind: wrk::Kind::Update, connections: 64, query: "" };
    http::measure(&mut report, options, &[Kind::Vski, Kind::PocketBase], ROWS, &[case])?;
    http::notes(&mut report);
    report.beside(name, metric::RATE, "PocketBase", Bound::AtLeast(8.0));
    report.beside(name, metric::MEMORY, "PocketBase", Bound::AtMost(0.2));
    Ok(report)
}
