//! Admins: log in and refresh a token (on every node, nothing is written), list and view them, make, change and remove
//! them (on a master). All of it at two paths: `/api/admins`, and PocketBase's `/api/collections/_superusers`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use vski_replication::names;
use vski_replication::token::{Audience, Bearer, Claims};

use super::caller::{Caller, ClientAddress};
use crate::app::{AdminToken, App};
use crate::http::error::ApiError;
use crate::http::extract::{Body, Params};
use crate::http::position::Positioned;
use crate::http::state::MasterState;
use crate::store::auth::admins::{self, Admin};
use crate::store::auth::check_email;
use crate::store::error::StoreError;
use crate::store::master::Master;
use crate::store::passwords;
use crate::store::records::{DEFAULT_PER_PAGE, MAX_PER_PAGE};
use crate::store::request::Written;

/// Life of a login's token, seconds: 14 days, as PocketBase's.
const TOKEN_SECONDS: u64 = 14 * 24 * 3600;

/// The name and the id of the collection that admins seem to be of.
const COLLECTION: &str = "_superusers";

const RECORDS: &str = "/api/collections/_superusers/records";

/// `POST …/auth-with-password {identity or email, password}`, `POST …/auth-refresh`; `GET` of all admins and of one.
pub fn read_router() -> Router<App> {
    let mut router = Router::new();
    for base in ["/api/admins", "/api/collections/_superusers"] {
        router = router
            .route(&format!("{base}/auth-with-password"), post(login))
            .route(&format!("{base}/auth-refresh"), post(refresh));
    }
    for base in ["/api/admins", RECORDS] {
        router = router.route(base, get(list)).route(&format!("{base}/{{id}}"), get(view));
    }
    router
}

/// `POST /api/admins {email, password}`: make an admin, or give one a new password. `POST …/records {email, password,
/// passwordConfirm}`: make a new one. `PATCH` and `DELETE` of one.
pub fn write_router() -> Router<MasterState> {
    let mut router = Router::new().route("/api/admins", post(upsert)).route(RECORDS, post(make));
    for base in ["/api/admins", RECORDS] {
        router = router.route(&format!("{base}/{{id}}"), patch(update).delete(remove));
    }
    router
}

#[derive(Deserialize)]
struct Login {
    identity: Option<String>,
    email: Option<String>,
    password: String,
}

#[derive(Deserialize)]
struct NewAdmin {
    email: String,
    password: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewRecord {
    email: String,
    password: String,
    password_confirm: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Changes {
    email: Option<String>,
    password: Option<String>,
    password_confirm: Option<String>,
    old_password: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    page: Option<u64>,
    per_page: Option<u64>,
}

async fn login(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    body: Body<Login>,
) -> Result<Json<Value>, ApiError> {
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
            Ok(Json(session(&app, &admin)))
        }
        None => Err(ApiError::bad_request("no admin has this address and password")),
    }
}

async fn refresh(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    match caller.require_admin()? {
        AdminToken::Admin(admin) => Ok(Json(session(&app, admin))),
        AdminToken::Operator => Err(ApiError::forbidden("an operator's token cannot be refreshed: mint another")),
        AdminToken::Key(_) => Err(ApiError::forbidden("an API key is no token: send it as it is, until it ends")),
    }
}

async fn list(State(app): State<App>, caller: Caller, Params(page): Params<Page>) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let (number, per_page) = (page.page.unwrap_or(1).max(1), page.per_page.unwrap_or(DEFAULT_PER_PAGE));
    let per_page = per_page.clamp(1, MAX_PER_PAGE);
    let reader = app.reader(names::DEFAULT_DATABASE)?;
    let (found, total) = reader.read(move |conn| admins::list(conn, number, per_page)).await?;
    let items: Vec<Value> = found.iter().map(record).collect();
    let pages = total.div_ceil(per_page);
    Ok(Json(json!({
        "page": number, "perPage": per_page, "totalItems": total, "totalPages": pages, "items": items,
    })))
}

async fn view(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let found = app.reader(names::DEFAULT_DATABASE)?.read(move |conn| admins::view(conn, &id)).await?;
    Ok(Json(record(&found)))
}

async fn make(
    State(master): State<Arc<Master>>,
    caller: Caller,
    body: Body<NewRecord>,
) -> Result<Positioned<Json<Value>>, ApiError> {
    caller.require_admin()?;
    let NewRecord { email, password, password_confirm } = body.value;
    admins::check(&email, &password)?;
    confirm(&password, Some(&password_confirm))?;
    let hash = passwords::run(move || passwords::hash(&password)).await??;
    let writer = master.database(names::DEFAULT_DATABASE)?.writer;
    let made = writer.rows(body.bytes, move |conn| admins::create(conn, &email, &hash)).await?;
    Ok(Positioned::new(names::DEFAULT_DATABASE, made, |made| Json(record(&made))))
}

async fn update(
    State(master): State<Arc<Master>>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body<Changes>,
) -> Result<Positioned<Json<Value>>, ApiError> {
    caller.require_admin()?;
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
    Ok(Positioned::new(names::DEFAULT_DATABASE, updated, |updated| Json(record(&updated))))
}

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
    Err(StoreError::field("passwordConfirm", "validation_values_mismatch", "must be the same as the password"))
}
