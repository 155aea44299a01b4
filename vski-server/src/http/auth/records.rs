//! Records of auth collections: log in with a password, refresh a token, how to log in; and for admins, a token in a
//! record's name. Nothing of it writes, so all but the last works on replicas.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::routing::any;
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use vski_replication::token::Claims;

use super::caller::{Caller, ClientAddress};
use crate::app::App;
use crate::filter::RequestInfo;
use crate::http::asked::Asked;
use crate::http::error::ApiError;
use crate::http::extract::{Body, DbName, Params, RawBody};
use crate::http::openapi::shapes::{AuthMethods, RecordSession};
use crate::store::auth::records::{self, Credentials, Proof};
use crate::store::collections::{Catalogue, Collection};
use crate::store::error::{FieldError, StoreError};
use crate::store::passwords;
use crate::store::query::{Asking, Shape, list};
use crate::store::reader::Reader;
use crate::store::requester::Requester;

/// Longest life of a token that is made in a record's name, seconds: ten years.
const MAX_SECONDS: u64 = 10 * 365 * 24 * 3600;

/// What PocketBase offers beside, and what it would take.
const ABSENT: [(&str, &str); 9] = [
    ("request-otp", "a mail server"),
    ("auth-with-otp", "a mail server"),
    ("request-verification", "a mail server"),
    ("confirm-verification", "a mail server"),
    ("request-password-reset", "a mail server"),
    ("confirm-password-reset", "a mail server"),
    ("request-email-change", "a mail server"),
    ("confirm-email-change", "a mail server"),
    ("auth-with-oauth2", "another site to log in at"),
];

/// `POST …/auth-with-password {identity, password, identityField}`, `POST …/auth-refresh`, `GET …/auth-methods`,
/// `POST …/impersonate/{id} {duration}`.
///
/// What is absent has a route, too, which is not in the OpenAPI document.
pub fn read_router() -> OpenApiRouter<App> {
    let base = "/api/collections/{collection}";
    let mut router = OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(methods))
        .routes(routes!(impersonate));
    for (name, need) in ABSENT {
        let told = move |method: Method| async move {
            let message =
                format!("{method} {name} needs {need}, which this server does not have: log in with a password");
            ApiError::new(StatusCode::NOT_FOUND, message)
        };
        router = router.route(&format!("{base}/{name}"), any(told));
    }
    router
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
#[schema(as = RecordLogin)]
struct Login {
    identity: String,
    password: String,
    identity_field: Option<String>,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct Impersonation {
    duration: u64,
}

/// How the answer is to look.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Looks {
    expand: Option<String>,
    fields: Option<String>,
}

impl Looks {
    fn shape(&self, app: &App) -> Result<Shape, StoreError> {
        Shape::parse(self.expand.as_deref(), self.fields.as_deref(), app.limits.filters)
    }
}

/// Logs a record of an auth collection in.
#[utoipa::path(
    post,
    path = "/api/collections/{collection}/auth-with-password",
    tag = "auth",
    params(Looks),
    request_body = Login,
    responses((status = 200, body = RecordSession))
)]
async fn login(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    Asked(request): Asked,
    DbName(db): DbName,
    Path(name): Path<String>,
    Params(looks): Params<Looks>,
    body: Body<Login>,
) -> Result<Json<Value>, ApiError> {
    let Login { identity, password, identity_field } = body.value;
    let shape = looks.shape(&app)?;
    required(&[("identity", &identity), ("password", &password)])?;
    let reader = app.reader(&db)?;
    let collection = reader.read(move |conn| records::collection(&*Catalogue::load(conn)?, &name).cloned()).await?;
    let fields = identity_fields(&collection, identity_field)?;
    let attempt = app.logins.attempt(address, &[&db, &collection.id], &identity)?;
    let wanted = collection.clone();
    let found = reader.read(move |conn| records::by_identity(conn, &wanted, &fields, &identity)).await?;
    let checked = passwords::run(move || {
        let hash = found.as_ref().map(|found| found.password_hash.as_str());
        let valid = passwords::verify(hash, &password);
        found.filter(|_| valid)
    });
    // The same words whoever it is: nobody learns who exists.
    let found = checked.await?.ok_or_else(|| ApiError::bad_request("Failed to authenticate."))?;
    attempt.succeeded();
    let wanted = shape.clone();
    let session = session_reader(&app, reader, &shape)
        .read(move |conn| session(conn, request, &collection, &found, &db, &wanted))
        .await?;
    Ok(session.answer(&app, &shape))
}

