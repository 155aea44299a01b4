//! Uploaded files for replicas: the bytes of one, or whether to ask again. A part of the replication protocol.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use vski_replication::files;
use vski_replication::names::{self, header};

use super::error::ApiError;
use super::extract::{Params, Peer};
use super::files::{etag, send};
use super::openapi::shapes::{Binary, Error};
use super::state::SourceState;
use crate::app::{App, Databases};

/// `GET /api/replica/files/{name}?db=`.
pub fn router() -> OpenApiRouter<SourceState> {
    OpenApiRouter::new().routes(routes!(file))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct FileParams {
    db: String,
}

/// An uploaded file, whole or by `Range`.
#[utoipa::path(
    get,
    path = "/api/replica/files/{name}",
    tag = "replication",
    params(FileParams),
    responses(
        (status = 200, body = Binary, content_type = "*/*"),
        (status = 206, body = Binary, content_type = "*/*"),
        (status = 304),
        (status = 416, body = Error)
    )
)]
async fn file(
    State(app): State<App>,
    peer: Peer,
    Path(name): Path<String>,
    Params(params): Params<FileParams>,
    request: Request,
) -> Result<Response, ApiError> {
    peer.require_replica()?;
    let reader = app.reader(&params.db)?;
    let wanted = name.clone();
    let row = reader.read(move |conn| Ok(files::find(conn, &wanted)?)).await?;
    let (db, dir) = (reader.name().to_owned(), app.dir().clone());
    if let Some(row) = &row
        && dir.has_file(&db, row)
    {
        return send(&dir, &db, row, request, etag(row)).await;
    }
    if row.is_some() && matches!(app.databases, Databases::Master(_)) {
        tracing::error!(
            db,
            file = name,
            "an uploaded file is missing in storage: a replica that has it gives it back within ten minutes; else copy it \
             from a backup to storage/<db>/<file> of this DATA_DIR, where it is served at once"
        );
        return Err(ApiError::not_found(format!(
            "file {name} is missing on this master, and a record names it: a replica that has it gives it back, else copy it \
             from a backup to storage/{db}/{name} of its DATA_DIR"
        )));
    }
    if matches!(app.databases, Databases::Replica(_)) {
        // With the row it is on its way; without, the row may be.
        let message = format!("file {name} is not here yet: try again shortly");
        let mut response = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response();
        response.headers_mut().insert(header::STANDING, HeaderValue::from_static(names::FILE_AWAITED));
        return Ok(response);
    }
    Err(ApiError::not_found(format!("no record names a file {name}")))
}
