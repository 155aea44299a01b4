//! Admins: log in and refresh a token (on every node, nothing is written), list and view them, make, change and remove
//! them (on a master). All of it at two paths: `/api/admins`, and PocketBase's `/api/collections/_superusers`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use vski_replication::names;
use vski_replication::token::{Audience, Bearer, Claims};

use super::caller::{Caller, ClientAddress};
use crate::app::{AdminToken, App};
use crate::http::error::ApiError;
use crate::http::extract::{Body, Params};
use crate::http::openapi::at;
use crate::http::openapi::shapes::{AdminPage, AdminRecord, AdminSession};
use crate::http::position::Positioned;
use crate::http::state::MasterState;
use crate::store::auth::admins::{self, Admin, Wanted};
use crate::store::auth::check_email;
use crate::store::error::StoreError;
use crate::store::master::Master;
use crate::store::passwords;
use crate::store::query::Shape;
use crate::store::records::{DEFAULT_PER_PAGE, MAX_PER_PAGE};
use crate::store::request::Written;

/// Life of a login's token, seconds: 14 days, as PocketBase's.
const TOKEN_SECONDS: u64 = 14 * 24 * 3600;

/// The name and the id of the collection that admins seem to be of.
const COLLECTION: &str = "_superusers";

const RECORDS: &str = "/api/collections/_superusers/records";
const RECORD: &str = "/api/collections/_superusers/records/{id}";

/// `POST …/auth-with-password {identity or email, password}`, `POST …/auth-refresh`; `GET` of all admins and of one.
pub fn read_router() -> OpenApiRouter<App> {
    let router = OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(list))
        .routes(routes!(view));
    router
        .routes(at("/api/collections/_superusers/auth-with-password", routes!(login)))
        .routes(at("/api/collections/_superusers/auth-refresh", routes!(refresh)))
        .routes(at(RECORDS, routes!(list)))
        .routes(at(RECORD, routes!(view)))
}

/// `POST /api/admins {email, password}`: make an admin, or give one a new password. `POST …/records {email, password,
/// passwordConfirm}`: make a new one. `PATCH` and `DELETE` of one.
pub fn write_router() -> OpenApiRouter<MasterState> {
    let router = OpenApiRouter::new().routes(routes!(upsert)).routes(routes!(update, remove));
    router.routes(routes!(make)).routes(at(RECORD, routes!(update, remove)))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = AdminLogin)]
struct Login {
    identity: Option<String>,
    email: Option<String>,
    password: String,
}

#[derive(Deserialize, ToSchema)]
struct NewAdmin {
    email: String,
    password: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NewAdminRecord)]
struct NewRecord {
    email: String,
    password: String,
    password_confirm: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminChanges)]
struct Changes {
    email: Option<String>,
    password: Option<String>,
    password_confirm: Option<String>,
    old_password: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct Page {
    page: Option<u64>,
    per_page: Option<u64>,
    #[serde(default)]
    filter: String,
    #[serde(default)]
    sort: String,
    expand: Option<String>,
    fields: Option<String>,
}

/// How an answer that is not a list is to look.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Looks {
    expand: Option<String>,
    fields: Option<String>,
}

/// Admins have no relations: they cannot be expanded.
fn shape(expand: Option<&str>, fields: Option<&str>) -> Result<Shape, ApiError> {
    match expand.map(str::trim) {
        None | Some("") => Ok(Shape::fields(fields)?),
        Some(_) => Err(ApiError::bad_request("expand: admins have no relations: leave it out")),
    }
}

impl Looks {
    fn shape(&self) -> Result<Shape, ApiError> {
        shape(self.expand.as_deref(), self.fields.as_deref())
    }
}

impl Page {
    fn shape(&self) -> Result<Shape, ApiError> {
        shape(self.expand.as_deref(), self.fields.as_deref())
    }
}

