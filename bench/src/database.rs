use std::path::Path;

use anyhow::{Context, Result};
use e2e::Node;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::params;
use vski_replication::connection;

/// The collection that holds the rows.
pub const COLLECTION: &str = "posts";

/// Hex digits of a row's text: with id, title, numbers and times, 1.5 million rows make a file of 350 MB.
const TEXT_DIGITS: usize = 96;

/// A row in this many is changed, removed and followed by a new one in turn.
const KINDS: u64 = 3;

/// Makes the collection through the API, and fills the file of the node, which is stopped afterwards.
pub fn fill(master: &mut Node, rows: u64) -> Result<()> {
    master.start()?;
    let fields = [("title", "text"), ("text", "text"), ("n", "number"), ("done", "bool")];
    master.admin()?.create_collection(COLLECTION, &fields)?;
    master.stop()?;
    let mut random = StdRng::seed_from_u64(1);
    let mut conn = connection::writer(&master.file("default"))?;
    let transaction = conn.transaction()?;
    {
        let sql = "INSERT INTO posts (id, title, text, n, done, created, updated) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)";
        let mut insert = transaction.prepare(sql).context("the columns of a collection")?;
        for row in 0..rows {
            let time = format!("2026-01-{:02} {:02}:00:00.000Z", 1 + row % 28, row % 24);
            insert.execute(params![
                id(row, 0),
                format!("the title of row {row}"),
                text(&mut random),
                i64::try_from(row)?,
                row % 2 == 0,
                time
            ])?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Changes, removes and adds `differences` rows in equal parts, spread over the whole table.
pub fn change(file: &Path, rows: u64, differences: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(2);
    let mut conn = connection::writer(file)?;
    let transaction = conn.transaction()?;
    for number in 0..differences {
        let row = number * rows / differences;
        let sql = match number % KINDS {
            0 => "UPDATE posts SET text = ?2 WHERE id = ?1",
            1 => "DELETE FROM posts WHERE id = ?1 AND ?2 IS NOT NULL",
            _ => {
                "INSERT INTO posts (id, title, text, n, done, created, updated)
                 SELECT substr(id, 1, 14) || '1', title, ?2, n, done, created, updated FROM posts WHERE id = ?1"
            }
        };
        let changed = transaction.prepare_cached(sql)?.execute(params![id(row, 0), text(&mut random)])?;
        anyhow::ensure!(changed == 1, "row {row} is not there to be changed");
    }
    transaction.commit()?;
    Ok(())
}

/// Ids in the order of creation, as the server makes them.
fn id(row: u64, last: u64) -> String {
    format!("{row:014}{last}")
}

fn text(random: &mut StdRng) -> String {
    (0..TEXT_DIGITS / 16).map(|_| format!("{:016x}", random.random::<u64>())).collect()
}
