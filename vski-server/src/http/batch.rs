//! Many changes of records at once: `POST /api/batch {requests: [{method, url, body}]}`, all or nothing, in one
//! transaction. Each is allowed or refused as if the caller had sent it alone.
//!
//! Requests: `POST` and `PUT …/records` (make; change or make by the body's `id`), `PATCH` and `DELETE …/records/{id}`.
//! The answer is a list of `{status, body}` in their order. As a form: `@jsonPayload` with the above, and files as
//! `requests.0.field` or `requests[0].field`. Headers of single requests are not looked at.

/// What is refused before its files are stored.
pub(super) mod gate;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{Method, Uri};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asked::Asked;
use super::auth::caller::ClientAddress;
use super::error::ApiError;
use super::extract::DbName;
use super::json::JsonText;
use super::openapi::shapes::BatchAnswer;
use super::position::Positioned;
use super::record_body::{BatchBody, RecordBody};
use super::records::{secrets, shaped};
use super::state::MasterState;
use crate::app::App;
use crate::config::{FilterLimits, Limits};
use crate::filter::RequestInfo;
use crate::store::actions::{Action, Verb};
use crate::store::error::StoreError;
use crate::store::files::Upload;
use crate::store::master::Master;
use crate::store::query::Shape;
use crate::store::request::Written;

/// `POST /api/batch`.
pub fn write_router() -> OpenApiRouter<MasterState> {
    OpenApiRouter::new().routes(routes!(batch))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = BatchRequests)]
struct Requests {
    requests: Vec<Single>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = BatchRequest)]
struct Single {
    method: String,
    url: String,
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    body: Option<Map<String, Value>>,
}

/// Changes many records, all or nothing.
#[utoipa::path(
    post,
    path = "/api/batch",
    tag = "batch",
    request_body(content((Requests = "application/json"), (Requests = "multipart/form-data"))),
    responses((status = 200, body = Vec<BatchAnswer>))
)]
async fn batch(
    State(app): State<App>,
    State(master): State<Arc<Master>>,
    ClientAddress(address): ClientAddress,
    Asked(request): Asked,
    DbName(db): DbName,
    body: BatchBody,
) -> Result<Positioned<JsonText>, ApiError> {
    let BatchBody { value, uploads, bytes } = body;
    let database = master.database(&db)?;
    let parsed = actions(&request, &db, value, &app.limits).and_then(|made| Ok((places(&uploads, made.len())?, made)));
    let mut actions = match parsed {
        Ok((places, made)) => with_files(made, uploads, places),
        Err(refusal) => {
            RecordBody::discard(&uploads);
            return Err(refusal);
        }
    };
    for at in 0..actions.len() {
        let found = match actions[at].check_open(&database.reader).await {
            Ok(()) => secrets(&app, address, &database, &actions[at]).await,
            Err(error) => Err(StoreError::Batch { at, error: Box::new(error) }.into()),
        };
        match found {
            Ok(secrets) => actions[at].secrets = secrets,
            Err(refusal) => {
                actions.iter().for_each(|action| RecordBody::discard(&action.uploads));
                return Err(refusal);
            }
        }
    }
    let actions: Vec<Arc<Action>> = actions.into_iter().map(Arc::new).collect();
    let again = actions.clone();
    let written = database.writer.rows(bytes, move |conn| {
        let run = |(at, action): (usize, &Arc<Action>)| {
            action.run(conn).map_err(|error| StoreError::Batch { at, error: Box::new(error) })
        };
        again.iter().enumerate().map(run).collect::<Result<Vec<_>, _>>()
    });
    match written.await {
        Ok(Written { value: records, head }) => {
            let mut value = Vec::with_capacity(records.len());
            for (action, record) in actions.into_iter().zip(records) {
                value.push(shaped(&database.reader.data(app.limits.read_time), action, record).await?);
            }
            Ok(Positioned::new(&db, Written { value, head }, |records| JsonText(answers(&records))))
        }
        Err(error) => {
            actions.iter().for_each(|action| RecordBody::discard(&action.uploads));
            Err(error.into())
        }
    }
}

/// The answers in the order of the requests, with the records that are text already.
fn answers(records: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut text = vec![b'['];
    for (at, record) in records.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        let (status, body): (&[u8], &[u8]) = record.as_ref().map_or((b"204", b"null"), |record| (b"200", record));
        [b"{\"status\":", status, b",\"body\":", body, b"}"].iter().for_each(|part| text.extend_from_slice(part));
    }
    text.push(b']');
    text
}

/// What the requests ask for.
fn actions(whole: &RequestInfo, db: &str, value: Value, limits: &Limits) -> Result<Vec<Action>, ApiError> {
    let most = usize::try_from(limits.batch_requests).unwrap_or(usize::MAX);
    let Requests { requests } = serde_json::from_value(value)
        .map_err(|error| ApiError::bad_request(format!("send {{requests: [{{method, url, body}}]}}: {error}")))?;
    if requests.is_empty() || requests.len() > most {
        let message = format!("a batch has 1 to {most} requests, and this one has {}", requests.len());
        return Err(ApiError::bad_request(message));
    }
    let one = |(at, request)| {
        action(whole, db, request, limits.filters).map_err(|error| StoreError::Batch { at, error: Box::new(error) })
    };
    Ok(requests.into_iter().enumerate().map(one).collect::<Result<_, _>>()?)
}

