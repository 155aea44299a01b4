//! API keys for machines. Admins only.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use vski_replication::names::DEFAULT_DATABASE;

use super::caller::Caller;
use crate::app::App;
use crate::http::error::ApiError;
use crate::http::extract::Body;
use crate::http::openapi::shapes::{KeyList, MadeKey};
use crate::http::position::Positioned;
use crate::http::state::MasterState;
use crate::store::auth::keys::{self, NewKey};
use crate::store::master::Master;

/// `GET /api/keys`.
pub fn read_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// `POST /api/keys {name, kind, expires}` answers the key, this once; `DELETE /api/keys/{id}` revokes one.
pub fn write_router() -> OpenApiRouter<MasterState> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(revoke))
}

/// Lists the API keys, without their secrets.
#[utoipa::path(get, path = "/api/keys", tag = "keys", responses((status = 200, body = KeyList)))]
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let keys = app.reader(DEFAULT_DATABASE)?.read(keys::list).await?;
    Ok(Json(json!({ "items": keys })))
}

/// Makes an API key, and tells it this once.
#[utoipa::path(
    post,
    path = "/api/keys",
    tag = "keys",
    request_body = NewKey,
    responses((status = 200, body = MadeKey))
)]
async fn create(
    State(master): State<Arc<Master>>,
    caller: Caller,
    body: Body<NewKey>,
) -> Result<Positioned<Json<Value>>, ApiError> {
    caller.require_admin()?;
    let wanted = body.value.checked()?;
    let (secret, hash) = keys::new_secret();
    let writer = master.database(DEFAULT_DATABASE)?.writer;
    let made = writer.rows(body.bytes, move |conn| keys::create(conn, &wanted, &hash)).await?;
    Ok(Positioned::new(DEFAULT_DATABASE, made, |made| {
        let mut answer = json!(made);
        answer["key"] = secret.into();
        Json(answer)
    }))
}

/// Revokes an API key.
#[utoipa::path(delete, path = "/api/keys/{id}", tag = "keys", responses((status = 204)))]
async fn revoke(
    State(master): State<Arc<Master>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Positioned<StatusCode>, ApiError> {
    caller.require_admin()?;
    let writer = master.database(DEFAULT_DATABASE)?.writer;
    let revoked = writer.rows(id.len(), move |conn| keys::revoke(conn, &id)).await?;
    Ok(Positioned::new(DEFAULT_DATABASE, revoked, |()| StatusCode::NO_CONTENT))
}
