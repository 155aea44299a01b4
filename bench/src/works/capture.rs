use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use e2e::Cluster;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::{Connection, params};
use vski_replication::changelog::{self, Head};
use vski_replication::connection;
use vski_replication::entry::Kind as EntryKind;
use vski_replication::session::Session;

use crate::options::Options;
use crate::report::{Bound, Report, VSKI};
use crate::system::{Kind, System};
use crate::wrk::{self, Load};

/// Rows that each loop inserts.
const ROWS: u64 = 200_000;

/// Rows in a transaction: one, and some batches as the writer makes them of requests that wait.
const BATCHES: [usize; 3] = [1, 8, 64];

const SERVER: &str = "server, c=64";
const BARE: &str = "without session and log";
const ROWS_PER_SECOND: &str = "rows/s";
const MICROSECONDS: &str = "us/row";
const ROWS_PER_ENTRY: &str = "rows/entry";
const SHARE: &str = "share of the server's time, %";

/// A row to insert; made before the clock starts.
struct Row {
    id: String,
    title: String,
    content: String,
    views: u32,
}

/// Measures it: the server's rate and its rows per entry first, then the store alone with transactions of that size.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new("capture", "what the session and the log cost, in the store alone");
    let place = Cluster::new()?;
    let system = System::prepare(Kind::Vski, 1, place.path(), &options.tools)?;
    let rows = rows(options.scaled(ROWS));
    let (bare, logged) = (place.path().join("bare.db"), place.path().join("logged.db"));
    for round in 1..=options.rounds {
        let (rate, per_entry) = serve(&system, options)?;
        report.add(SERVER, VSKI, ROWS_PER_SECOND, rate);
        report.add(SERVER, VSKI, ROWS_PER_ENTRY, per_entry);
        let batch = (per_entry.round() as usize).max(1);
        let named = BATCHES.map(|batch| (format!("{batch} rows a transaction"), batch));
        for (case, batch) in named.into_iter().chain([("as the server's".to_owned(), batch)]) {
            let without = timed(system.template_file(), &bare, |conn| insert(conn, &rows, batch))?;
            let with = timed(system.template_file(), &logged, |conn| insert_logged(conn, &rows, batch))?;
            for (name, seconds) in [(BARE, without), (VSKI, with)] {
                report.add(&case, name, ROWS_PER_SECOND, rows.len() as f64 / seconds);
                report.add(&case, name, MICROSECONDS, seconds * 1e6 / rows.len() as f64);
            }
            if case == "as the server's" {
                let extra_seconds_per_row = (with - without) / rows.len() as f64;
                report.add(SERVER, VSKI, SHARE, extra_seconds_per_row * rate * 100.0);
            }
        }
        eprintln!("capture: round {round} of {}", options.rounds);
    }
    report.note(
        "One thread, the server's own connection settings (WAL, synchronous=FULL) and its table with its indexes. With: a \
         session, its changeset, and the entry with its chain in the same transaction, as the server's writer does.",
    );
    report.note(format!(
        "The server has no switch for the log. {SHARE}: the seconds that capture and log take for as many rows as the \
         server has made in a second, in transactions of the same size: the most that it could gain without them."
    ));
    report.own(SERVER, SHARE, Bound::AtMost(15.0));
    Ok(report)
}

/// New records per second, and how many share an entry.
fn serve(system: &System, options: &Options) -> Result<(f64, f64)> {
    let running = system.start()?;
    let entries =
        || -> Result<u64> { Ok(changelog::head(&connection::reader(&system.worked_on())?)?.position.version) };
    let load = Load { kind: wrk::Kind::Create, connections: 64, query: "", ids: &system.ids };
    let before = entries()?;
    let counted = options.wrk().run(&running.url, &load, options.seconds)?;
    let made = entries()? - before;
    running.stop()?;
    Ok((counted.rate(), counted.requests / made as f64))
}

/// Seconds of `work` on a fresh copy of a database.
fn timed(template: std::path::PathBuf, file: &Path, work: impl FnOnce(&mut Connection) -> Result<()>) -> Result<f64> {
    std::fs::copy(template, file)?;
    let mut conn = connection::writer(file)?;
    let began = Instant::now();
    work(&mut conn)?;
    let seconds = began.elapsed().as_secs_f64();
    drop(conn);
    std::fs::remove_file(file)?;
    Ok(seconds)
}

fn insert(conn: &mut Connection, rows: &[Row], batch: usize) -> Result<()> {
    for rows in rows.chunks(batch) {
        let transaction = conn.transaction()?;
        rows.iter().try_for_each(|row| insert_row(&transaction, row))?;
        transaction.commit()?;
    }
    Ok(())
}

fn insert_logged(conn: &mut Connection, rows: &[Row], batch: usize) -> Result<()> {
    let mut head = changelog::head(conn)?;
    for rows in rows.chunks(batch) {
        let transaction = conn.transaction()?;
        let session = Session::start(&transaction)?;
        rows.iter().try_for_each(|row| insert_row(&transaction, row))?;
        let changeset = session.changeset()?;
        drop(session);
        let entry = head.next(EntryKind::Changes, head.position.epoch, head.schema_hash, changeset);
        changelog::append(&transaction, &entry)?;
        transaction.commit()?;
        head = Head::after(&entry);
    }
    Ok(())
}

fn insert_row(conn: &Connection, row: &Row) -> Result<()> {
    let sql = "INSERT INTO posts (id, title, content, views, published, created, updated)
               VALUES (?1, ?2, ?3, ?4, 1, ?5, ?5)";
    let mut insert = conn.prepare_cached(sql).context("the columns of the collection")?;
    insert.execute(params![row.id, row.title, row.content, row.views, "2026-01-01 00:00:00.000Z"])?;
    Ok(())
}

fn rows(count: u64) -> Vec<Row> {
    let mut random = StdRng::seed_from_u64(11);
    let mut text =
        |digits: usize| -> String { (0..digits).map(|_| char::from(b'a' + random.random_range(0..26_u8))).collect() };
    let row = |number| {
        let (title, content) = (text(24), text(122));
        Row { id: format!("r{number:014}"), title, content, views: u32::try_from(number % 1000).unwrap_or(0) }
    };
    (0..count).map(row).collect()
}
