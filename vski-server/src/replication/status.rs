//! Databases and their positions (the specification's "Sync Status", and what replicas need beyond it).

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use vski_replication::changelog;
use vski_replication::names;
use vski_replication::position::{Chain, DatabaseId, EpochId, SchemaHash};

use crate::app::{App, Databases};
use crate::store::error::StoreError;
use crate::store::ids;
use crate::store::reader::Reader;
use crate::store::replica::{Offer, Replica};

/// How often a replica's set of databases is looked at while somebody waits for another one.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// One database. The first four keys are the specification's.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    name: String,
    /// Bytes of the database, without its write-ahead log.
    size: u64,
    /// The chain at the head: equal histories have equal ones.
    #[schema(value_type = String)]
    sha256: Chain,
    /// Schema entries so far.
    schema_version: u64,
    #[schema(value_type = String)]
    database_id: DatabaseId,
    generation: u64,
    #[schema(value_type = String)]
    epoch: EpochId,
    version: u64,
    #[schema(value_type = String)]
    schema_hash: SchemaHash,
    /// When the last entry was committed.
    head_time: String,
}

/// The databases of a node.
#[derive(Serialize, ToSchema)]
pub struct Status {
    dbs: Vec<DatabaseStatus>,
    /// On a replica: names of those that it does not have yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    awaited: Vec<String>,
    /// Names of those that were deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deleted: Vec<String>,
}

/// All databases that are there, by name.
pub async fn databases(app: &App) -> Result<Status, StoreError> {
    let (readers, awaited) = match &app.databases {
        Databases::Master(_) => (app.readers()?, Vec::new()),
        Databases::Replica(replica) => offered(replica)?,
    };
    let mut dbs = Vec::new();
    for reader in readers {
        dbs.push(database(&reader).await?);
    }
    // Meanwhile one may have been deleted: nobody is to hear of it as both.
    let deleted = deleted(app)?;
    dbs.retain(|database| !deleted.contains(&database.name));
    Ok(Status { dbs, awaited, deleted })
}

/// The names of deleted databases, as far as this node knows.
pub fn deleted(app: &App) -> Result<Vec<String>, StoreError> {
    match &app.databases {
        Databases::Master(master) => Ok(master.deleted()),
        Databases::Replica(replica) => Ok(replica.account()?.deleted.to_vec()),
    }
}

/// What a replica has for others, and the names of what it is still to have.
fn offered(replica: &Replica) -> Result<(Vec<Reader>, Vec<String>), StoreError> {
    let unknown = || StoreError::NotReady(names::DEFAULT_DATABASE.to_owned());
    let Offer { present, mut awaited } = Offer::of(&replica.states()?).ok_or_else(unknown)?;
    let mut readers = Vec::new();
    for name in present {
        match replica.reader(&name) {
            Ok(reader) => readers.push(reader),
            Err(StoreError::NotReady(_) | StoreError::NotFound(_)) => awaited.push(name),
            Err(error) => return Err(error),
        }
    }
    Ok((readers, awaited))
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
    let differs =
        |names: &[String]| names.len() != known.len() || !names.iter().all(|name| known.contains(&name.as_str()));
    let wait = async {
        match &app.databases {
            Databases::Master(master) => {
                let mut changed = master.changed();
                let names = || master.all().into_iter().map(|database| database.name).collect::<Vec<_>>();
                while !differs(&names()) && changed.changed().await.is_ok() {}
            }
            // The agent may be another process: its account is looked at. An error is told by the answer.
            Databases::Replica(replica) => {
                let offer = || replica.states().ok().and_then(|states| Offer::of(&states));
                while offer().is_some_and(|offer| !differs(&offer.present)) {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    };
    tokio::select! {
        () = wait => {}
        () = tokio::time::sleep(limit) => {}
        () = app.shutdown.cancelled() => {}
    }
}