/// Logs an admin in.
#[utoipa::path(
    post,
    path = "/api/admins/auth-with-password",
    tag = "admins",
    params(Looks),
    request_body = Login,
    responses((status = 200, body = AdminSession))
)]
async fn login(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    Params(looks): Params<Looks>,
    body: Body<Login>,
) -> Result<Json<Value>, ApiError> {
    let shape = looks.shape()?;
    let Login { identity, email, password } = body.value;
    let Some(identity) = identity.or(email) else {
        return Err(ApiError::bad_request("send identity (or email) and password"));
    };
    let attempt = app.logins.attempt(address, &[names::DEFAULT_DATABASE, COLLECTION], &identity)?;
    let found = app.reader(names::DEFAULT_DATABASE)?.read(move |conn| admins::by_email(conn, &identity)).await?;
    let checked = passwords::run(move || {
        let valid = admins::verify_password(found.as_ref(), &password);
        found.filter(|_| valid)
    });
    match checked.await? {
        Some(admin) => {
            attempt.succeeded();
            Ok(Json(shape.project(session(&app, &admin))))
        }
        None => Err(ApiError::bad_request("no admin has this address and password")),
    }
}

/// Gives an admin's token a new life.
#[utoipa::path(
    post,
    path = "/api/admins/auth-refresh",
    tag = "admins",
    params(Looks),
    responses((status = 200, body = AdminSession))
)]
async fn refresh(
    State(app): State<App>,
    caller: Caller,
    Params(looks): Params<Looks>,
) -> Result<Json<Value>, ApiError> {
    match caller.require_admin()? {
        AdminToken::Admin(admin) => Ok(Json(looks.shape()?.project(session(&app, admin)))),
        AdminToken::Operator => Err(ApiError::forbidden("an operator's token cannot be refreshed: mint another")),
        AdminToken::Key(_) => Err(ApiError::forbidden("an API key is no token: send it as it is, until it ends")),
    }
}

/// Lists the admins, the oldest first.
#[utoipa::path(get, path = "/api/admins", tag = "admins", params(Page), responses((status = 200, body = AdminPage)))]
async fn list(State(app): State<App>, caller: Caller, Params(page): Params<Page>) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let (number, per_page) = (page.page.unwrap_or(1).max(1), page.per_page.unwrap_or(DEFAULT_PER_PAGE));
    let per_page = per_page.clamp(1, MAX_PER_PAGE);
    let shape = page.shape()?;
    let wanted = Wanted { filter: page.filter, sort: page.sort, limits: app.limits.filters };
    let reader = app.reader(names::DEFAULT_DATABASE)?;
    let (found, total) = reader.read(move |conn| admins::list(conn, &wanted, number, per_page)).await?;
    let items: Vec<Value> = found.iter().map(|admin| shape.project(record(admin))).collect();
    let pages = total.div_ceil(per_page);
    Ok(Json(json!({
        "page": number, "perPage": per_page, "totalItems": total, "totalPages": pages, "items": items,
    })))
}

/// Shows an admin.
#[utoipa::path(
    get,
    path = "/api/admins/{id}",
    tag = "admins",
    params(Looks),
    responses((status = 200, body = AdminRecord))
)]
async fn view(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Params(looks): Params<Looks>,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let shape = looks.shape()?;
    let found = app.reader(names::DEFAULT_DATABASE)?.read(move |conn| admins::view(conn, &id)).await?;
    Ok(Json(shape.project(record(&found))))
}

/// Makes an admin.
#[utoipa::path(
    post,
    path = RECORDS,
    tag = "admins",
    params(Looks),
    request_body = NewRecord,
    responses((status = 200, body = AdminRecord))
)]
async fn make(
    State(master): State<Arc<Master>>,
    caller: Caller,
    Params(looks): Params<Looks>,
    body: Body<NewRecord>,
) -> Result<Positioned<Json<Value>>, ApiError> {
    caller.require_admin()?;
    let shape = looks.shape()?;
    let NewRecord { email, password, password_confirm } = body.value;
    admins::check(&email, &password)?;
    confirm(&password, Some(&password_confirm))?;
    let hash = passwords::run(move || passwords::hash(&password)).await??;
    let writer = master.database(names::DEFAULT_DATABASE)?.writer;
    let made = writer.rows(body.bytes, move |conn| admins::create(conn, &email, &hash)).await?;
    Ok(Positioned::new(names::DEFAULT_DATABASE, made, |made| Json(shape.project(record(&made)))))
}

