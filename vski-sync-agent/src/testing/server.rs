//! The master's side of the protocol on a loopback port, as far as the agent's tests need it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::extract::{Path, Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use vski_replication::changelog::{self, Standing};
use vski_replication::connection;
use vski_replication::names::{header, route};
use vski_replication::position::Position;
use vski_replication::ranges::{Hex, Overview, Shape};
use vski_replication::schema::{self, gate};
use vski_replication::snapshot::CHUNK_BYTES;
use vski_replication::token::{self, Audience, Secrets};

use super::Master;

/// The secret of all test nodes.
pub(crate) const SECRET: &str = "a secret that is long enough for tests";

/// What the server holds and what it was asked for.
#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) dbs: BTreeMap<String, Master>,
    /// Databases that it does not have now, as a replica in between that copies them itself.
    pub(crate) awaited: BTreeSet<String>,
    /// Databases that are told to be deleted, whether or not it has them.
    pub(crate) deleted: BTreeSet<String>,
    snapshots: BTreeMap<String, Vec<u8>>,
    /// First bytes of the chunks that were asked for, in order.
    pub(crate) chunks: Vec<u64>,
    /// Chunks, by first byte, that are sent damaged once.
    pub(crate) damage: BTreeSet<u64>,
    /// How many chunks are sent before the next one breaks the connection's promise with a 500.
    pub(crate) fail_after: Option<usize>,
    /// Snapshots whose lease ends at the next chunk.
    pub(crate) drop_leases: usize,
    pub(crate) sessions: Vec<Value>,
    pub(crate) snapshots_made: usize,
}

#[derive(Clone)]
pub(crate) struct FakeMaster {
    pub(crate) url: String,
    inner: Arc<Mutex<Inner>>,
    /// Wakes long polls.
    changed: watch::Sender<u64>,
}

impl FakeMaster {
    pub(crate) async fn start(dbs: impl IntoIterator<Item = (&'static str, Master)>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dbs = dbs.into_iter().map(|(name, master)| (name.to_owned(), master)).collect();
        let master = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            inner: Arc::new(Mutex::new(Inner { dbs, ..Inner::default() })),
            changed: watch::Sender::new(0),
        };
        let router = Router::new()
            .route(route::STATUS, get(status))
            .route(route::CHANGESET, get(changeset))
            .route(route::SCHEMA_SYNC, get(schema_sync))
            .route(route::SNAPSHOT, get(snapshot))
            .route(&format!("{}/{{id}}", route::SNAPSHOT), get(chunk))
            .route(&format!("{}/{{id}}/ranges", route::SNAPSHOT), get(overview))
            .route(route::SESSION, post(session))
            .layer(axum::middleware::from_fn(authenticate))
            .with_state(master.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        master
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Changes a database, and wakes whoever waits for it.
    pub(crate) fn write<T>(&self, db: &str, write: impl FnOnce(&mut Master) -> T) -> T {
        let written = write(self.lock().dbs.get_mut(db).unwrap());
        self.changed.send_modify(|count| *count += 1);
        written
    }

    pub(crate) fn position(&self, db: &str) -> Position {
        self.lock().dbs[db].position()
    }
}

/// Waits until `condition` holds, for a bounded time.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn authenticate(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let token = request.headers().get(AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
    let mut response = match Secrets::new(SECRET, None).verify(token::from_authorization(token)) {
        Ok(claims) if claims.aud == Audience::Replica => next.run(request).await,
        Ok(_) => refuse(StatusCode::FORBIDDEN, "not a replica"),
        Err(error) => refuse(StatusCode::UNAUTHORIZED, &error.to_string()),
    };
    response.headers_mut().insert(header::REPLICA_MODE, "master".parse().unwrap());
    response
}

async fn status(State(master): State<FakeMaster>, Query(query): Query<BTreeMap<String, String>>) -> Json<Value> {
    let deadline = tokio::time::Instant::now() + wait(&query);
    let mut changed = master.changed.subscribe();
    loop {
        let names = master.lock().dbs.keys().cloned().collect::<Vec<_>>().join(",");
        if query.get("known") != Some(&names) || tokio::time::timeout_at(deadline, changed.changed()).await.is_err() {
            break;
        }
    }
    let inner = master.lock();
    let list = inner.dbs.iter().filter(|(name, _)| !inner.awaited.contains(*name)).map(|(name, db)| {
        let position = db.position();
        json!({
            "name": name, "size": 0, "sha256": position.chain, "schemaVersion": 1, "databaseId": db.id,
            "generation": position.epoch.generation, "epoch": position.epoch.id, "version": position.version,
            "schemaHash": schema::hash(&db.conn).unwrap(), "headTime": 0,
        })
    });
    Json(json!({ "dbs": list.collect::<Vec<_>>(), "awaited": inner.awaited, "deleted": inner.deleted }))
}

#[derive(Deserialize)]
struct Asked {
    db: String,
    epoch: String,
    version: u64,
    chain: String,
}

async fn changeset(
    State(master): State<FakeMaster>,
    Query(query): Query<BTreeMap<String, String>>,
    Query(asked): Query<Asked>,
) -> Response {
    let deadline = tokio::time::Instant::now() + wait(&query);
    let mut changed = master.changed.subscribe();
    let position: Position = format!("{}:{}:{}", asked.epoch, asked.version, asked.chain).parse().unwrap();
    loop {
        let answer = answer(&master, &asked.db, position);
        if answer.status() != StatusCode::NO_CONTENT
            || tokio::time::timeout_at(deadline, changed.changed()).await.is_err()
        {
            return answer;
        }
    }
}

fn answer(master: &FakeMaster, db: &str, position: Position) -> Response {
    let inner = master.lock();
    if inner.awaited.contains(db) {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "it is not copied yet");
    }
    let Some(db) = inner.dbs.get(db) else { return refuse(StatusCode::NOT_FOUND, "no such database") };
    let mut response = match changelog::standing(&db.conn, position).unwrap() {
        Standing::AtHead => StatusCode::NO_CONTENT.into_response(),
        Standing::Behind => {
            let mut frames = Vec::new();
            // Small batches, so that catching up takes several.
            let entries = changelog::read_after(&db.conn, position.version, 2000).unwrap();
            entries.iter().for_each(|entry| entry.encode(&mut frames));
            ([(CONTENT_ENCODING, "zstd")], zstd::encode_all(frames.as_slice(), 1).unwrap()).into_response()
        }
        Standing::Diverged { common } => {
            (StatusCode::CONFLICT, Json(json!({ "error": "diverged", "data": { "common": common } }))).into_response()
        }
        Standing::BelowBase { base } => {
            (StatusCode::GONE, Json(json!({ "error": "pruned", "data": { "base": base } }))).into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::HEAD, db.position().to_string().parse().unwrap());
    headers.insert(header::DATABASE_ID, db.id.to_string().parse().unwrap());
    headers.insert(header::SCHEMA_HASH, schema::hash(&db.conn).unwrap().to_string().parse().unwrap());
    response
}

async fn schema_sync(State(master): State<FakeMaster>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let version = query["version"].parse().unwrap();
    match changelog::schema_at(&master.lock().dbs[&query["db"]].conn, version).unwrap() {
        Some(objects) => {
            let hash = schema::hash_objects(&objects);
            Json(json!({ "db": query["db"], "version": version, "schemaVersion": 1, "hash": hash, "objects": objects }))
                .into_response()
        }
        None => refuse(StatusCode::NOT_FOUND, "the log no longer tells"),
    }
}

async fn snapshot(State(master): State<FakeMaster>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let mut inner = master.lock();
    inner.snapshots_made += 1;
    let Some(db) = inner.dbs.get(&query["db"]) else { return refuse(StatusCode::NOT_FOUND, "no such database") };
    let problems: Vec<_> = gate::problems(&db.conn).unwrap().iter().map(ToString::to_string).collect();
    if !problems.is_empty() {
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, &problems.join("; "));
    }
    let file = tempfile::tempdir().unwrap();
    db.copy_to(&file.path().join("copy"));
    let bytes = std::fs::read(file.path().join("copy")).unwrap();
    let mut manifest = db.manifest(&query["db"], &bytes);
    manifest.id = format!("snapshot-{}", inner.snapshots_made);
    let manifest = manifest.sealed();
    inner.snapshots.insert(manifest.id.clone(), bytes);
    Json(manifest).into_response()
}

