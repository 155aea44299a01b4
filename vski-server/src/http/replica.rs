//! What replicas ask the node that they follow, a master or a replica in between (docs/ARCHITECTURE.md has the
//! protocol). Every call carries a replica's token.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header as http_header};
use axum::response::Response;
use axum::{Json, middleware};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_http::services::ServeFile;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use vski_replication::changelog::{self, Standing};
use vski_replication::names::{self, route};
use vski_replication::position::Position;
use vski_replication::snapshot::Manifest;
use vski_replication::{clock, schema};

use super::error::ApiError;
use super::extract::{Body, Params, Peer};
use super::layers;
use super::openapi::shapes::{Binary, Error, ReplicaList, SchemaSync, SnapshotManifest};
use super::state::SourceState;
use crate::app::{App, Databases};
use crate::replication::snapshot::Snapshots;
use crate::replication::status::{self, Status};
use crate::replication::verdict;

/// Entries after a position.
mod changeset;

/// Longest a long poll waits, seconds.
const MAX_WAIT_SECONDS: u64 = 60;

/// `GET /api/replica/status`, `schema-sync`, `changeset`, `snapshot`, `snapshot/{id}`, `replicas`; `POST session`.
pub fn router() -> OpenApiRouter<SourceState> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(schema_sync))
        .routes(routes!(changeset::changeset))
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
