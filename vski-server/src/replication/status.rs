//! Databases and their positions (the specification's "Sync Status", and what replicas need beyond it).

use std::time::Duration;

use serde::Serialize;
use vski_replication::changelog;
use vski_replication::position::{Chain, DatabaseId, EpochId, SchemaHash};

use crate::app::{App, Databases};
use crate::store::error::StoreError;
use crate::store::ids;
use crate::store::reader::Reader;

/// One database. The first four keys are the specification's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    name: String,
    /// Bytes of the database, without its write-ahead log.
    size: u64,
    /// The chain at the head: equal histories have equal ones.
    sha256: Chain,
    /// Schema entries so far.
    schema_version: u64,
    database_id: DatabaseId,
    generation: u64,
    epoch: EpochId,
    version: u64,
    schema_hash: SchemaHash,
    /// When the last entry was committed.
    head_time: String,
}

/// All databases that are there, by name.
pub async fn databases(app: &App) -> Result<Vec<DatabaseStatus>, StoreError> {
    let mut found = Vec::new();
    for reader in app.readers()? {
        found.push(database(&reader).await?);
    }
    Ok(found)
}

async fn database(reader: &Reader) -> Result<DatabaseStatus, StoreError> {
    let name = reader.name().to_owned();
    let read = reader.read(move |conn| {
        let head = changelog::head(conn)?;
        let size: i64 = conn
            .prepare_cached("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")?
            .query_row([], |row| row.get(0))?;
        Ok(DatabaseStatus {
            name,
            size: u64::try_from(size).unwrap_or(0),
            sha256: head.position.chain,
            schema_version: changelog::schema_version(conn)?,
            database_id: changelog::database_id(conn)?,
            generation: head.position.epoch.generation,
            epoch: head.position.epoch.id,
            version: head.position.version,
            schema_hash: head.schema_hash,
            head_time: ids::format_time(head.committed_ms),
        })
    });
    read.await
}

/// Returns when the set of databases differs from `known`, or after `limit`, or when the process ends.
pub async fn wait_for_other_set(app: &App, known: &[&str], limit: Duration) {
    let Databases::Master(master) = &app.databases else { return };
    let mut changed = master.changed();
    let differs = || {
        let names: Vec<_> = master.all().into_iter().map(|database| database.name).collect();
        names.len() != known.len() || !names.iter().all(|name| known.contains(&name.as_str()))
    };
    let wait = async {
        while !differs() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = wait => {}
        () = tokio::time::sleep(limit) => {}
        () = app.shutdown.cancelled() => {}
    }
}
