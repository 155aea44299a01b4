//! The store's ceiling: a statement by itself, on a connection for each core, without HTTP and without JSON.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rusqlite::Connection;
use vski_replication::connection;

/// How often a second the statements are run to their end, one after the other, for some seconds.
pub fn rate(file: &Path, statements: &[&str], seconds: u64) -> Result<f64> {
    let (stop, started) = (AtomicBool::new(false), Instant::now());
    let runs = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores()).map(|_| scope.spawn(|| count_runs(file, statements, &stop))).collect();
        thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        let joined = workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a reader panicked"))?);
        joined.sum::<Result<u64>>()
    })?;
    Ok(runs as f64 / started.elapsed().as_secs_f64())
}

fn count_runs(file: &Path, statements: &[&str], stop: &AtomicBool) -> Result<u64> {
    let conn = connection::reader(file)?;
    // As the server's connections for data.
    conn.pragma_update(None, "cache_size", -4096)?;
    let mut runs = 0;
    while !stop.load(Ordering::Relaxed) {
        statements.iter().try_for_each(|sql| run(&conn, sql))?;
        runs += 1;
    }
    Ok(runs)
}

fn run(conn: &Connection, sql: &str) -> Result<()> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_run_until_the_time_is_over_and_their_errors_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.db");
        connection::writer(&file).unwrap().execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)").unwrap();
        assert!(rate(&file, &["SELECT * FROM t", "SELECT count(*) FROM t"], 1).unwrap() > 1.0);
        assert!(rate(&file, &["SELECT * FROM missing"], 1).is_err());
    }
}
