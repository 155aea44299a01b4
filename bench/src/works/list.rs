use anyhow::{Context, Result};

use crate::http::{self, Case, Prepared};
use crate::options::Options;
use crate::report::{Bound, Report, metric};
use crate::system::Kind;
use crate::{statements, wrk};

/// Rows of the table, of which nine in ten pass the filter.
const ROWS: u64 = 10_000;

/// An order with an index and one without; each with totals and without, and with a filter that is another one each time though
/// it lets the same rows through. The query of each, and the statements that answer it.
const QUERIES: [(&str, &str, &[&str]); 6] = [
    ("unindexed", "page=1&perPage=30&filter=(views%3E100)&sort=-title", &[COUNT, BY_TITLE]),
    ("unindexed, no totals", "page=1&perPage=30&filter=(views%3E100)&sort=-title&skipTotal=1", &[BY_TITLE]),
    (
        "unindexed, other filters",
        "page=1&perPage=30&filter=(views%3E100.RANDOM)&sort=-title",
        &[OTHER_COUNT, OTHER_BY_TITLE],
    ),
    ("indexed", "page=1&perPage=30&filter=(views%3E100)&sort=-created", &[COUNT, BY_CREATED]),
    ("indexed, no totals", "page=1&perPage=30&filter=(views%3E100)&sort=-created&skipTotal=1", &[BY_CREATED]),
    (
        "indexed, other filters",
        "page=1&perPage=30&filter=(views%3E100.RANDOM)&sort=-created",
        &[OTHER_COUNT, OTHER_BY_CREATED],
    ),
];

const COUNT: &str = "SELECT count(*) FROM posts WHERE views > 100";
const BY_TITLE: &str = "SELECT * FROM posts WHERE views > 100 ORDER BY title DESC, id LIMIT 30";
const BY_CREATED: &str = "SELECT * FROM posts WHERE views > 100 ORDER BY created DESC, id LIMIT 30";

/// With a number that is no integer, as each of the other filters has one: SQLite takes longer to compare it.
const OTHER_COUNT: &str = "SELECT count(*) FROM posts WHERE views > 100.5";
const OTHER_BY_TITLE: &str = "SELECT * FROM posts WHERE views > 100.5 ORDER BY title DESC, id LIMIT 30";
const OTHER_BY_CREATED: &str = "SELECT * FROM posts WHERE views > 100.5 ORDER BY created DESC, id LIMIT 30";

/// SQLite without a server.
const ALONE: &str = "SQLite alone";

/// Measures it.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new("list", "page 1 of 30 of 10,000 records, filter views > 100, c=16");
    let case = |(name, query, _): (&str, &'static str, _)| Case {
        name: name.to_owned(),
        kind: wrk::Kind::List,
        connections: 16,
        query,
    };
    let cases = QUERIES.map(case);
    let mut prepared = Prepared::new(options, &[Kind::Vski, Kind::PocketBase], ROWS)?;
    for round in 1..=options.rounds {
        prepared.round(&mut report, options, &cases)?;
        let file = prepared.system(Kind::Vski).context("it was prepared")?.template_file();
        for (name, _, statements) in QUERIES {
            report.add(name, ALONE, metric::RATE, statements::rate(&file, statements, options.seconds)?);
        }
        eprintln!("{}: round {round} of {}", report.work, options.rounds);
    }
    http::notes(&mut report);
    report.note("Indexed: sort=-created. Unindexed: sort=-title. Neither system has an index on `views`.");
    report.note(
        "The same list each time, or one whose filter was never asked for before (`other filters`). Nobody writes meanwhile: VSKI \
         keeps totals and pages until somebody commits. SQLite alone: the same statements on a connection for each core, in \
         the bench itself, without HTTP and JSON, run each time.",
    );
    for (name, ..) in QUERIES {
        report.beside(name, metric::RATE, "PocketBase", Bound::AtLeast(8.0));
        report.beside(name, metric::MEMORY, "PocketBase", Bound::AtMost(0.2));
    }
    Ok(report)
}
