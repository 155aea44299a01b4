//! `POST /api/sql?db=`: a manual migration, SQL as the body. Admins only.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ApiError;
use super::extract::{Caller, DbName, RawBody};
use super::openapi::shapes::Migrated;
use super::state::MasterState;
use crate::store::master::Master;
use crate::store::migration::{Done, Plan};

/// The route of a master.
pub fn write_router() -> OpenApiRouter<MasterState> {
    OpenApiRouter::new().routes(routes!(run))
}

/// Runs SQL in one transaction, all of it or nothing.
#[utoipa::path(
    post,
    path = "/api/sql",
    tag = "migrations",
    request_body(content = String, content_type = "application/sql"),
    responses((status = 200, body = Migrated))
)]
async fn run(
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    RawBody(body): RawBody,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let database = master.database(&db)?;
    let sql = std::str::from_utf8(&body).map_err(|_| ApiError::bad_request("the body is not SQL in UTF-8"))?;
    let Done { before, version, entry } = database.writer.migrate(body.len(), Plan::parse(sql)?).await?;
    Ok(Json(json!({ "db": db, "before": before, "version": version, "entry": entry })))
}
