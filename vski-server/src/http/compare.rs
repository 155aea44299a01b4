//! What replicas ask about a snapshot's content: `GET …/snapshot/{id}/ranges` and `…/rows`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ApiError;
use super::extract::{Params, Peer};
use super::openapi::shapes::{Binary, Ranges};
use super::state::SourceState;
use crate::replication::compare::Compare;
use crate::store::error::StoreError;

/// `ranges` is the overview, `ranges?table=&from=` some of one table's ranges. `rows?table=&range=&through=` the hashes of
/// the rows of some ranges, `rows?table=&places=3:1,5;4:0` rows of some ranges. Answers are bounded: they may end early.
pub fn router() -> OpenApiRouter<SourceState> {
    OpenApiRouter::new().routes(routes!(ranges)).routes(routes!(rows))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RangesParams {
    table: Option<String>,
    #[serde(default)]
    from: usize,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RowsParams {
    table: String,
    range: Option<usize>,
    through: Option<usize>,
    places: Option<String>,
}

/// Tells what is in a snapshot, or with `table` some of that table's ranges.
#[utoipa::path(
    get,
    path = "/api/replica/snapshot/{id}/ranges",
    tag = "replication",
    params(RangesParams),
    responses((status = 200, body = Ranges))
)]
async fn ranges(
    State(compare): State<Arc<Compare>>,
    peer: Peer,
    Path(id): Path<String>,
    Params(params): Params<RangesParams>,
) -> Result<Response, ApiError> {
    peer.require_replica()?;
    match params.table {
        Some(table) => Ok(Json(blocking(move || compare.ranges(&id, &table, params.from)).await?).into_response()),
        None => Ok(Json(blocking(move || compare.overview(&id)).await?).into_response()),
    }
}

/// Hashes of the rows of some ranges (`range`, `through`), or rows (`places`).
#[utoipa::path(
    get,
    path = "/api/replica/snapshot/{id}/rows",
    tag = "replication",
    params(RowsParams),
    responses((status = 200, body = Binary, content_type = "application/octet-stream"))
)]
async fn rows(
    State(compare): State<Arc<Compare>>,
    peer: Peer,
    Path(id): Path<String>,
    Params(params): Params<RowsParams>,
) -> Result<Response, ApiError> {
    peer.require_replica()?;
    let RowsParams { table, range, through, places } = params;
    let body = match (range, places.as_deref()) {
        (Some(range), None) => {
            blocking(move || compare.row_hashes(&id, &table, range, through.unwrap_or(range))).await?
        }
        (None, Some(places)) => {
            let wanted = parse_places(places).ok_or_else(|| ApiError::bad_request(PLACES_RULE))?;
            blocking(move || compare.rows(&id, &table, &wanted)).await?
        }
        _ => return Err(ApiError::bad_request("either range or places must be given")),
    };
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

const PLACES_RULE: &str = "places must be like 3:1,5;4:0 (ranges, and in each of them places in rising order)";

fn parse_places(text: &str) -> Option<Vec<(usize, Vec<usize>)>> {
    let range = |part: &str| {
        let (range, places) = part.split_once(':')?;
        let places: Vec<usize> = places.split(',').map(|place| place.parse().ok()).collect::<Option<_>>()?;
        places.is_sorted_by(|one, next| one < next).then_some((range.parse().ok()?, places))
    };
    text.split(';').map(range).collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::ShuttingDown)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_ranges_with_rising_numbers() {
        assert_eq!(parse_places("3:1,5;4:0"), Some(vec![(3, vec![1, 5]), (4, vec![0])]));
        for bad in ["", "3", "3:", "3:1,", "3:5,1", "3:1,1", "x:1", ";"] {
            assert_eq!(parse_places(bad), None, "{bad}");
        }
    }
}
