//! Uploaded files for everybody who may see them: `GET` and `HEAD /api/files/{collection}/{record}/{name}`.
//!
//! A name stands for the same bytes for good, so that the answer can be kept: `ETag` is their hash, ranges are answered.
//! What a browser would run as a page of this origin is sent as a download, and never sniffed. `?download=1` asks for a
//! download. On a replica a file that is on its way answers 503, or 307 to the master where MIN_POSITION_FALLBACK says
//! so. Thumbnails (`?thumb=`) are not made: the whole file is sent.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, LOCATION, RANGE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_http::services::ServeFile;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use vski_replication::datadir::DataDir;
use vski_replication::files::{self, FileRow};
use vski_replication::token::{Audience, Bearer, Claims};

use super::auth::caller::Caller;
use super::error::ApiError;
use super::extract::{DbName, Params};
use super::openapi::shapes::{Binary, Error, FileToken};
use super::range;
use super::state::MasterState;
use crate::app::{App, Databases};
use crate::config::Fallback;
use crate::filter::RequestInfo;
use crate::store::collections::Catalogue;
use crate::store::error::StoreError;
use crate::store::fields::FieldKind;
use crate::store::query::{Asking, rules};
use crate::store::requester::Requester;

/// Types that a browser shows without running anything.
const INLINE: [&str; 17] = [
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/avif",
    "image/bmp",
    "image/x-icon",
    "audio/mpeg",
    "audio/ogg",
    "audio/wav",
    "audio/flac",
    "audio/mp4",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "application/pdf",
    "text/plain",
];

/// For a file that everybody may see: it is the same for good.
const PUBLIC: &str = "max-age=2592000, stale-while-revalidate=86400";

/// Life of a token for protected files, seconds: it stands in addresses, which end up in logs.
const TOKEN_SECONDS: u64 = 180;

/// For a file that only some may see.
const PROTECTED: &str = "private, no-cache";

/// `GET /api/files/{collection}/{record}/{name}?token=&download=`.
pub fn read_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(view))
}

/// `POST /api/files/token`.
pub fn write_router() -> OpenApiRouter<MasterState> {
    OpenApiRouter::new().routes(routes!(token))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ViewParams {
    download: Option<String>,
    token: Option<String>,
}

/// A short-lived token that stands for the caller where protected files are asked for, and nowhere else.
#[utoipa::path(post, path = "/api/files/token", tag = "files", responses((status = 200, body = FileToken)))]
async fn token(State(app): State<App>, caller: Caller, headers: HeaderMap) -> Result<Json<Value>, ApiError> {
    if !caller.is_admin() {
        caller.require_record()?;
    }
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    match app.claims(shown).ok().filter(|claims| claims.aud == Audience::User) {
        Some(claims) => {
            let exp = Claims::new("", Bearer::Record, Audience::File, TOKEN_SECONDS).exp;
            let claims = Claims { aud: Audience::File, exp: exp.min(claims.exp), ..claims };
            Ok(Json(json!({ "token": app.secrets.mint(&claims) })))
        }
        None => {
            Err(ApiError::forbidden("log in to get a token for files: what was shown stands for nobody in particular"))
        }
    }
}

/// Whoever a token for files stands for. One that is not valid is none.
async fn requester(app: &App, db: &str, token: Option<&str>) -> Result<Requester, StoreError> {
    let claims = token.and_then(|token| app.secrets.verify(token).ok());
    let Some(claims) = claims.filter(|claims| claims.aud == Audience::File) else { return Ok(Requester::Guest) };
    let claims = Claims { aud: Audience::User, ..claims };
    if claims.bearer == Bearer::Admin {
        return Ok(if app.admin(&claims).await?.is_some() { Requester::Admin } else { Requester::Guest });
    }
    let record = app.record(db, &claims).await?;
    Ok(record.map_or(Requester::Guest, |record| Requester::Record(Arc::new(record))))
}

#[utoipa::path(
    get,
    path = "/api/files/{collection}/{record}/{name}",
    tag = "files",
    params(ViewParams),
    responses(
        (status = 200, body = Binary, content_type = "*/*"),
        (status = 206, body = Binary, content_type = "*/*"),
        (status = 304),
        (status = 416, body = Error)
    )
)]
async fn view(
    State(app): State<App>,
    DbName(db): DbName,
    Path((collection, record, name)): Path<(String, String, String)>,
    Params(params): Params<ViewParams>,
    request: Request,
) -> Result<Response, ApiError> {
    let reader = app.data(&db)?;
    let (wanted, requester) = (name.clone(), requester(&app, &db, params.token.as_deref()).await?);
    let found = reader.read(move |conn| {
        let catalogue = Catalogue::load(conn)?;
        let collection = catalogue.get(&collection)?;
        let absent = || StoreError::NotFound(format!("record {record:?} has no file {wanted:?}, or none for you"));
        let row = files::find(conn, &wanted)?;
        let row = row.filter(|row| row.collection == collection.id && row.record == record).ok_or_else(absent)?;
        let kind = collection.visible().find(|field| field.name == row.field).map(|field| &field.kind);
        match kind {
            Some(FieldKind::File { protected: false, .. }) => Ok((row, PUBLIC)),
            Some(FieldKind::File { protected: true, .. }) => {
                // Whoever may not see it does not learn that it exists.
                let request = RequestInfo::new(requester, Method::GET);
                let asking = Asking { catalogue: &catalogue, request: &request };
                rules::check_before(conn, asking, collection, &record, |rules| &rules.view_rule)
                    .map_err(|error| if is_refusal(&error) { absent() } else { error })?;
                Ok((row, PROTECTED))
            }
            _ => Err(absent()),
        }
    });
    let (row, cache) = found.await?;
    let (etag, cache) = (etag(&row), HeaderValue::from_static(cache));
    if is_known(request.headers(), &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag), (CACHE_CONTROL, cache)]).into_response());
    }
    let dir = app.dir().clone();
    if !dir.has_file(&db, &row) {
        return absent(&app, &db, &row, &request);
    }
    let mut response = send(&dir, &db, &row, request, etag).await?;
    if response.status().is_success() {
        let download = matches!(params.download.as_deref(), Some("1" | "t" | "true"));
        describe(response.headers_mut(), &row.name, download);
        response.headers_mut().insert(CACHE_CONTROL, cache);
    }
    Ok(response)
}

