//! The collection that all systems have, and its rows.

use std::path::Path;

use anyhow::{Context, Result};
use e2e::client::Client;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use rusqlite::params;
use serde_json::{Value, json};
use vski_replication::connection;

/// Its name.
pub const NAME: &str = "posts";

/// Characters of a title and of a content: with the numbers about 200 bytes a row, as PocketBase and VSKI store it.
const TITLE: usize = 24;
const CONTENT: usize = 122;

/// `views` is evenly spread below this.
const VIEWS: u32 = 1000;

const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// How a system makes ids.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// In the order of creation, as VSKI.
    Ordered,
    /// Random, as PocketBase.
    Random,
}

/// The body that makes the collection, in the words of PocketBase: everybody may do everything. `created` has an index.
fn collection() -> Value {
    json!({
        "name": NAME,
        "type": "base",
        "fields": [
            {"name": "title", "type": "text"},
            {"name": "content", "type": "text"},
            {"name": "views", "type": "number"},
            {"name": "published", "type": "bool"},
            {"name": "created", "type": "autodate", "onCreate": true},
            {"name": "updated", "type": "autodate", "onCreate": true, "onUpdate": true},
        ],
        "indexes": [format!("CREATE INDEX idx_posts_created ON {NAME} (created)")],
        "listRule": "", "viewRule": "", "createRule": "", "updateRule": "", "deleteRule": "",
    })
}

/// Makes the collection through the API.
pub fn create(admin: &Client) -> Result<()> {
    admin.send(Method::POST, "/api/collections", Some(&collection()))?.ok()?;
    Ok(())
}

/// Adds rows to the file of a system that is not running: the fastest way for millions, and the same for each system.
pub fn fill(file: &Path, rows: u64, ids: Ids) -> Result<()> {
    let mut random = StdRng::seed_from_u64(1);
    let mut conn = connection::writer(file)?;
    let transaction = conn.transaction()?;
    {
        let sql = "INSERT INTO posts (id, title, content, views, published, created, updated)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)";
        let mut insert = transaction.prepare(sql).context("the columns of the collection")?;
        for row in 0..rows {
            let id = match ids {
                Ids::Ordered => format!("{row:015}"),
                Ids::Random => text(&mut random, 15),
            };
            let (title, content) = (text(&mut random, TITLE), text(&mut random, CONTENT));
            let views = random.random_range(0..VIEWS);
            insert.execute(params![id, title, content, views, row % 2 == 0, time(row)])?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Writes the ids of up to `most` rows, spread over the whole table, into a file, one a line.
pub fn write_ids(file: &Path, most: i64, to: &Path) -> Result<()> {
    let conn = connection::reader(file)?;
    let count: i64 = conn.query_row("SELECT count(*) FROM posts", [], |row| row.get(0))?;
    let step = (count / most).max(1);
    let mut statement = conn.prepare("SELECT id FROM posts WHERE rowid % ?1 = 0")?;
    let ids = statement.query_map([step], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    std::fs::write(to, ids.join("\n")).with_context(|| format!("write {}", to.display()))
}

/// A new record as the API takes it, about 200 bytes.
pub fn record(random: &mut StdRng) -> Value {
    json!({
        "title": text(random, TITLE),
        "content": text(random, CONTENT),
        "views": random.random_range(0..VIEWS),
        "published": true,
    })
}

/// Rows are created a second after each other.
fn time(row: u64) -> String {
    let (day, second) = (row / 86_400, row % 86_400);
    let (month, day) = (day / 28 % 12, day % 28);
    format!("2025-{:02}-{:02} {:02}:{:02}:{:02}.000Z", month + 1, day + 1, second / 3600, second / 60 % 60, second % 60)
}

fn text(random: &mut StdRng, length: usize) -> String {
    (0..length).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_record_is_a_body_of_about_200_bytes() {
        let length = record(&mut StdRng::seed_from_u64(3)).to_string().len();
        assert!((195..=205).contains(&length), "{length}");
    }

    #[test]
    fn rows_are_created_in_order() {
        assert_eq!(time(0), "2025-01-01 00:00:00.000Z");
        assert_eq!(time(86_400 + 3_661), "2025-01-02 01:01:01.000Z");
        assert!(time(86_400 * 28) > time(86_400 * 28 - 1));
    }
}