/// Changes an admin's address or password.
#[utoipa::path(
    patch,
    path = "/api/admins/{id}",
    tag = "admins",
    params(Looks),
    request_body = Changes,
    responses((status = 200, body = AdminRecord))
)]
async fn update(
    State(master): State<Arc<Master>>,
    caller: Caller,
    Path(id): Path<String>,
    Params(looks): Params<Looks>,
    body: Body<Changes>,
) -> Result<Positioned<Json<Value>>, ApiError> {
    caller.require_admin()?;
    let shape = looks.shape()?;
    let Changes { email, password, password_confirm, old_password } = body.value;
    email.as_deref().map_or(Ok(()), check_email)?;
    if let Some(password) = &password {
        passwords::check(password)?;
        confirm(password, password_confirm.as_deref())?;
    }
    let database = master.database(names::DEFAULT_DATABASE)?;
    let wanted = id.clone();
    let old = database.reader.read(move |conn| admins::view(conn, &wanted)).await?;
    let hash = passwords::run(move || {
        if old_password.is_some_and(|shown| !admins::verify_password(Some(&old), &shown)) {
            return Err(StoreError::field("oldPassword", "validation_invalid_old_password", "is not the password"));
        }
        password.map(|password| passwords::hash(&password)).transpose()
    });
    let hash = hash.await??;
    let change = move |conn: &_| admins::update(conn, &id, email.as_deref(), hash.as_deref());
    let updated = database.writer.rows(body.bytes, change).await?;
    Ok(Positioned::new(names::DEFAULT_DATABASE, updated, |updated| Json(shape.project(record(&updated)))))
}

/// Removes an admin, but never the last one.
#[utoipa::path(delete, path = "/api/admins/{id}", tag = "admins", responses((status = 204)))]
async fn remove(
    State(master): State<Arc<Master>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Positioned<StatusCode>, ApiError> {
    caller.require_admin()?;
    let writer = master.database(names::DEFAULT_DATABASE)?.writer;
    let removed = writer.rows(id.len(), move |conn| admins::delete(conn, &id)).await?;
    Ok(Positioned::new(names::DEFAULT_DATABASE, removed, |()| StatusCode::NO_CONTENT))
}

/// Makes an admin, or gives one a new password.
#[utoipa::path(
    post,
    path = "/api/admins",
    tag = "admins",
    request_body = NewAdmin,
    responses((status = 200, body = Admin))
)]
async fn upsert(
    State(master): State<Arc<Master>>,
    caller: Caller,
    body: Body<NewAdmin>,
) -> Result<Positioned<Json<Value>>, ApiError> {
    caller.require_admin()?;
    let NewAdmin { email, password } = body.value;
    let admin = create(&master, email, password).await?;
    Ok(Positioned::new(names::DEFAULT_DATABASE, admin, |admin| Json(json!(admin))))
}

/// Makes an admin or changes its password; also for commands that work offline.
pub async fn create(master: &Master, email: String, password: String) -> Result<Written<Admin>, StoreError> {
    admins::check(&email, &password)?;
    let hash = passwords::run(move || passwords::hash(&password)).await??;
    let writer = master.database(names::DEFAULT_DATABASE)?.writer;
    writer.rows(hash.len(), move |conn| admins::upsert(conn, &email, &hash)).await
}

/// PocketBase's answer and the specification's: the admin under both names.
fn session(app: &App, admin: &Admin) -> Value {
    let mut claims = Claims::new(&admin.id, Bearer::Admin, Audience::User, TOKEN_SECONDS);
    claims.tk = Some(admin.token_digest());
    let record = record(admin);
    json!({ "token": app.secrets.mint(&claims), "admin": record, "record": record })
}

/// An admin as a record.
fn record(admin: &Admin) -> Value {
    let mut record = json!(admin);
    record["collectionName"] = COLLECTION.into();
    record["collectionId"] = COLLECTION.into();
    record
}

fn confirm(password: &str, again: Option<&str>) -> Result<(), StoreError> {
    if again.is_none_or(|again| again == password) {
        return Ok(());
    }
    Err(StoreError::Fields(vec![passwords::mismatch()]))
}
