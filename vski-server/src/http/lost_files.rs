//! Uploaded files that this master's rows name and its disk lacks. Whoever follows it and has one gives it back. A part of
//! the replication protocol.
//!
//! After an unplanned promotion those are the files that had not arrived: the old master has them, and gives them back
//! once it follows this one. Nobody is believed: a file is taken if its size and BLAKE3 are those of its row. Replicas have
//! no such routes: what they lack they fetch.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use vski_replication::files::{self, Audit, Flaw};
use vski_replication::names::route;

use super::error::ApiError;
use super::extract::{Params, Peer};
use super::openapi::shapes::{Binary, Error};
use super::state::MasterState;
use crate::store::error::StoreError;
use crate::store::files::Returning;
use crate::store::master::Master;

/// Files that an answer names; who gave these back asks for the next.
const FILES_NAMED: usize = 1_000;

/// Bytes that are collected before they are written.
const BUFFER: usize = 1 << 20;

/// How long the next bytes of a file may take to come.
const IDLE: Duration = Duration::from_secs(30);

/// `GET /api/replica/files?db=`, `PUT /api/replica/files/{name}?db=`.
pub fn router() -> OpenApiRouter<MasterState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(give_back))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LostParams {
    db: String,
}

/// Files that rows name and this master does not have.
#[derive(Serialize, ToSchema)]
struct LostFiles {
    /// How many.
    count: u64,
    /// The names of some.
    names: Vec<String>,
}

/// The uploaded files that this master lacks: looks for each one that a row names.
#[utoipa::path(
    get,
    path = route::FILES,
    tag = "replication",
    params(LostParams),
    responses((status = 200, body = LostFiles))
)]
async fn list(
    State(master): State<Arc<Master>>,
    _peer: Peer,
    Params(params): Params<LostParams>,
) -> Result<Json<LostFiles>, ApiError> {
    let reader = master.reader(&params.db)?;
    let (db, dir, conn) = (reader.name().to_owned(), master.dir().clone(), reader.dedicated()?);
    let audit = blocking(move || Ok(Audit::run(&conn, &dir, &db, false, FILES_NAMED)?)).await?;
    // One of another size was cut off or overwritten: what its row says may take its place.
    let lost = audit.first.iter().filter(|(_, flaw)| matches!(flaw, Flaw::Missing | Flaw::Size(_)));
    Ok(Json(LostFiles { count: audit.flawed(), names: lost.map(|(name, _)| name.clone()).collect() }))
}

/// Takes a file that this master lacks, if it is the one that its row names. One that is here is left as it is.
#[utoipa::path(
    put,
    path = "/api/replica/files/{name}",
    tag = "replication",
    params(LostParams),
    request_body(content = Binary, content_type = "application/octet-stream"),
    responses(
        (status = 204),
        (status = 408, body = Error),
        (status = 409, body = Error),
        (status = 507, body = Error)
    )
)]
async fn give_back(
    State(master): State<Arc<Master>>,
    peer: Peer,
    Path(name): Path<String>,
    Params(params): Params<LostParams>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let peer = peer.require_replica()?;
    let reader = master.reader(&params.db)?;
    let (db, wanted) = (reader.name().to_owned(), name.clone());
    let row = reader.read(move |conn| Ok(files::find(conn, &wanted)?)).await?;
    let row = row.ok_or_else(|| ApiError::not_found(format!("no record names a file {name}")))?;
    if master.dir().has_file(&db, &row) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let (uploads, to) = (master.uploads().clone(), db.clone());
    let begun = blocking(move || uploads.begin_again(&to, row)).await?;
    let returning = begun.ok_or_else(|| {
        ApiError::new(StatusCode::CONFLICT, format!("file {name} is being given back by another replica: try again"))
    })?;
    receive(returning, request.into_body()).await?;
    tracing::info!(db, file = name, replica = peer.id, "a replica gave back an uploaded file that was missing here");
    Ok(StatusCode::NO_CONTENT)
}

async fn receive(mut returning: Returning, body: Body) -> Result<(), ApiError> {
    let (mut body, mut buffer) = (body.into_data_stream(), Vec::new());
    loop {
        let piece = timeout(IDLE, body.next()).await.map_err(|_| {
            let message = format!("no more of the file came for {IDLE:?}: send it again");
            ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
        })?;
        let piece = piece.transpose().map_err(|_| ApiError::bad_request("the file was cut off: send it again"))?;
        let ended = piece.is_none();
        buffer.extend_from_slice(&piece.unwrap_or_default());
        if ended || buffer.len() >= BUFFER {
            let bytes = std::mem::take(&mut buffer);
            returning = blocking(move || returning.write(&bytes).map(|()| returning)).await?;
        }
        if ended {
            return blocking(move || returning.finish()).await;
        }
    }
}

/// Runs what waits for the disk where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::ShuttingDown)?;
    Ok(done?)
}