/// Request and field of each file.
fn places(uploads: &[Upload], requests: usize) -> Result<Vec<(usize, String)>, ApiError> {
    let found = uploads
        .iter()
        .map(|upload| place(&upload.field).filter(|(at, _)| *at < requests).ok_or_else(|| gate::stray(&upload.field)));
    found.collect()
}

/// Gives each request its files.
fn with_files(mut actions: Vec<Action>, uploads: Vec<Upload>, places: Vec<(usize, String)>) -> Vec<Action> {
    let mut files: BTreeMap<usize, Vec<Upload>> = BTreeMap::new();
    for (mut upload, (at, field)) in uploads.into_iter().zip(places) {
        upload.field = field;
        files.entry(at).or_default().push(upload);
    }
    for (at, uploads) in files {
        actions[at].uploads = Arc::new(uploads);
    }
    actions
}

/// The request that a file belongs to, and its field: `requests.0.field` or `requests[0].field`.
fn place(key: &str) -> Option<(usize, String)> {
    let rest = key.strip_prefix("requests")?;
    let (at, field) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once("].")?,
        None => rest.strip_prefix('.')?.split_once('.')?,
    };
    Some((at.parse().ok()?, field.to_owned()))
}

/// What one request asks for, in the name of whoever sent the batch.
fn action(whole: &RequestInfo, db: &str, request: Single, limits: FilterLimits) -> Result<Action, StoreError> {
    let Single { method, url, body } = request;
    let refused = |message: String| StoreError::Invalid(message);
    let uri: Uri = url.parse().map_err(|error| refused(format!("{url:?} is no address: {error}")))?;
    let query: Result<Query<BTreeMap<String, String>>, _> = Query::try_from_uri(&uri);
    let Query(query) = query.map_err(|rejection| refused(rejection.body_text()))?;
    if uri.authority().is_some() {
        return Err(refused(format!("{url:?} names a host: a batch's requests are paths, as /api/collections/…")));
    }
    if let Some(other) = query.get("db").filter(|other| *other != db) {
        let message = format!("{url:?} is about database {other}, and the batch about {db}: send one batch for each");
        return Err(refused(message));
    }
    let path = uri.path();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (collection, id) = match segments[..] {
        ["api", "collections", collection, "records"] => (collection, None),
        ["api", "collections", collection, "records", id] => (collection, Some(id.to_owned())),
        _ => {
            let message = format!("{path:?} is not /api/collections/{{collection}}/records or a record below it");
            return Err(refused(message));
        }
    };
    let (method, verb) = match (method.to_ascii_uppercase().as_str(), id) {
        ("POST", None) => (Method::POST, Verb::Create),
        ("PUT", None) => (Method::PUT, Verb::Upsert),
        ("PATCH", Some(id)) => (Method::PATCH, Verb::Update(id)),
        ("DELETE", Some(id)) => (Method::DELETE, Verb::Delete(id)),
        (method, _) => return Err(refused(format!("{method} {path} cannot be part of a batch"))),
    };
    let text = |name: &str| query.get(name).map(String::as_str);
    let shape = Shape::parse(text("expand"), text("fields"), limits)?;
    let (body, query) = (Arc::new(body.unwrap_or_default()), Arc::new(query));
    let request = RequestInfo { method, context: "batch", query, body, ..whole.clone() };
    Ok(Action::new(verb, collection, request, shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::requester::Requester;

    fn parsed(method: &str, url: &str) -> Option<Verb> {
        let whole = RequestInfo::new(Requester::Guest, Method::POST);
        let single = Single { method: method.to_owned(), url: url.to_owned(), body: None };
        action(&whole, "default", single, FilterLimits::RULES).map(|action| action.verb).ok()
    }

    #[test]
    fn only_changes_of_records_can_be_part_of_a_batch() {
        assert_eq!(parsed("post", "/api/collections/posts/records?expand=a"), Some(Verb::Create));
        assert_eq!(parsed("POST", "/api/collections/posts/records?db=default"), Some(Verb::Create));
        assert_eq!(parsed("PUT", "/api/collections/posts/records"), Some(Verb::Upsert));
        assert_eq!(parsed("PATCH", "/api/collections/posts/records/abc"), Some(Verb::Update("abc".into())));
        assert_eq!(parsed("DELETE", "/api/collections/posts/records/abc"), Some(Verb::Delete("abc".into())));
        for (method, url) in [
            ("GET", "/api/collections/posts/records"),
            ("POST", "/api/collections/posts/records/abc"),
            ("DELETE", "/api/collections/posts/records"),
            ("POST", "/api/collections"),
            ("POST", "/api/sql"),
            ("POST", ""),
            ("POST", "http://x/api/collections/posts/records"),
            ("POST", "//x/api/collections/posts/records"),
            ("POST", "/api/collections/posts/records?db=other"),
            ("POST", "/api/collections/posts/records?db="),
        ] {
            assert!(parsed(method, url).is_none(), "{method} {url}");
        }
    }

    #[test]
    fn a_file_names_its_request_and_its_field() {
        assert_eq!(place("requests.2.photo+"), Some((2, "photo+".to_owned())));
        assert_eq!(place("requests[0].photo"), Some((0, "photo".to_owned())));
        for key in ["photo", "requests.photo", "requests[x].photo", "requests.1"] {
            assert_eq!(place(key), None, "{key}");
        }
    }
}
