//! How each replica that was heard of is doing, from its position, the log and the limits of the log.

use std::collections::HashMap;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vski_replication::changelog::{self, Retention, Standing};
use vski_replication::node::ReplicaSeen;
use vski_replication::position::Position;

use super::replicas::Replicas;
use crate::store::error::StoreError;
use crate::store::ids;
use crate::store::reader::Reader;

/// A replica that follows is heard of at least this often, and no entry waits for longer, ms: the longest pause of
/// the defaults is a minute.
const STREAMING_MS: i64 = 90_000;

/// The part of the log's limits, by age or by size, that may go by before a replica is at risk.
const RISK: f64 = 0.75;

/// What to make of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Heard of lately, and no entry waits for it for long.
    Streaming,
    /// Behind or silent, but the log still has what it needs.
    Lagging,
    /// Three quarters of what the log may hold have gone by since its position.
    AtRisk,
    /// The log does not have what it needs: it has to be made equal anew.
    Lost,
}

impl Verdict {
    /// The word in answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Lagging => "lagging",
            Self::AtRisk => "at_risk",
            Self::Lost => "lost",
        }
    }
}

/// A replica's copy of one database, as the node that it follows sees it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaRow {
    pub replica: String,
    pub db: String,
    #[schema(value_type = String)]
    pub position: Position,
    /// Entries after its position; none where the log does not have its position.
    pub entries_behind: Option<u64>,
    /// Their payloads, bytes.
    pub bytes_behind: Option<u64>,
    /// How long the oldest of them has waited.
    pub seconds_behind: Option<f64>,
    pub last_contact: String,
    pub last_contact_seconds: f64,
    /// Of its program.
    pub version: Option<String>,
    pub public_url: Option<String>,
    pub boot_id: Option<String>,
    /// Two processes use this id: set REPLICA_ID on one of them.
    pub duplicate_id: bool,
    pub verdict: Verdict,
    /// When the log will no longer have what it needs, if it stays where it is.
    pub falls_off_seconds: Option<f64>,
}

/// All replicas, by id and database. `reader` reads the logs.
pub async fn rows(
    reader: impl Fn(&str) -> Result<Reader, StoreError>,
    replicas: &Replicas,
    now_ms: i64,
) -> Result<Vec<ReplicaRow>, StoreError> {
    let mut found = Vec::new();
    for (seen, duplicate_id) in replicas.seen(now_ms) {
        let missing = match reader(&seen.db) {
            Ok(reader) => {
                let (position, counting) = (seen.position, reader.clone());
                let known = replicas.counted(&seen.replica, &seen.db, position);
                let read = reader.read(move |conn| missing(conn, position, known, counting.log_bytes(conn)?)).await?;
                if let Some(missing) = &read {
                    replicas.count(&seen.replica, &seen.db, missing.counted);
                }
                read
            }
            // A database that is gone.
            Err(_) => None,
        };
        found.push(row(seen, duplicate_id, missing, replicas.retention(), now_ms));
    }
    Ok(found)
}

/// Payload bytes after a position, up to a version: counted on from there.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    pub from: Position,
    pub upto: u64,
    pub bytes: u64,
}

/// Counts of replicas, by id and database.
pub type Counts = HashMap<(String, String), Counted>;

/// What a replica lacks.
#[derive(Clone, Copy, Debug)]
struct Missing {
    entries: u64,
    counted: Counted,
    /// Commit time of the first missing entry.
    since_ms: Option<i64>,
    /// All of the log: bytes, and the commit time of its oldest entry.
    log: (u64, i64),
}

/// `None` where the log does not have the position.
fn missing(
    conn: &Connection,
    position: Position,
    known: Option<Counted>,
    log_bytes: u64,
) -> Result<Option<Missing>, StoreError> {
    if !matches!(changelog::standing(conn, position)?, Standing::AtHead | Standing::Behind) {
        return Ok(None);
    }
    let (head, base) = (changelog::head(conn)?, changelog::base(conn)?.position.version);
    let (from, bytes) = known.map_or((position.version, 0), |known| (known.upto, known.bytes));
    let counted =
        Counted { from: position, upto: head.position.version, bytes: bytes + changelog::bytes_after(conn, from)? };
    let committed = |version| changelog::committed_ms(conn, version);
    let (since_ms, oldest_ms) = (committed(position.version + 1)?, committed(base + 1)?.unwrap_or(head.committed_ms));
    let entries = head.position.version - position.version;
    Ok(Some(Missing { entries, counted, since_ms, log: (log_bytes, oldest_ms) }))
}

