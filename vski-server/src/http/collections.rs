//! Collections: list, view, create, update, delete, truncate, import. Admins only. The list is also the export: what it
//! answers can be imported.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, Uri};
use axum::routing::put;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ApiError;
use super::extract::{Body, Caller, DbName, Params};
use super::openapi::{document, shapes};
use super::position::Positioned;
use super::state::MasterState;
use crate::app::App;
use crate::store::collections::change::{self, Edit};
use crate::store::collections::{self, Catalogue, Collection, Wanted, listing};
use crate::store::error::{FieldError, StoreError};
use crate::store::files::values;
use crate::store::master::Master;
use crate::store::query::Shape;
use crate::store::records;

const COLLECTION: &str = "/api/collections/{collection}";

/// `GET /api/collections?page=&perPage=&sort=&filter=&skipTotal=&fields=`, `GET /api/collections/{collection}?fields=`.
pub fn read_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(view))
}

/// `POST /api/collections`, `PATCH` and `DELETE /api/collections/{collection}`, `DELETE …/truncate`,
/// `PUT /api/collections/import {collections, deleteMissing}`.
pub fn write_router() -> OpenApiRouter<MasterState> {
    let router = OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(update, remove))
        .route(COLLECTION, put(import))
        .routes(routes!(truncate));
    document(router, routes!(import))
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct ListParams {
    page: Option<i64>,
    per_page: Option<i64>,
    skip_total: Option<String>,
    #[serde(default)]
    sort: String,
    #[serde(default)]
    filter: String,
    fields: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ViewParams {
    fields: Option<String>,
}

/// Lists the collections. The list is also the export: its items can be imported.
#[utoipa::path(
    get,
    path = "/api/collections",
    tag = "collections",
    params(ListParams),
    responses((status = 200, body = shapes::CollectionPage))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    DbName(db): DbName,
    Params(params): Params<ListParams>,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let shape = Shape::fields(params.fields.as_deref())?;
    let (filter, sort, limits) = (params.filter, params.sort, app.limits.filters);
    let found = app.reader(&db)?.read(move |conn| listing::select(conn, &filter, &sort, limits)).await?;
    let positive = |number: Option<i64>| number.and_then(|number| usize::try_from(number).ok()).filter(|n| *n > 0);
    let page = positive(params.page).unwrap_or(1);
    let per_page = positive(params.per_page).unwrap_or(usize::try_from(records::DEFAULT_PER_PAGE).unwrap_or(30));
    let per_page = per_page.min(usize::try_from(records::MAX_PER_PAGE).unwrap_or(1000));
    let items = found.iter().skip((page - 1).saturating_mul(per_page)).take(per_page);
    let items: Vec<_> = items.map(|collection| shape.project(collection.to_json())).collect();
    // PocketBase's answer where nothing was to be counted.
    let skip = matches!(params.skip_total.as_deref(), Some("1" | "true" | "t"));
    let total = if skip { json!(-1) } else { json!(found.len()) };
    let pages = if skip { json!(-1) } else { json!(found.len().div_ceil(per_page)) };
    Ok(Json(json!({ "page": page, "perPage": per_page, "totalItems": total, "totalPages": pages, "items": items })))
}

/// Shows a collection.
#[utoipa::path(get, path = COLLECTION, tag = "collections", params(ViewParams), responses((status = 200, body = shapes::Collection)))]
async fn view(
    State(app): State<App>,
    caller: Caller,
    DbName(db): DbName,
    Path(name): Path<String>,
    Params(params): Params<ViewParams>,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let shape = Shape::fields(params.fields.as_deref())?;
    let found = app.reader(&db)?.read(move |conn| collections::view(conn, &name)).await?;
    Ok(Json(shape.project(found.to_json())))
}

/// Makes a collection.
#[utoipa::path(
    post,
    path = "/api/collections",
    tag = "collections",
    request_body = shapes::WantedCollection,
    responses((status = 200, body = shapes::Collection))
)]
async fn create(
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    body: Body<Map<String, Value>>,
) -> Result<Positioned<Json<Value>>, ApiError> {
    caller.require_admin()?;
    let wanted = Wanted::from_json(&body.value)?;
    let made = change::apply(&master.database(&db)?.writer, Edit::Create(wanted)).await?;
    Ok(Positioned::new(&db, made, |made| Json(first(&made))))
}