fn is_refusal(error: &StoreError) -> bool {
    matches!(error, StoreError::Forbidden(_) | StoreError::NotFound(_))
}

/// The tag of a file's bytes.
pub fn etag(row: &FileRow) -> HeaderValue {
    let digits: String = row.blake3.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    HeaderValue::from_str(&format!("\"{digits}\"")).expect("hex digits are header text")
}

fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = tags.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.trim_start_matches("W/").as_bytes() == etag.as_bytes())
}

/// The bytes of a file that is here, or the range of them that is asked for.
pub async fn send(
    dir: &DataDir,
    db: &str,
    row: &FileRow,
    mut request: Request,
    etag: HeaderValue,
) -> Result<Response, ApiError> {
    let path = dir.file(db, &row.name).ok_or_else(|| ApiError::not_found("this is no file's name"))?;
    // A range of other bytes than these, which the caller has begun with.
    if request.headers().get(IF_RANGE).is_some_and(|value| *value != etag) {
        request.headers_mut().remove(RANGE);
    }
    if let Some(asked) = request.headers_mut().remove(RANGE)
        && let Some(asked) = range::answered(&asked, row.size)
    {
        request.headers_mut().insert(RANGE, asked);
    }
    // By tag only: the times of files are no content.
    [IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE].iter().for_each(|name| _ = request.headers_mut().remove(name));
    let served = ServeFile::new(path).oneshot(request).await;
    let mut response = served.unwrap_or_else(|never| match never {}).map(axum::body::Body::new);
    if response.status() == StatusCode::NOT_FOUND {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the file was removed just now: try again"));
    }
    let headers = response.headers_mut();
    headers.remove(LAST_MODIFIED);
    headers.insert(ETAG, etag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

/// What a browser may do with it.
fn describe(headers: &mut HeaderMap, name: &str, download: bool) {
    let mime = mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream");
    let shown = INLINE.contains(&mime) && !download;
    let kind = if mime.starts_with("text/") { format!("{mime}; charset=utf-8") } else { mime.to_owned() };
    // Names have letters, digits, '-', '_' and '.' only.
    let disposition = format!("{}; filename=\"{name}\"", if shown { "inline" } else { "attachment" });
    for (header, value) in [(CONTENT_TYPE, kind), (CONTENT_DISPOSITION, disposition)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(header, value);
        }
    }
    let policy = "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; sandbox";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// A file that a row names and the disk lacks: on its way to a replica, lost on a master.
fn absent(app: &App, db: &str, row: &FileRow, request: &Request) -> Result<Response, ApiError> {
    let name = &row.name;
    if matches!(app.databases, Databases::Master(_)) {
        tracing::error!(
            db,
            file = name,
            "an uploaded file is missing in storage: a replica that has it gives it back within ten minutes; else copy it \
             from a backup to storage/<db>/<file> of this DATA_DIR, where it is served at once"
        );
        return Err(ApiError::not_found(format!("file {name} is missing on this server's disk: tell its operator")));
    }
    let master = app.identity.master_url.as_ref().filter(|_| app.freshness.min_position_fallback == Fallback::Redirect);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if let Some(location) = master.and_then(|master| HeaderValue::from_str(&format!("{master}{path}")).ok()) {
        return Ok((StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response());
    }
    let message = format!("file {name} has not been copied to this replica yet: try again shortly");
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
}
