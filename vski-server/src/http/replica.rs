//! What replicas ask the node that they follow, a master or a replica in between (docs/ARCHITECTURE.md has the
//! protocol). Every call carries a replica's token.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header as http_header};
use axum::response::{IntoResponse, Response};
use axum::{Json, middleware};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt;
use tower_http::services::ServeFile;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use vski_replication::changelog::{self, Head, Standing};
use vski_replication::entry::Entry;
use vski_replication::names::{self, header, route};
use vski_replication::position::{Chain, DatabaseId, Epoch, Position};
use vski_replication::snapshot::Manifest;
use vski_replication::{clock, schema};

use super::error::ApiError;
use super::extract::{Body, Params, Peer};
use super::layers;
use super::openapi::shapes::{Binary, Error, ReplicaList, SchemaSync, SnapshotManifest};
use super::state::SourceState;
use crate::app::{App, Databases};
use crate::replication::relay::{self, Relay};
use crate::replication::snapshot::Snapshots;
use crate::replication::status::{self, Status};
use crate::replication::verdict;

/// Longest a long poll waits, seconds.
const MAX_WAIT_SECONDS: u64 = 60;

/// Payload of one batch of entries, bytes; a single larger entry still goes whole.
const BATCH_BYTES: usize = 8 << 20;

/// zstd's level for entries: fast, and most of the gain.
const COMPRESSION_LEVEL: i32 = 1;

/// `GET /api/replica/status`, `schema-sync`, `changeset`, `snapshot`, `snapshot/{id}`, `replicas`; `POST session`.
pub fn router() -> OpenApiRouter<SourceState> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(schema_sync))
        .routes(routes!(changeset))
        .routes(routes!(snapshot))
        .routes(routes!(snapshot_file))
        .routes(routes!(session))
        .routes(routes!(list_replicas))
        .route_layer(middleware::from_fn(layers::tell_time))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct StatusParams {
    wait: Option<u64>,
    known: Option<String>,
}

/// Tells which databases there are, and where they stand.
#[utoipa::path(
    get,
    path = route::STATUS,
    tag = "replication",
    params(StatusParams),
    responses((status = 200, body = Status))
)]
async fn status(
    State(app): State<App>,
    _peer: Peer,
    Params(params): Params<StatusParams>,
) -> Result<Json<Status>, ApiError> {
    let known: Option<Vec<&str>> =
        params.known.as_deref().map(|known| known.split(',').filter(|name| !name.is_empty()).collect());
    if let (Some(wait), Some(known)) = (params.wait, known) {
        status::wait_for_other_set(&app, &known, Duration::from_secs(wait.min(MAX_WAIT_SECONDS))).await;
    }
    Ok(Json(status::databases(&app).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SchemaParams {
    db: String,
    version: Option<u64>,
}

/// Tells a database's schema.
#[utoipa::path(
    get,
    path = route::SCHEMA_SYNC,
    tag = "replication",
    params(SchemaParams),
    responses((status = 200, body = SchemaSync))
)]
async fn schema_sync(
    State(app): State<App>,
    _peer: Peer,
    Params(params): Params<SchemaParams>,
) -> Result<Json<Value>, ApiError> {
    let SchemaParams { db, version } = params;
    let wanted = version;
    let reader = app.reader(&db)?;
    let found = reader.read(move |conn| {
        let head = changelog::head(conn)?;
        let objects = match wanted {
            Some(version) if version > head.position.version => None,
            Some(version) => changelog::schema_at(conn, version)?,
            None => Some(schema::objects(conn)?),
        };
        let schema_version = changelog::schema_version_at(conn, wanted.unwrap_or(head.position.version))?;
        Ok((objects, head, schema_version))
    });
    let (objects, head, schema_version) = found.await?;
    let objects = objects.ok_or_else(|| ApiError::not_found("the log does not tell the schema at that version"))?;
    Ok(Json(json!({
        "db": db,
        "version": version.unwrap_or(head.position.version),
        "schemaVersion": schema_version,
        "hash": schema::hash_objects(&objects),
        "objects": objects,
    })))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ChangesetParams {
    db: String,
    /// `<generation>-<epoch id>`.
    #[param(value_type = String)]
    epoch: Epoch,
    version: u64,
    #[param(value_type = String)]
    chain: Chain,
    wait: Option<u64>,
    /// How long the caller has been there, ms: it is ready to wait for a replica that is behind it.
    held: Option<i64>,
    /// Whether the caller is only about to be there.
    ahead: Option<bool>,
}

/// What the log has for a peer, read in one transaction.
struct Found {
    /// What a replica passes on of its master.
    relay: Option<Relay>,
    /// The peer is further than this replica, and waits for it.
    waits: bool,
    head: Head,
    database_id: DatabaseId,
    standing: Standing,
    base: Position,
    entries: Vec<Entry>,
}

/// Entries of the log after a position, which is acknowledged by this unless it is asked `ahead`.
#[utoipa::path(
    get,
    path = route::CHANGESET,
    tag = "replication",
    params(ChangesetParams),
    responses(
        (status = 200, body = Binary, content_type = "application/octet-stream"),
        (status = 204, description = "nothing new"),
        (status = 409, body = Error, description = "the position is not in this log"),
        (status = 410, body = Error, description = "the entries are gone")
    )
)]
async fn changeset(
    State(app): State<App>,
    peer: Peer,
    Params(params): Params<ChangesetParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let peer = peer.require_replica()?;
    let position = Position { epoch: params.epoch, version: params.version, chain: params.chain };
    let deadline = Instant::now() + Duration::from_secs(params.wait.unwrap_or(0).min(MAX_WAIT_SECONDS));
    let found = loop {
        let found = find(&app, &params.db, position, params.held).await?;
        let has_news = found.standing != Standing::AtHead && !found.waits;
        if has_news || Instant::now() >= deadline || !news(&app, &params.db, position, found.waits, deadline).await? {
            break found;
        }
    };
    if matches!(found.standing, Standing::AtHead | Standing::Behind) && params.ahead != Some(true) {
        // The position sent is the acknowledgement.
        app.replicas.heard(&peer, &params.db, position);
    }
    answer(found, &headers)
}