/// Changes a collection: what is given.
#[utoipa::path(
    patch,
    path = COLLECTION,
    tag = "collections",
    request_body = shapes::WantedCollection,
    responses((status = 200, body = shapes::Collection))
)]
async fn update(
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    Path(name): Path<String>,
    body: Body<Map<String, Value>>,
) -> Result<Positioned<Json<Value>>, ApiError> {
    caller.require_admin()?;
    let wanted = Wanted::from_json(&body.value)?;
    let updated = change::apply(&master.database(&db)?.writer, Edit::Update(name, wanted)).await?;
    Ok(Positioned::new(&db, updated, |updated| Json(first(&updated))))
}

/// Deletes a collection. Its table stays.
#[utoipa::path(delete, path = COLLECTION, tag = "collections", responses((status = 204)))]
async fn remove(
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    Path(name): Path<String>,
) -> Result<Positioned<StatusCode>, ApiError> {
    caller.require_admin()?;
    let deleted = change::apply(&master.database(&db)?.writer, Edit::Delete(name)).await?;
    Ok(Positioned::new(&db, deleted, |_| StatusCode::NO_CONTENT))
}

/// Deletes all records of a collection.
#[utoipa::path(delete, path = "/api/collections/{collection}/truncate", tag = "collections", responses((status = 204)))]
async fn truncate(
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    Path(name): Path<String>,
) -> Result<Positioned<StatusCode>, ApiError> {
    caller.require_admin()?;
    let writer = master.database(&db)?.writer;
    let emptied = writer.rows(0, move |conn| {
        let catalogue = Catalogue::load(conn)?;
        values::forget(conn, &records::truncate(conn, &catalogue, catalogue.get(&name)?)?)
    });
    Ok(Positioned::new(&db, emptied.await?, |_| StatusCode::NO_CONTENT))
}

/// Makes or changes collections, all of them or none.
///
/// The one PUT below `/api/collections`. A route of its own would take `GET` and the like away from a collection that is
/// called import.
#[utoipa::path(
    put,
    path = "/api/collections/import",
    tag = "collections",
    description = "Found by id, else by name.",
    request_body = shapes::CollectionImport,
    responses((status = 204))
)]
async fn import(
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    Path(name): Path<String>,
    uri: Uri,
    body: Body<Map<String, Value>>,
) -> Result<Positioned<StatusCode>, ApiError> {
    if name != "import" {
        let message = format!("{} does not take {}", uri.path(), Method::PUT);
        return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message));
    }
    caller.require_admin()?;
    let edit = wanted_import(&body.value)?;
    let imported = change::apply(&master.database(&db)?.writer, edit).await?;
    Ok(Positioned::new(&db, imported, |_| StatusCode::NO_CONTENT))
}

fn wanted_import(body: &Map<String, Value>) -> Result<Edit, StoreError> {
    let mistyped =
        |key: &str, expected: &str| StoreError::field(key, "validation_invalid_type", format!("must be {expected}"));
    let list = body.get("collections").and_then(Value::as_array);
    let list = list.ok_or_else(|| mistyped("collections", "an array of collections"))?;
    let mut collections = Vec::with_capacity(list.len());
    for (at, json) in list.iter().enumerate() {
        let place = format!("collections[{at}]");
        let object = json.as_object().ok_or_else(|| mistyped(&place, "a collection"))?;
        collections.push(Wanted::from_json(object).map_err(|error| match error {
            StoreError::Fields(fields) => {
                let within = |error: FieldError| FieldError { field: format!("{place}.{}", error.field), ..error };
                StoreError::Fields(fields.into_iter().map(within).collect())
            }
            other => other,
        })?);
    }
    let delete_missing = match body.get("deleteMissing") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(_) => return Err(mistyped("deleteMissing", "true or false")),
    };
    Ok(Edit::Import { collections, delete_missing })
}

fn first(collections: &[Collection]) -> Value {
    collections.first().map(Collection::to_json).unwrap_or_default()
}
