//! Rows by the thousand, as an administrator brings them: one SQL statement, which is one entry of the log.

use anyhow::{Result, ensure};
use e2e::client::Client;

/// The time, as records have it.
const NOW: &str = "strftime('%Y-%m-%d %H:%M:%fZ', 'now')";

/// Inserts `count` records of about 300 bytes with `n` from `first` on into a collection with a field `n` and a field
/// `note`. Random text: it does not pack well.
pub fn insert(admin: &Client, collection: &str, first: u64, count: u64) -> Result<()> {
    let last = first + count - 1;
    let sql = format!(
        "WITH RECURSIVE numbers(n) AS (VALUES ({first}) UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}) \
         INSERT INTO {collection} (id, created, updated, n, note) \
         SELECT lower(hex(randomblob(7))) || 'z', {NOW}, {NOW}, n, hex(randomblob(150)) FROM numbers"
    );
    let reply = admin.sql(&sql)?;
    ensure!(reply.status == 200, "{count} rows into {collection}: {reply:?}");
    Ok(())
}