/// Waits until the log may have something else to say to `peer`, or the deadline; `false` at the end of this process.
async fn news(app: &App, db: &str, peer: Position, waits: bool, deadline: Instant) -> Result<bool, ApiError> {
    // What is announced, or was looked at, may be older than what the log said.
    let is_news = |head: &Head| !relay::is_ahead(peer, head.position) && (waits || head.position != peer);
    let news = async {
        match &app.databases {
            Databases::Master(master) => {
                let mut head = master.database(db)?.writer.head();
                drop(head.wait_for(is_news).await);
            }
            Databases::Replica(replica) => {
                // Without a head the file is gone, which is news too.
                let mut heads = replica.heads(db);
                let seen = heads.wait_for(Option::is_some).await.is_ok();
                if seen {
                    drop(heads.wait_for(|head| head.as_ref().is_none_or(is_news)).await);
                }
            }
        }
        Ok(true)
    };
    tokio::select! {
        news = news => news,
        () = tokio::time::sleep_until(deadline) => Ok(true),
        () = app.shutdown.cancelled() => Ok(false),
    }
}

async fn find(app: &App, db: &str, peer: Position, held_ms: Option<i64>) -> Result<Found, ApiError> {
    // Before the log, which then holds at least what this says.
    let relay = Relay::of(app, db)?;
    let reader = app.reader(db)?;
    let found = reader.read(move |conn| {
        let (head, base) = (changelog::head(conn)?, changelog::base(conn)?.position);
        let asks = |relay: &Relay| held_ms.is_some_and(|held| relay.asks_to_wait(peer, head.position, held));
        let waits = relay.as_ref().is_some_and(asks);
        let standing = changelog::standing(conn, peer)?;
        let entries = match standing {
            Standing::Behind => changelog::read_after(conn, peer.version, BATCH_BYTES)?,
            _ => Vec::new(),
        };
        Ok(Found { head, database_id: changelog::database_id(conn)?, base, standing, entries, relay, waits })
    });
    Ok(found.await?)
}

/// The answer to a position: each has the headers that tell where this log stands.
fn answer(found: Found, request: &HeaderMap) -> Result<Response, ApiError> {
    let mut headers = HeaderMap::new();
    let text = |value: String| HeaderValue::from_str(&value).expect("hex digits and numbers are header text");
    headers.insert(header::HEAD, text(found.head.position.to_string()));
    headers.insert(header::DATABASE_ID, text(found.database_id.to_string()));
    headers.insert(header::SCHEMA_HASH, text(found.head.schema_hash.to_string()));
    if let Some(relay) = &found.relay {
        relay.tell(&mut headers);
    }
    if found.waits {
        headers.insert(header::STANDING, HeaderValue::from_static(names::PARENT_BEHIND));
        return Ok((StatusCode::NO_CONTENT, headers).into_response());
    }
    let head = found.head.position;
    let refusal = match found.standing {
        Standing::AtHead => return Ok((StatusCode::NO_CONTENT, headers).into_response()),
        Standing::Behind => {
            let body = frames(&found.entries, request, &mut headers)?;
            return Ok((headers, body).into_response());
        }
        Standing::Diverged { common } => {
            let message = "this log does not contain the position sent: the histories have parted";
            ApiError::new(StatusCode::CONFLICT, message).with("common", common.to_string())
        }
        Standing::BelowBase { base } => {
            let message = "the entries after the position sent are no longer kept";
            ApiError::new(StatusCode::GONE, message).with("base", base.to_string())
        }
    };
    tracing::warn!(base = %found.base, %head, status = %refusal.status, "a replica's position is not in this log");
    let refusal = refusal.with("head", head.to_string()).with("databaseId", found.database_id.to_string());
    Ok((headers, refusal).into_response())
}

