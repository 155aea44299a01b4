use anyhow::Result;

use crate::http::{self, Case};
use crate::options::Options;
use crate::report::{Bound, Report, metric};
use crate::system::Kind;
use crate::wrk;

/// Rows of the table, of which nine in ten pass the filter.
const ROWS: u64 = 10_000;

/// An order with an index and one without; each with totals and without.
const QUERIES: [(&str, &str); 4] = [
    ("unindexed", "page=1&perPage=30&filter=(views%3E100)&sort=-title"),
    ("unindexed, no totals", "page=1&perPage=30&filter=(views%3E100)&sort=-title&skipTotal=1"),
    ("indexed", "page=1&perPage=30&filter=(views%3E100)&sort=-created"),
    ("indexed, no totals", "page=1&perPage=30&filter=(views%3E100)&sort=-created&skipTotal=1"),
];

/// Measures it.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new("list", "page 1 of 30 of 10,000 records, filter views > 100, c=16");
    let cases =
        QUERIES.map(|(name, query)| Case { name: name.to_owned(), kind: wrk::Kind::List, connections: 16, query });
    http::measure(&mut report, options, &[Kind::Vski, Kind::PocketBase], ROWS, &cases)?;
    http::notes(&mut report);
    report.note("Indexed: sort=-created. Unindexed: sort=-title. Neither system has an index on `views`.");
    for (name, _) in QUERIES {
        report.beside(name, metric::RATE, "PocketBase", Bound::AtLeast(8.0));
        report.beside(name, metric::MEMORY, "PocketBase", Bound::AtMost(0.2));
    }
    Ok(report)
}
