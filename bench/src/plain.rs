//! The yardstick: two files, `ATTACH`, one transaction that decides and merges, committed as durably as ours.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use vski_replication::connection;

use crate::database::COLLECTION;

/// Makes the rows in `file` those of `master`; returns seconds.
pub fn merge(file: &Path, master: &Path) -> Result<f64> {
    let conn = connection::applier(file)?;
    let mut statement = conn.prepare("SELECT name FROM pragma_table_info(?1) WHERE name <> 'id'")?;
    let columns = statement.query_map([COLLECTION], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    drop(statement);
    let same: String = columns.iter().map(|name| format!(" AND theirs.\"{name}\" IS ours.\"{name}\"")).collect();
    conn.execute("ATTACH ?1 AS master", [master.to_string_lossy()])?;
    let started = Instant::now();
    conn.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         DELETE FROM main.{COLLECTION} AS ours WHERE NOT EXISTS
             (SELECT 1 FROM master.{COLLECTION} AS theirs WHERE theirs.id = ours.id{same});
         INSERT INTO main.{COLLECTION} SELECT * FROM master.{COLLECTION} AS theirs WHERE NOT EXISTS
             (SELECT 1 FROM main.{COLLECTION} AS ours WHERE ours.id = theirs.id);
         COMMIT"
    ))?;
    Ok(started.elapsed().as_secs_f64())
}
