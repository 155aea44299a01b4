use anyhow::Result;

use crate::http;
use crate::options::Options;
use crate::report::Report;
use crate::wrk;

/// Rows that are there before, and are read at random.
const ROWS: u64 = 10_000;

/// Measures it.
pub fn run(options: &Options) -> Result<Report> {
    http::beside_pocketbase(options, ("mix", "nine records by id to one new record"), wrk::Kind::Mix, ROWS)
}