/// Gives a record's token a new life; one that an admin made comes back as it is, as in PocketBase.
#[utoipa::path(
    post,
    path = "/api/collections/{collection}/auth-refresh",
    tag = "auth",
    params(Looks),
    responses((status = 200, body = RecordSession))
)]
async fn refresh(
    State(app): State<App>,
    caller: Caller,
    DbName(db): DbName,
    Path(name): Path<String>,
    Params(looks): Params<Looks>,
) -> Result<Json<Value>, ApiError> {
    let who = caller.require_record()?;
    let shape = looks.shape(&app)?;
    let request = RequestInfo::new(caller.requester(), Method::POST);
    let (id, own, wanted, reader) = (who.id().to_owned(), who.collection_id.clone(), shape.clone(), app.reader(&db)?);
    let read = move |conn: &Connection| {
        let catalogue = Catalogue::load(conn)?;
        let collection = records::collection(&catalogue, &name)?;
        if collection.id != own {
            let message = format!("this token is not one of collection {}: refresh it at its own", collection.name);
            return Err(StoreError::Forbidden(message));
        }
        let found =
            records::by_id(conn, collection, &id)?.ok_or_else(|| StoreError::NotFound(format!("{id} is gone")))?;
        session(conn, request, collection, &found, &db, &wanted)
    };
    let mut session = session_reader(&app, reader, &shape).read(read).await?;
    if let Some(exp) = caller.fixed_until {
        session.claims = Claims { exp, fixed: true, ..session.claims };
    }
    Ok(session.answer(&app, &shape))
}

/// Tells how one logs in.
#[utoipa::path(
    get,
    path = "/api/collections/{collection}/auth-methods",
    tag = "auth",
    responses((status = 200, body = AuthMethods))
)]
async fn methods(
    State(app): State<App>,
    DbName(db): DbName,
    Path(name): Path<String>,
    Params(looks): Params<Looks>,
) -> Result<Json<Value>, ApiError> {
    let shape = looks.shape(&app)?;
    let found =
        app.reader(&db)?.read(move |conn| records::collection(&*Catalogue::load(conn)?, &name).cloned()).await?;
    let password = found.auth.unwrap_or_default().password_auth;
    Ok(Json(shape.project(methods_json(password.enabled, &password.identity_fields))))
}

/// Makes a token in a record's name. Admins only.
#[utoipa::path(
    post,
    path = "/api/collections/{collection}/impersonate/{id}",
    tag = "auth",
    params(Looks),
    request_body = Option<Impersonation>,
    responses((status = 200, body = RecordSession))
)]
async fn impersonate(
    State(app): State<App>,
    caller: Caller,
    DbName(db): DbName,
    Path((name, id)): Path<(String, String)>,
    Params(looks): Params<Looks>,
    RawBody(body): RawBody,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let shape = looks.shape(&app)?;
    let duration = duration(&body)?;
    let (wanted, reader) = (shape.clone(), app.reader(&db)?);
    let read = move |conn: &Connection| {
        let catalogue = Catalogue::load(conn)?;
        let collection = records::collection(&catalogue, &name)?;
        let missing = || StoreError::NotFound(format!("collection {} has no record {id:?}", collection.name));
        let found = records::by_id(conn, collection, &id)?.ok_or_else(missing)?;
        let request = RequestInfo::new(Requester::Admin, Method::POST);
        let asking = Asking { catalogue: &catalogue, request: &request };
        shown(conn, asking, collection, &found, &db, &wanted)
    };
    let mut session = session_reader(&app, reader, &shape).read(read).await?;
    session.claims.fixed = true;
    if let Some(duration) = duration {
        session.claims.lasts(duration);
    }
    Ok(session.answer(&app, &shape))
}

/// That whoever asks for an update knows the record's password, if the body claims it. Guesses are counted as those of logins
/// are.
pub async fn prove(
    app: &App,
    address: IpAddr,
    db: &str,
    (collection, id): (&str, &str),
    body: &Map<String, Value>,
) -> Result<Proof, ApiError> {
    if !body.contains_key("oldPassword") {
        return Ok(Proof::default());
    }
    let (reader, name) = (app.reader(db)?, collection.to_owned());
    let found = reader.read(move |conn| Ok(Catalogue::load(conn)?.find(&name).map(|found| found.id.clone())));
    // By its id: the name can be written in many ways, and each would be another identity.
    let Some(collection) = found.await? else { return Ok(Proof::default()) };
    let attempt = app.logins.attempt(address, &[db, &collection, "oldPassword"], id)?;
    let proof = records::prove(&reader, &collection, id, body).await?;
    if proof.is_given() {
        attempt.succeeded();
    }
    Ok(proof)
}

