//! Records of a collection: list, view, create, update, delete, import. The collection's rules say who may.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asked::Asked;
use super::auth::caller::ClientAddress;
use super::auth::records::prove;
use super::error::ApiError;
use super::extract::{Caller, DbName, Params, RawBody, check_keys, parsed};
use super::json::JsonText;
use super::openapi::shapes::{Imported, Record, RecordPage};
use super::position::Positioned;
use super::record_body::RecordBody;
use super::state::MasterState;
use crate::app::App;
use crate::config::Limits;
use crate::store::actions::{Action, Verb};
use crate::store::collections::Catalogue;
use crate::store::database::Database;
use crate::store::error::StoreError;
use crate::store::import;
use crate::store::master::Master;
use crate::store::query::list::{self as lists, ListQuery};
use crate::store::query::write::Made;
use crate::store::query::{Asking, Shape, write};
use crate::store::reader::Reader;
use crate::store::records::{self, DEFAULT_PER_PAGE, Secrets};
use crate::store::request::Written;

/// Records of one import request: it holds up all other writes meanwhile.
const MAX_IMPORT_LINES: usize = 10_000;

const RECORDS: &str = "/api/collections/{collection}/records";
const RECORD: &str = "/api/collections/{collection}/records/{id}";

/// `GET …/records?page=&perPage=&skipTotal=&filter=&sort=&expand=&fields=`, `GET …/records/{id}?expand=&fields=`.
pub fn read_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(view))
}

/// `POST …/records`, `PATCH` and `DELETE …/records/{id}` (the first two with `?expand=&fields=`), `POST …/import` (NDJSON,
/// admins only, all or nothing).
pub fn write_router() -> OpenApiRouter<MasterState> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(update, delete)).routes(routes!(import_lines))
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
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
    /// A page or a size that makes no sense is the nearest one that does.
    fn query(self, limits: &Limits) -> Result<(ListQuery, Shape), StoreError> {
        let page = u64::try_from(self.page.unwrap_or(1)).unwrap_or(1).max(1);
        let per_page = self.per_page.and_then(|wanted| u64::try_from(wanted).ok()).filter(|wanted| *wanted > 0);
        let per_page = per_page.unwrap_or(DEFAULT_PER_PAGE).min(limits.per_page.into());
        let count = !matches!(self.skip_total.as_deref(), Some("1" | "true" | "t"));
        let limits = limits.filters;
        let shape = Shape::parse(self.expand.as_deref(), self.fields.as_deref(), limits)?;
        Ok((ListQuery { page, per_page, count, filter: self.filter, sort: self.sort, limits }, shape))
    }
}

/// What every answer with a record takes.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ShapeParams {
    expand: Option<String>,
    fields: Option<String>,
}

impl ShapeParams {
    fn shape(&self, app: &App) -> Result<Shape, StoreError> {
        Shape::parse(self.expand.as_deref(), self.fields.as_deref(), app.limits.filters)
    }
}

/// Lists records.
#[utoipa::path(get, path = RECORDS, tag = "records", params(ListParams), responses((status = 200, body = RecordPage)))]
async fn list(
    State(app): State<App>,
    Asked(request): Asked,
    DbName(db): DbName,
    Path(collection): Path<String>,
    Params(params): Params<ListParams>,
) -> Result<JsonText, ApiError> {
    let (query, shape) = params.query(&app.limits)?;
    let reader = app.data(&db)?;
    let found = reader.read(move |conn| {
        let catalogue = Catalogue::load(conn)?;
        let asking = Asking { catalogue: &catalogue, request: &request };
        lists::list(conn, asking, catalogue.get(&collection)?, &query, &shape)
    });
    let found = found.await?;
    Ok(JsonText(page_text(&found)))
}

