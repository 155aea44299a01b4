use anyhow::Result;

use crate::http;
use crate::options::Options;
use crate::report::Report;
use crate::wrk;

/// Rows that are changed, at random.
const ROWS: u64 = 10_000;

/// Measures it.
pub fn run(options: &Options) -> Result<Report> {
    http::beside_pocketbase(options, ("update", "one number of a random record is changed"), wrk::Kind::Update, ROWS)
}
