//! Admins: log in, refresh a token (on every node, nothing is written), and make or change one (on a master).

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use vski_replication::names;
use vski_replication::token::{Audience, Bearer, Claims};

use super::error::ApiError;
use super::extract::{Body, Caller};
use super::position::Positioned;
use super::state::MasterState;
use crate::app::{AdminToken, App};
use crate::store::admins::{self, Admin};
use crate::store::error::StoreError;
use crate::store::master::Master;
use crate::store::passwords;
use crate::store::request::Written;

/// Life of a login's token, seconds: 14 days, as PocketBase's.
const TOKEN_SECONDS: u64 = 14 * 24 * 3600;

/// `POST …/auth-with-password {identity or email, password}`, `POST …/auth-refresh`, at both of their paths.
pub fn read_router() -> Router<App> {
    let mut router = Router::new();
    for base in ["/api/admins", "/api/collections/_superusers"] {
        router = router
            .route(&format!("{base}/auth-with-password"), post(login))
            .route(&format!("{base}/auth-refresh"), post(refresh));
    }
    router
}

/// `POST /api/admins {email, password}`: make an admin, or give one a new password.
pub fn write_router() -> Router<MasterState> {
    Router::new().route("/api/admins", post(upsert))
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

async fn login(State(app): State<App>, body: Body<Login>) -> Result<Json<Value>, ApiError> {
    let Login { identity, email, password } = body.value;
    let Some(identity) = identity.or(email) else {
        return Err(ApiError::bad_request("send identity (or email) and password"));
    };
    let found = app.reader(names::DEFAULT_DATABASE)?.read(move |conn| admins::by_email(conn, &identity)).await?;
    let checked = passwords::run(move || {
        let valid = admins::verify_password(found.as_ref(), &password);
        found.filter(|_| valid)
    });
    match checked.await? {
        Some(admin) => Ok(Json(session(&app, &admin))),
        None => Err(ApiError::bad_request("no admin has this address and password")),
    }
}

async fn refresh(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    match caller.require_admin()? {
        AdminToken::Admin(admin) => Ok(Json(session(&app, admin))),
        AdminToken::Operator => Err(ApiError::forbidden("an operator's token cannot be refreshed: mint another")),
    }
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
    let hash = passwords::run(move || admins::hash_password(&password)).await??;
    let writer = master.database(names::DEFAULT_DATABASE)?.writer;
    writer.rows(hash.len(), move |conn| admins::upsert(conn, &email, &hash)).await
}

/// PocketBase's answer and the specification's: the admin under both names.
fn session(app: &App, admin: &Admin) -> Value {
    let mut claims = Claims::new(&admin.id, Bearer::Admin, Audience::User, TOKEN_SECONDS);
    claims.tk = Some(admin.token_digest());
    let mut record = json!(admin);
    record["collectionName"] = "_superusers".into();
    record["collectionId"] = "_superusers".into();
    json!({ "token": app.secrets.mint(&claims), "admin": record, "record": record })
}
