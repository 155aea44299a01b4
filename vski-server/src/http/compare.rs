//! What replicas ask about a snapshot's content: `GET …/snapshot/{id}/ranges` and `…/rows`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use vski_replication::names::route;

use super::error::ApiError;
use super::extract::{Params, Peer};
use super::state::SourceState;
use crate::replication::compare::Compare;
use crate::store::error::StoreError;

/// `ranges` is the overview, `ranges?table=` one table's ranges. `rows?table=&range=&through=` the hashes of the rows of
/// some ranges, `rows?table=&range=&places=1,5` or `places=all` rows of one range.
pub fn router() -> Router<SourceState> {
    let base = format!("{}/{{id}}", route::SNAPSHOT);
    Router::new().route(&format!("{base}/ranges"), get(ranges)).route(&format!("{base}/rows"), get(rows))
}

#[derive(Deserialize)]
struct RangesParams {
    table: Option<String>,
}

#[derive(Deserialize)]
struct RowsParams {
    table: String,
    range: usize,
    through: Option<usize>,
    places: Option<String>,
}

async fn ranges(
    State(compare): State<Arc<Compare>>,
    peer: Peer,
    Path(id): Path<String>,
    Params(params): Params<RangesParams>,
) -> Result<Response, ApiError> {
    peer.require_replica()?;
    match params.table {
        Some(table) => Ok(Json(blocking(move || compare.ranges(&id, &table)).await?).into_response()),
        None => Ok(Json(blocking(move || compare.overview(&id)).await?).into_response()),
    }
}

async fn rows(
    State(compare): State<Arc<Compare>>,
    peer: Peer,
    Path(id): Path<String>,
    Params(params): Params<RowsParams>,
) -> Result<Response, ApiError> {
    peer.require_replica()?;
    let RowsParams { table, range, through, places } = params;
    let body = match places.as_deref() {
        None => blocking(move || compare.row_hashes(&id, &table, range, through.unwrap_or(range))).await?,
        Some("all") => blocking(move || compare.rows(&id, &table, range, None)).await?,
        Some(places) => {
            let parsed: Result<Vec<usize>, _> = places.split(',').map(str::parse).collect();
            let mut places = parsed.map_err(|_| ApiError::bad_request("places must be numbers with commas, or all"))?;
            places.sort_unstable();
            blocking(move || compare.rows(&id, &table, range, Some(&places))).await?
        }
    };
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::ShuttingDown)?
}