async fn chunk(State(master): State<FakeMaster>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let mut inner = master.lock();
    if inner.drop_leases > 0 {
        inner.drop_leases -= 1;
        inner.snapshots.remove(&id);
    }
    let range = headers[RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (range.0.parse().unwrap(), range.1.parse().unwrap());
    if inner.fail_after == Some(0) {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "broken");
    }
    inner.fail_after = inner.fail_after.map(|left| left - 1);
    inner.chunks.push(first as u64);
    let damaged = inner.damage.remove(&(first as u64));
    let Some(bytes) = inner.snapshots.get(&id) else { return refuse(StatusCode::NOT_FOUND, "no lease") };
    let mut bytes = bytes[first..=last].to_vec();
    assert!(bytes.len() as u64 <= CHUNK_BYTES);
    if damaged {
        bytes[0] ^= 1;
    }
    (StatusCode::PARTIAL_CONTENT, bytes).into_response()
}

/// What a snapshot holds; enough for a copy whose rows are the master's.
async fn overview(State(master): State<FakeMaster>, Path(id): Path<String>) -> Response {
    let Some(bytes) = master.lock().snapshots.get(&id).cloned() else {
        return refuse(StatusCode::NOT_FOUND, "no lease");
    };
    let file = tempfile::tempdir().unwrap();
    std::fs::write(file.path().join("copy"), bytes).unwrap();
    let conn = connection::finished_copy(&file.path().join("copy")).unwrap();
    let (objects, head) = (schema::objects(&conn).unwrap(), changelog::head(&conn).unwrap());
    let tables = objects.iter().filter(|object| object.kind == "table").map(|object| {
        let digest = Shape::read(&conn, &object.name).unwrap().cut(&conn, |_, _| Ok(()));
        digest.unwrap()
    });
    let overview = Overview {
        tables: tables.collect(),
        database_id: changelog::database_id(&conn).unwrap(),
        position: head.position,
        schema_version: changelog::schema_version(&conn).unwrap(),
        schema_hash: head.schema_hash,
        committed_ms: head.committed_ms,
        objects,
        digest: Hex(Vec::new()),
    };
    Json(overview.sealed()).into_response()
}

async fn session(State(master): State<FakeMaster>, Json(body): Json<Value>) -> StatusCode {
    master.lock().sessions.push(body);
    StatusCode::NO_CONTENT
}

fn wait(query: &BTreeMap<String, String>) -> Duration {
    Duration::from_secs(query.get("wait").map_or(0, |wait| wait.parse().unwrap()))
}

fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}
