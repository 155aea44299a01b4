//! Databases: list, create, delete, restore. Admins only.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use vski_replication::names;

use super::error::ApiError;
use super::extract::{Body, Caller};
use super::position::Positioned;
use super::state::MasterState;
use crate::app::App;
use crate::replication::status;
use crate::store::error::StoreError;
use crate::store::master::Master;

/// `GET /api/databases`.
pub fn read_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// `POST /api/databases {name}`, `DELETE /api/databases/{name}`, `POST /api/databases/{name}/restore`.
pub fn write_router() -> OpenApiRouter<MasterState> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(delete)).routes(routes!(restore))
}

#[derive(Serialize, ToSchema)]
struct DatabaseList {
    items: Vec<DatabaseItem>,
    /// Names of those that were deleted and can be restored.
    deleted: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct DatabaseItem {
    name: String,
}

#[derive(Deserialize, ToSchema)]
struct CreateDatabase {
    name: String,
}

/// Names the databases.
#[utoipa::path(get, path = "/api/databases", tag = "databases", responses((status = 200, body = DatabaseList)))]
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<DatabaseList>, ApiError> {
    caller.require_admin()?;
    let items = app.readers()?.iter().map(|reader| DatabaseItem { name: reader.name().to_owned() }).collect();
    Ok(Json(DatabaseList { items, deleted: status::deleted(&app)? }))
}

/// Makes a database.
#[utoipa::path(
    post,
    path = "/api/databases",
    tag = "databases",
    request_body = CreateDatabase,
    responses((status = 200, body = DatabaseItem))
)]
async fn create(
    State(master): State<Arc<Master>>,
    caller: Caller,
    body: Body<CreateDatabase>,
) -> Result<Positioned<Json<DatabaseItem>>, ApiError> {
    caller.require_admin()?;
    let name = body.value.name.clone();
    // Making a file waits for the disk.
    let made = tokio::task::spawn_blocking(move || master.create(&body.value.name)).await;
    let made = made.map_err(|_| StoreError::ShuttingDown)??;
    Ok(Positioned::new(&name, made, |()| Json(DatabaseItem { name: name.clone() })))
}

/// Deletes a database. Its file stays.
#[utoipa::path(delete, path = "/api/databases/{name}", tag = "databases", responses((status = 204)))]
async fn delete(
    State(master): State<Arc<Master>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Positioned<StatusCode>, ApiError> {
    caller.require_admin()?;
    let deleted = master.delete(&name).await?;
    Ok(Positioned::new(names::DEFAULT_DATABASE, deleted, |()| StatusCode::NO_CONTENT))
}

/// Brings a deleted database back.
#[utoipa::path(
    post,
    path = "/api/databases/{name}/restore",
    tag = "databases",
    responses((status = 200, body = DatabaseItem))
)]
async fn restore(
    State(master): State<Arc<Master>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Positioned<Json<DatabaseItem>>, ApiError> {
    caller.require_admin()?;
    let restored = master.restore(&name).await?;
    Ok(Positioned::new(names::DEFAULT_DATABASE, restored, |()| Json(DatabaseItem { name: name.clone() })))
}