/// A page as it is sent.
fn page_text(found: &lists::Page) -> Vec<u8> {
    let lists::Page { page, per_page, total, items } = found;
    // PocketBase's answer where nothing was counted.
    let counted = |number: Option<u64>| number.map_or_else(|| "-1".to_owned(), |number| number.to_string());
    let (total, pages) = (counted(*total), counted(total.map(|total| total.div_ceil(*per_page))));
    let mut text = Vec::with_capacity(items.len() + 128);
    let head = format!(r#"{{"page":{page},"perPage":{per_page},"totalItems":{total},"totalPages":{pages},"items":"#);
    text.extend_from_slice(head.as_bytes());
    text.extend_from_slice(items);
    text.push(b'}');
    text
}

/// Shows a record.
#[utoipa::path(get, path = RECORD, tag = "records", params(ShapeParams), responses((status = 200, body = Record)))]
async fn view(
    State(app): State<App>,
    Asked(request): Asked,
    DbName(db): DbName,
    Path((collection, id)): Path<(String, String)>,
    Params(params): Params<ShapeParams>,
) -> Result<JsonText, ApiError> {
    let shape = params.shape(&app)?;
    let reader = app.data(&db)?;
    let now = reader.now(|conn| {
        let catalogue = Catalogue::load(conn)?;
        let asking = Asking { catalogue: &catalogue, request: &request };
        lists::look_up(conn, asking, catalogue.get(&collection)?, &id, &shape)
    });
    if let Some(found) = now? {
        return Ok(JsonText(found));
    }
    let found = reader.read(move |conn| {
        let catalogue = Catalogue::load(conn)?;
        let asking = Asking { catalogue: &catalogue, request: &request };
        lists::view(conn, asking, catalogue.get(&collection)?, &id, &shape)
    });
    // Boxed: seldom needed, and not small.
    Ok(JsonText(Box::pin(found).await?))
}

/// Makes a record.
#[utoipa::path(
    post,
    path = RECORDS,
    tag = "records",
    params(ShapeParams),
    request_body(content((Record = "application/json"), (Record = "multipart/form-data"))),
    responses((status = 200, body = Record))
)]
async fn create(
    State(MasterState { app, master }): State<MasterState>,
    ClientAddress(address): ClientAddress,
    Asked(request): Asked,
    DbName(db): DbName,
    Path(collection): Path<String>,
    Params(params): Params<ShapeParams>,
    body: RecordBody,
) -> Result<Positioned<JsonText>, ApiError> {
    let action = Action::new(Verb::Create, &collection, request, params.shape(&app)?);
    change(&app, &master, address, &db, action, body).await
}

/// Changes a record: the fields that are given.
#[utoipa::path(
    patch,
    path = RECORD,
    tag = "records",
    params(ShapeParams),
    request_body(content((Record = "application/json"), (Record = "multipart/form-data"))),
    responses((status = 200, body = Record))
)]
async fn update(
    State(MasterState { app, master }): State<MasterState>,
    ClientAddress(address): ClientAddress,
    Asked(request): Asked,
    DbName(db): DbName,
    Path((collection, id)): Path<(String, String)>,
    Params(params): Params<ShapeParams>,
    body: RecordBody,
) -> Result<Positioned<JsonText>, ApiError> {
    let action = Action::new(Verb::Update(id), &collection, request, params.shape(&app)?);
    change(&app, &master, address, &db, action, body).await
}

/// Makes or changes a record by a body.
async fn change(
    app: &App,
    master: &Master,
    address: IpAddr,
    db: &str,
    mut action: Action,
    body: RecordBody,
) -> Result<Positioned<JsonText>, ApiError> {
    let RecordBody { value, uploads, bytes } = body;
    let database = master.database(db)?;
    action.request.body = Arc::new(value);
    action.uploads = Arc::clone(&uploads);
    let found = match action.check_open(&database.reader).await {
        Ok(()) => secrets(app, address, &database, &action).await,
        Err(error) => Err(error.into()),
    };
    action.secrets = match found {
        Ok(secrets) => secrets,
        Err(refusal) => {
            RecordBody::discard(&uploads);
            return Err(refusal);
        }
    };
    let action = Arc::new(action);
    let again = Arc::clone(&action);
    match database.writer.rows(bytes, move |conn| again.run(conn)).await {
        Ok(Written { value, head }) => {
            let value = shaped(&database.reader.data(app.limits.read_time), action, value).await?;
            Ok(Positioned::new(db, Written { value, head }, |record| JsonText(record.unwrap_or_default())))
        }
        Err(error) => {
            RecordBody::discard(&uploads);
            Err(error.into())
        }
    }
}

