//! Collections: list, view, create, update. Admins only.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::extract::{Body, Caller, DbName};
use super::position::Positioned;
use super::state::MasterState;
use crate::app::App;
use crate::store::collections::{self, Collection, Wanted};
use crate::store::error::StoreError;
use crate::store::fields::Field;
use crate::store::master::Master;

/// `GET /api/collections`, `GET /api/collections/{collection}`.
pub fn read_router() -> Router<App> {
    Router::new().route("/api/collections", get(list)).route("/api/collections/{collection}", get(view))
}

/// `POST /api/collections {name, type, fields, …Rule}`, `PATCH /api/collections/{collection}`.
pub fn write_router() -> Router<MasterState> {
    Router::new().route("/api/collections", post(create)).route("/api/collections/{collection}", patch(update))
}

async fn list(State(app): State<App>, caller: Caller, DbName(db): DbName) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let found = app.reader(&db)?.read(collections::list).await?;
    let items: Vec<_> = found.iter().map(to_json).collect();
    let total = items.len();
    Ok(Json(json!({ "page": 1, "perPage": total, "totalItems": total, "totalPages": 1, "items": items })))
}

async fn view(
    State(app): State<App>,
    caller: Caller,
    DbName(db): DbName,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let found = app.reader(&db)?.read(move |conn| collections::view(conn, &name)).await?;
    Ok(Json(to_json(&found)))
}

async fn create(
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    body: Body<Map<String, Value>>,
) -> Result<Positioned<Json<Value>>, ApiError> {
    caller.require_admin()?;
    let wanted = wanted(&body.value)?;
    let again = wanted.clone();
    let writer = master.database(&db)?.writer;
    let made = writer
        .schema(move |conn| collections::plan_create(conn, &wanted), move |conn| collections::create(conn, &again))
        .await?;
    Ok(Positioned::new(&db, made, |made| Json(to_json(&made))))
}

async fn update(
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    Path(name): Path<String>,
    body: Body<Map<String, Value>>,
) -> Result<Positioned<Json<Value>>, ApiError> {
    caller.require_admin()?;
    let wanted = wanted(&body.value)?;
    let (name_again, again) = (name.clone(), wanted.clone());
    let writer = master.database(&db)?.writer;
    let updated = writer
        .schema(
            move |conn| collections::plan_update(conn, &name, &wanted),
            move |conn| collections::update(conn, &name_again, &again),
        )
        .await?;
    Ok(Positioned::new(&db, updated, |updated| Json(to_json(&updated))))
}

/// What a body asks for. Keys that the server sets are ignored, so that a client may send back what it got.
fn wanted(body: &Map<String, Value>) -> Result<Wanted, StoreError> {
    const RULES: [&str; 5] = ["listRule", "viewRule", "createRule", "updateRule", "deleteRule"];
    let mut wanted = Wanted::default();
    for (key, value) in body {
        let mistyped =
            |expected: &str| StoreError::field(key, "validation_invalid_type", format!("must be {expected}"));
        match key.as_str() {
            "name" => wanted.name = Some(value.as_str().ok_or_else(|| mistyped("a string"))?.to_owned()),
            "type" if value == "base" => {}
            "type" => {
                return Err(StoreError::field(
                    "type",
                    "validation_invalid_value",
                    "must be base: other kinds are not supported yet",
                ));
            }
            "fields" => wanted.fields = Some(fields(value)?),
            "id" | "created" | "updated" | "system" | "indexes" => {}
            rule => {
                let Some(at) = RULES.iter().position(|name| *name == rule) else {
                    return Err(StoreError::field(key, "validation_unknown_field", "is nothing that a collection has"));
                };
                wanted.rules[at] = Some(match value {
                    Value::Null => None,
                    Value::String(text) => Some(text.clone()),
                    _ => return Err(mistyped("null (admins only) or \"\" (everyone)")),
                });
            }
        }
    }
    Ok(wanted)
}

fn fields(value: &Value) -> Result<Vec<Field>, StoreError> {
    let list =
        value.as_array().ok_or_else(|| StoreError::field("fields", "validation_invalid_type", "must be an array"))?;
    let parse = |(at, field): (usize, &Value)| {
        serde_json::from_value::<Field>(field.clone())
            .map(|field| Field { deleted: false, ..field })
            .map_err(|error| StoreError::field(&format!("fields[{at}]"), "validation_invalid_field", error.to_string()))
    };
    let is_system = |field: &Value| {
        ["id", "created", "updated"].iter().any(|name| field.get("name").and_then(Value::as_str) == Some(name))
            && field.get("system").and_then(Value::as_bool) == Some(true)
    };
    list.iter().enumerate().filter(|(_, field)| !is_system(field)).map(parse).collect()
}

fn to_json(collection: &Collection) -> Value {
    let mut json = serde_json::to_value(collection).unwrap_or_default();
    json["fields"] = collection.visible().map(|field| json!(field)).collect();
    json
}