/// The seconds that a body asks for, if it does: none and 0 are as many as a login's.
fn duration(body: &[u8]) -> Result<Option<u64>, ApiError> {
    if body.is_empty() {
        return Ok(None);
    }
    let wanted: Impersonation = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the body must be {{\"duration\": seconds}}: {error}")))?;
    if wanted.duration > MAX_SECONDS {
        let message = format!("must be at most {MAX_SECONDS} seconds; 0: as long as a login's token");
        return Err(StoreError::field("duration", "validation_max_less_equal_than_required", message).into());
    }
    Ok(Some(wanted.duration).filter(|duration| *duration > 0))
}

/// PocketBase's answer, with the keys of its older clients.
fn methods_json(enabled: bool, identity_fields: &[String]) -> Value {
    let by_email = enabled && identity_fields.iter().any(|field| field == "email");
    let by_name = enabled && identity_fields.iter().any(|field| field != "email");
    json!({
        "password": { "enabled": enabled, "identityFields": if enabled { identity_fields } else { &[] } },
        "oauth2": { "enabled": false, "providers": [] },
        "mfa": { "enabled": false, "duration": 0 },
        "otp": { "enabled": false, "duration": 0 },
        "emailPassword": by_email,
        "usernamePassword": by_name,
        "authProviders": [],
    })
}

/// A login waits behind no reads of data, unless it wants to see some.
fn session_reader(app: &App, reader: Reader, shape: &Shape) -> Reader {
    if shape.expands() { reader.data(app.limits.read_time) } else { reader }
}

/// What a login answers, but for the token itself.
struct Session {
    claims: Claims,
    record: Value,
}

impl Session {
    fn answer(self, app: &App, shape: &Shape) -> Json<Value> {
        Json(shape.project(json!({ "token": app.secrets.mint(&self.claims), "record": self.record })))
    }
}

/// The session of a record that showed who it is, unless the collection's rule keeps it out.
fn session(
    conn: &Connection,
    request: RequestInfo,
    collection: &Collection,
    found: &Credentials,
    db: &str,
    shape: &Shape,
) -> Result<Session, StoreError> {
    let catalogue = Catalogue::load(conn)?;
    let requester = Requester::Record(Arc::new(records::view(conn, collection, &found.id)?));
    let request = RequestInfo { requester, context: "password", ..request };
    let asking = Asking { catalogue: &catalogue, request: &request };
    if !records::may_log_in(conn, asking, collection, &found.id)? {
        let message = format!("collection {} does not let this record log in (its authRule)", collection.name);
        return Err(StoreError::Forbidden(message));
    }
    shown(conn, asking, collection, found, db, shape)
}

/// A record as the caller sees it, and the claims of its token.
fn shown(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    found: &Credentials,
    db: &str,
    shape: &Shape,
) -> Result<Session, StoreError> {
    // What `fields` names are parts of the whole answer.
    let expanded = Shape { fields: None, ..shape.clone() };
    let record = list::tree(conn, asking, collection, &found.id, &expanded)?;
    let seconds = collection.auth.clone().unwrap_or_default().auth_token.duration;
    let claims = Claims::record(&found.id, db, &collection.id, &found.token_digest(), seconds);
    Ok(Session { claims, record })
}

fn required(values: &[(&str, &str)]) -> Result<(), StoreError> {
    let blank = values.iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| FieldError {
        field: (*name).to_owned(),
        code: "validation_required",
        message: "must not be blank".to_owned(),
    });
    let errors: Vec<_> = blank.collect();
    if errors.is_empty() { Ok(()) } else { Err(StoreError::Fields(errors)) }
}

/// The fields in which an identity is looked for.
fn identity_fields(collection: &Collection, wanted: Option<String>) -> Result<Vec<String>, ApiError> {
    let password = collection.auth.clone().unwrap_or_default().password_auth;
    if !password.enabled {
        let message =
            format!("collection {} does not take passwords: an admin can turn passwordAuth on", collection.name);
        return Err(ApiError::forbidden(message));
    }
    match wanted.filter(|wanted| !wanted.is_empty()) {
        None => Ok(password.identity_fields),
        Some(wanted) if password.identity_fields.contains(&wanted) => Ok(vec![wanted]),
        Some(wanted) => {
            let fields = password.identity_fields.join(", ");
            let message = format!("{wanted} is no field to log in with: there are {fields}");
            Err(StoreError::field("identityField", "validation_in_invalid", message).into())
        }
    }
}
