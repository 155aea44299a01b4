//! API keys for machines. Admins only.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use vski_replication::names::DEFAULT_DATABASE;

use super::caller::Caller;
use crate::app::App;
use crate::http::error::ApiError;
use crate::http::extract::Body;
use crate::http::position::Positioned;
use crate::http::state::MasterState;
use crate::store::auth::keys::{self, NewKey};
use crate::store::master::Master;

/// `GET /api/keys`.
pub fn read_router() -> Router<App> {
    Router::new().route("/api/keys", get(list))
}

/// `POST /api/keys {name, kind, expires}` answers the key, this once; `DELETE /api/keys/{id}` revokes one.
pub fn write_router() -> Router<MasterState> {
    Router::new().route("/api/keys", post(create)).route("/api/keys/{id}", delete(revoke))
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let keys = app.reader(DEFAULT_DATABASE)?.read(keys::list).await?;
    Ok(Json(json!({ "items": keys })))
}

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