fn frames(entries: &[Entry], request: &HeaderMap, headers: &mut HeaderMap) -> Result<Vec<u8>, ApiError> {
    let traced = request.get(header::FRAMES).is_some_and(|value| value == names::TRACED_FRAMES);
    let encode = if traced { Entry::encode_traced } else { Entry::encode };
    let mut frames = Vec::new();
    entries.iter().for_each(|entry| encode(entry, &mut frames));
    headers.insert(http_header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let accepted = request.get(http_header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accepted.split(',').any(|coding| coding.trim().split(';').next() == Some("zstd")) {
        return Ok(frames);
    }
    headers.insert(http_header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
    zstd::bulk::compress(&frames, COMPRESSION_LEVEL)
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("compress entries: {error}")))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SnapshotParams {
    db: String,
    /// The copy must have the entries up to here.
    version: Option<u64>,
}

/// Makes a copy of a database, and tells what to expect of it.
#[utoipa::path(
    get,
    path = route::SNAPSHOT,
    tag = "replication",
    params(SnapshotParams),
    responses((status = 200, body = SnapshotManifest), (status = 422, body = Error), (status = 507, body = Error))
)]
async fn snapshot(
    State(app): State<App>,
    State(snapshots): State<Arc<Snapshots>>,
    peer: Peer,
    Params(params): Params<SnapshotParams>,
) -> Result<Json<Manifest>, ApiError> {
    peer.require_replica()?;
    let (reader, wanted) = (app.reader(&params.db)?, params.version.unwrap_or(0));
    if matches!(app.databases, Databases::Replica(_)) {
        let here = reader.read(|conn| Ok(changelog::head(conn)?.position.version)).await?;
        if here < wanted {
            let message = format!("this replica is at version {here} itself, not at {wanted} yet: try again shortly");
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
    }
    Ok(Json(snapshots.take(&reader, wanted).await?))
}

/// A copy of a database, whole or by `Range`.
#[utoipa::path(
    get,
    path = "/api/replica/snapshot/{id}",
    tag = "replication",
    responses(
        (status = 200, body = Binary, content_type = "application/octet-stream"),
        (status = 206, body = Binary, content_type = "application/octet-stream"),
        (status = 304),
        (status = 410, body = Error, description = "the lease was broken"),
        (status = 412),
        (status = 416, body = Error)
    )
)]
async fn snapshot_file(
    State(snapshots): State<Arc<Snapshots>>,
    peer: Peer,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    peer.require_replica()?;
    let Some(path) = snapshots.renew(&id) else {
        return Err(if snapshots.is_broken(&id) {
            let message =
                "this snapshot's lease was broken, because the log grew too large meanwhile: ask for a new one";
            ApiError::new(StatusCode::GONE, message)
        } else {
            ApiError::not_found("this snapshot's lease has ended: ask for a new one")
        });
    };
    let served = ServeFile::new(path).oneshot(request).await;
    let mut response = served.unwrap_or_else(|never| match never {}).map(axum::body::Body::new);
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{id}\"")) {
        response.headers_mut().insert(http_header::ETAG, etag);
    }
    Ok(response)
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ReplicaSession)]
struct Session {
    db: String,
    #[schema(value_type = String)]
    position: Position,
}

/// A replica that has just replaced its copy says where it starts: its own row, never another's.
#[utoipa::path(
    post,
    path = route::SESSION,
    tag = "replication",
    request_body = Session,
    responses((status = 204), (status = 409, body = Error, description = "the position is not in this log"))
)]
async fn session(State(app): State<App>, peer: Peer, body: Body<Session>) -> Result<StatusCode, ApiError> {
    let peer = peer.require_replica()?;
    let Session { db, position } = body.value;
    if !names::is_database_name(&db) {
        return Err(ApiError::bad_request(format!("db must be {}", names::DATABASE_NAME_RULE)));
    }
    let standing = app.reader(&db)?.read(move |conn| Ok(changelog::standing(conn, position)?)).await?;
    if matches!(standing, Standing::Diverged { .. }) {
        return Err(ApiError::new(StatusCode::CONFLICT, "this log does not contain the position sent"));
    }
    app.replicas.heard(&peer, &db, position);
    Ok(StatusCode::NO_CONTENT)
}

/// Tells which replicas were heard of, and how they are doing. For replicas and admins.
#[utoipa::path(get, path = route::REPLICAS, tag = "replication", responses((status = 200, body = ReplicaList)))]
async fn list_replicas(State(app): State<App>, _peer: Peer) -> Result<Json<Value>, ApiError> {
    let rows = verdict::rows(|db| app.reader(db), &app.replicas, clock::now_ms()).await?;
    Ok(Json(json!({ "replicas": rows })))
}