fn row(
    seen: ReplicaSeen,
    duplicate_id: bool,
    missing: Option<Missing>,
    retention: Retention,
    now_ms: i64,
) -> ReplicaRow {
    let silent_ms = (now_ms - seen.last_contact_ms).max(0);
    let verdict = verdict(missing, retention, silent_ms, now_ms);
    ReplicaRow {
        entries_behind: missing.map(|missing| missing.entries),
        bytes_behind: missing.map(|missing| missing.counted.bytes),
        seconds_behind: missing.map(|missing| missing.since_ms.map_or(0.0, |since| seconds(now_ms - since))),
        falls_off_seconds: missing.and_then(|missing| falls_off(missing, retention, now_ms)),
        replica: seen.replica,
        db: seen.db,
        position: seen.position,
        last_contact: ids::format_time(seen.last_contact_ms),
        last_contact_seconds: seconds(silent_ms),
        version: seen.version,
        public_url: seen.public_url,
        boot_id: seen.boot_id,
        duplicate_id,
        verdict,
    }
}

fn verdict(missing: Option<Missing>, retention: Retention, silent_ms: i64, now_ms: i64) -> Verdict {
    let Some(missing) = missing else { return Verdict::Lost };
    let waiting_ms = missing.since_ms.map_or(0, |since| now_ms - since);
    let age = seconds(waiting_ms) / retention.max_age.as_secs_f64();
    let size = missing.counted.bytes as f64 / retention.max_bytes as f64;
    if age.max(size) >= RISK {
        Verdict::AtRisk
    } else if silent_ms <= STREAMING_MS && waiting_ms <= STREAMING_MS {
        Verdict::Streaming
    } else {
        Verdict::Lagging
    }
}

/// The log grows as it did on average, or as it did since the replica's position, whichever is faster.
fn falls_off(missing: Missing, retention: Retention, now_ms: i64) -> Option<f64> {
    let since_ms = missing.since_ms?;
    let rate = |bytes: u64, since_ms: i64| bytes as f64 / seconds(now_ms - since_ms).max(1.0);
    let growth = rate(missing.log.0, missing.log.1).max(rate(missing.counted.bytes, since_ms));
    let room = retention.max_bytes.saturating_sub(missing.counted.bytes) as f64;
    let by_age = (retention.max_age.as_secs_f64() - seconds(now_ms - since_ms)).max(0.0);
    Some(if growth > 0.0 { by_age.min(room / growth) } else { by_age })
}

fn seconds(ms: i64) -> f64 {
    ms.max(0) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vski_replication::position::{Chain, Epoch, EpochId};

    use super::*;

    const NOW: i64 = 10_000_000;
    const LIMITS: Retention = Retention { max_age: Duration::from_secs(1_000), max_bytes: 1_000 };

    fn behind(bytes: u64, waiting_seconds: i64) -> Option<Missing> {
        let from = Position { epoch: Epoch { generation: 1, id: EpochId([0; 8]) }, version: 1, chain: Chain([0; 32]) };
        let since_ms = (bytes > 0).then_some(NOW - waiting_seconds * 1_000);
        let counted = Counted { from, upto: 2, bytes };
        Some(Missing { entries: u64::from(bytes > 0), counted, since_ms, log: (500, NOW - 1_000_000) })
    }

    #[test]
    fn each_verdict_follows_from_contact_age_and_size() {
        for (missing, silent_seconds, expected) in [
            (behind(0, 0), 1, Verdict::Streaming),
            (behind(10, 5), 60, Verdict::Streaming),
            (behind(0, 0), 91, Verdict::Lagging),
            (behind(10, 100), 1, Verdict::Lagging),
            (behind(10, 750), 1, Verdict::AtRisk),
            (behind(750, 5), 1, Verdict::AtRisk),
            (None, 1, Verdict::Lost),
        ] {
            assert_eq!(verdict(missing, LIMITS, silent_seconds * 1_000, NOW), expected, "{missing:?} {silent_seconds}");
        }
    }

    #[test]
    fn a_replica_falls_off_by_age_or_sooner_by_size() {
        let predicted = |bytes, waiting| falls_off(behind(bytes, waiting).unwrap(), LIMITS, NOW);
        assert_eq!(predicted(0, 0), None);
        // 10 bytes in 400 s, the whole log 0.5 bytes a second: 990 bytes last longer than its age.
        assert_eq!(predicted(10, 400), Some(600.0));
        // 500 bytes in 100 s: the other 500 last for 100 s more.
        assert_eq!(predicted(500, 100), Some(100.0));
    }
}