/// What the writer's thread must not work out: hashes of new passwords, and whether an old one is right. See
/// [`Action::check_open`].
pub async fn secrets(app: &App, address: IpAddr, database: &Database, action: &Action) -> Result<Secrets, ApiError> {
    if !action.names_password() {
        return Ok(Secrets::default());
    }
    // Boxed: most writes have no password, and need not move the room for it.
    Box::pin(worked_out(app, address, database, action)).await
}

async fn worked_out(app: &App, address: IpAddr, database: &Database, action: &Action) -> Result<Secrets, ApiError> {
    let (collection, body) = (action.collection.as_str(), &action.request.body);
    let mut secrets = records::hash_passwords(&database.reader, collection, &[body]).await?.remove(0);
    if let Some(id) = action.changes() {
        secrets.proof = prove(app, address, &database.name, (collection, id), body).await?;
    }
    Ok(secrets)
}

/// A record that was written, in its shape, as text; without other records if there is no time to read them. Other records are
/// read here and not on the writer's thread, for which others wait.
pub async fn shaped(reader: &Reader, action: Arc<Action>, made: Option<Made>) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(made) = made else { return Ok(None) };
    if !action.shape.expands() {
        return Ok(Some(made.record.alone(&action.shape)));
    }
    let (alone, wanted) = (made.record.clone(), Arc::clone(&action));
    let read = reader.read(move |conn| write::shaped(conn, &wanted.collection, made, &wanted.shape));
    match read.await {
        // It is stored: an error would have it sent again.
        Err(StoreError::ReadsBusy(_) | StoreError::ReadTimeout(_)) => Ok(Some(alone.alone(&action.shape))),
        shaped => shaped.map(Some),
    }
}

/// Deletes a record.
#[utoipa::path(delete, path = RECORD, tag = "records", responses((status = 204)))]
async fn delete(
    State(master): State<Arc<Master>>,
    Asked(request): Asked,
    DbName(db): DbName,
    Path((collection, id)): Path<(String, String)>,
) -> Result<Positioned<StatusCode>, ApiError> {
    let (writer, bytes) = (master.database(&db)?.writer, id.len());
    let action = Action::new(Verb::Delete(id), &collection, request, Shape::default());
    let deleted = writer.rows(bytes, move |conn| action.run(conn));
    Ok(Positioned::new(&db, deleted.await?, |_| StatusCode::NO_CONTENT))
}

/// Makes many records: a JSON object per line, all or nothing. Admins only.
#[utoipa::path(
    post,
    path = "/api/collections/{collection}/import",
    tag = "records",
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, body = Imported))
)]
async fn import_lines(
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    Path(collection): Path<String>,
    RawBody(body): RawBody,
) -> Result<Positioned<Json<Value>>, ApiError> {
    caller.require_admin()?;
    let bytes = body.len();
    let chunk = parsed(body, import_chunk).await?;
    let database = master.database(&db)?;
    let imported = import::store(&database.reader, &database.writer, collection, chunk, bytes).await?;
    Ok(Positioned::new(&db, imported, |imported| Json(json!({ "imported": imported }))))
}

/// The records of an import request.
fn import_chunk(body: &[u8]) -> Result<Vec<Map<String, Value>>, ApiError> {
    let text =
        std::str::from_utf8(body).map_err(|error| ApiError::bad_request(format!("the body is not UTF-8: {error}")))?;
    check_keys(body)?;
    if text.lines().nth(MAX_IMPORT_LINES).is_some() {
        let message = format!("an import request has at most {MAX_IMPORT_LINES} lines: send it in parts");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    let parse = |(at, line): (usize, &str)| {
        import::parse_line(line).map_err(|message| StoreError::Line { line: at + 1, message, fields: Vec::new() })
    };
    Ok(text.lines().enumerate().map(parse).collect::<Result<_, _>>()?)
}
