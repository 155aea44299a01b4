//! Records of a collection: list, view, create, update, delete, import. The collection's rules say who may.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::extract::{Caller, DbName, Params, RawBody, check_keys};
use super::position::Positioned;
use super::record_body::RecordBody;
use super::state::MasterState;
use crate::app::App;
use crate::store::actions::{Action, Verb, allowed, shown};
use crate::store::collections;
use crate::store::error::StoreError;
use crate::store::import;
use crate::store::master::Master;
use crate::store::records::{self, DEFAULT_PER_PAGE};

/// Records of one import request: it holds up all other writes meanwhile.
const MAX_IMPORT_LINES: usize = 10_000;

const RECORDS: &str = "/api/collections/{collection}/records";
const RECORD: &str = "/api/collections/{collection}/records/{id}";

/// `GET …/records?page=&perPage=&skipTotal=`, `GET …/records/{id}`.
pub fn read_router() -> Router<App> {
    Router::new().route(RECORDS, get(list)).route(RECORD, get(view))
}

/// `POST …/records`, `PATCH` and `DELETE …/records/{id}`, `POST …/import` (NDJSON, admins only, all or nothing).
pub fn write_router() -> Router<MasterState> {
    Router::new()
        .route(RECORDS, post(create))
        .route(RECORD, patch(update).delete(delete))
        .route("/api/collections/{collection}/import", post(import_lines))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListParams {
    page: Option<i64>,
    per_page: Option<i64>,
    skip_total: Option<String>,
    filter: Option<String>,
    sort: Option<String>,
    expand: Option<String>,
    fields: Option<String>,
}

impl ListParams {
    /// Parameters that would change the answer are refused rather than ignored.
    fn check(&self) -> Result<(), ApiError> {
        let later =
            [("filter", &self.filter), ("sort", &self.sort), ("expand", &self.expand), ("fields", &self.fields)];
        match later.iter().find(|(_, value)| value.as_ref().is_some_and(|value| !value.is_empty())) {
            Some((name, _)) => Err(ApiError::bad_request(format!("{name} is not supported yet: leave it out"))),
            None => Ok(()),
        }
    }
}

async fn list(
    State(app): State<App>,
    caller: Caller,
    DbName(db): DbName,
    Path(collection): Path<String>,
    Params(params): Params<ListParams>,
) -> Result<Json<Value>, ApiError> {
    params.check()?;
    let page = u64::try_from(params.page.unwrap_or(1)).unwrap_or(1).max(1);
    let per_page = params.per_page.and_then(|wanted| u64::try_from(wanted).ok()).filter(|wanted| *wanted > 0);
    let per_page = per_page.unwrap_or(DEFAULT_PER_PAGE).min(app.limits.per_page.into());
    let count = !matches!(params.skip_total.as_deref(), Some("1" | "true" | "t"));
    let admin = caller.is_admin();
    let reader = app.reader(&db)?;
    let found = reader.read(move |conn| {
        let collection = collections::view(conn, &collection)?;
        allowed(&collection, admin, |rules| &rules.list_rule)?;
        let mut page = records::list(conn, &collection, page, per_page, count)?;
        page.items = page.items.into_iter().map(|item| shown(&collection, item, admin)).collect();
        Ok(page)
    });
    let found = found.await?;
    // PocketBase's answer where nothing was counted.
    let total = found.total.map_or(json!(-1), |total| json!(total));
    let pages = found.total.map_or(json!(-1), |total| json!(total.div_ceil(found.per_page)));
    Ok(Json(json!({
        "page": found.page, "perPage": found.per_page, "totalItems": total, "totalPages": pages, "items": found.items,
    })))
}

async fn view(
    State(app): State<App>,
    caller: Caller,
    DbName(db): DbName,
    Path((collection, id)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let admin = caller.is_admin();
    let reader = app.reader(&db)?;
    let found = reader.read(move |conn| {
        let collection = collections::view(conn, &collection)?;
        allowed(&collection, admin, |rules| &rules.view_rule)?;
        Ok(shown(&collection, records::view(conn, &collection, &id)?, admin))
    });
    Ok(Json(found.await?))
}

async fn create(
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    Path(collection): Path<String>,
    body: RecordBody,
) -> Result<Positioned<Json<Value>>, ApiError> {
    change(&master, &caller, &db, &collection, Verb::Create, body).await
}

async fn update(
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    Path((collection, id)): Path<(String, String)>,
    body: RecordBody,
) -> Result<Positioned<Json<Value>>, ApiError> {
    change(&master, &caller, &db, &collection, Verb::Update(id), body).await
}

/// Makes or changes a record.
async fn change(
    master: &Master,
    caller: &Caller,
    db: &str,
    collection: &str,
    verb: Verb,
    body: RecordBody,
) -> Result<Positioned<Json<Value>>, ApiError> {
    let RecordBody { value, uploads, bytes } = body;
    let (admin, database) = (caller.is_admin(), master.database(db)?);
    let secrets = records::hash_passwords(&database.reader, collection, &[&value]).await?;
    let secrets = secrets.into_iter().next().unwrap_or_default();
    let action = Action { uploads: Arc::clone(&uploads), secrets, ..Action::new(verb, collection, value) };
    match database.writer.rows(bytes, move |conn| action.run(conn, admin)).await {
        Ok(written) => Ok(Positioned::new(db, written, |record| Json(record.unwrap_or_default()))),
        Err(error) => {
            RecordBody::discard(&uploads);
            Err(error.into())
        }
    }
}

async fn delete(
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    Path((collection, id)): Path<(String, String)>,
) -> Result<Positioned<StatusCode>, ApiError> {
    let admin = caller.is_admin();
    let (writer, bytes) = (master.database(&db)?.writer, id.len());
    let action = Action::new(Verb::Delete(id), &collection, Map::new());
    let deleted = writer.rows(bytes, move |conn| action.run(conn, admin));
    Ok(Positioned::new(&db, deleted.await?, |_| StatusCode::NO_CONTENT))
}

async fn import_lines(
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    Path(collection): Path<String>,
    RawBody(body): RawBody,
) -> Result<Positioned<Json<Value>>, ApiError> {
    caller.require_admin()?;
    let text =
        std::str::from_utf8(&body).map_err(|error| ApiError::bad_request(format!("the body is not UTF-8: {error}")))?;
    check_keys(&body)?;
    if text.lines().nth(MAX_IMPORT_LINES).is_some() {
        let message = format!("an import request has at most {MAX_IMPORT_LINES} lines: send it in parts");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    let parse = |(at, line): (usize, &str)| {
        import::parse_line(line).map_err(|message| StoreError::Line { line: at + 1, message })
    };
    let chunk: Vec<_> = text.lines().enumerate().map(parse).collect::<Result<_, _>>()?;
    let database = master.database(&db)?;
    let imported = import::store(&database.reader, &database.writer, collection, chunk, body.len()).await?;
    Ok(Positioned::new(&db, imported, |imported| Json(json!({ "imported": imported }))))
}
