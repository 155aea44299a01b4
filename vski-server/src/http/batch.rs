//! Many changes of records at once: `POST /api/batch {requests: [{method, url, body}]}`, all or nothing, in one
//! transaction. Each is allowed or refused as if the caller had sent it alone.
//!
//! Requests: `POST` and `PUT …/records` (make; change or make by the body's `id`), `PATCH` and `DELETE …/records/{id}`.
//! The answer is a list of `{status, body}` in their order. As a form: `@jsonPayload` with the above, and files as
//! `requests.0.field` or `requests[0].field`. Headers of single requests are not looked at.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::extract::{Caller, DbName};
use super::position::Positioned;
use super::record_body::{BatchBody, RecordBody};
use super::state::MasterState;
use crate::app::App;
use crate::store::actions::{Action, Verb};
use crate::store::error::StoreError;
use crate::store::files::Upload;
use crate::store::master::Master;
use crate::store::records;

/// `POST /api/batch`.
pub fn write_router() -> Router<MasterState> {
    Router::new().route("/api/batch", post(batch))
}

#[derive(Deserialize)]
struct Requests {
    requests: Vec<Single>,
}

#[derive(Deserialize)]
struct Single {
    method: String,
    url: String,
    #[serde(default)]
    body: Option<Map<String, Value>>,
}

async fn batch(
    State(app): State<App>,
    State(master): State<Arc<Master>>,
    caller: Caller,
    DbName(db): DbName,
    body: BatchBody,
) -> Result<Positioned<Json<Value>>, ApiError> {
    let BatchBody { value, uploads, bytes } = body;
    let database = master.database(&db)?;
    let (admin, most) = (caller.is_admin(), app.limits.batch_requests);
    let grouped = match actions(value, uploads, usize::try_from(most).unwrap_or(usize::MAX)) {
        Ok(actions) => actions,
        Err((uploads, refusal)) => {
            RecordBody::discard(&uploads);
            return Err(refusal);
        }
    };
    let mut actions = grouped;
    for action in &mut actions {
        let hashed = records::hash_passwords(&database.reader, &action.collection, &[&action.body]).await?;
        action.secrets = hashed.into_iter().next().unwrap_or_default();
    }
    let actions = Arc::new(actions);
    let again = Arc::clone(&actions);
    let written = database.writer.rows(bytes, move |conn| {
        let run = |(at, action): (usize, &Action)| {
            action.run(conn, admin).map_err(|error| StoreError::Batch { at, error: Box::new(error) })
        };
        again.iter().enumerate().map(run).collect::<Result<Vec<_>, _>>()
    });
    match written.await {
        Ok(written) => Ok(Positioned::new(&db, written, |records| Json(answers(records)))),
        Err(error) => {
            actions.iter().for_each(|action| RecordBody::discard(&action.uploads));
            Err(error.into())
        }
    }
}

fn answers(records: Vec<Option<Value>>) -> Value {
    let answer = |record: Option<Value>| match record {
        Some(record) => json!({ "status": 200, "body": record }),
        None => json!({ "status": 204, "body": null }),
    };
    records.into_iter().map(answer).collect()
}

/// What the requests ask for; gives the files back where they ask for what cannot be.
fn actions(value: Value, uploads: Vec<Upload>, most: usize) -> Result<Vec<Action>, (Vec<Upload>, ApiError)> {
    let parsed: Result<Requests, _> = serde_json::from_value(value);
    let requests = match parsed {
        Ok(Requests { requests }) => requests,
        Err(error) => return Err((uploads, ApiError::bad_request(format!("send {{requests: [{{method, url, body}}]}}: {error}")))),
    };
    if requests.is_empty() || requests.len() > most {
        let message = format!("a batch has 1 to {most} requests, and this one has {}", requests.len());
        return Err((uploads, ApiError::bad_request(message)));
    }
    let mut made = Vec::with_capacity(requests.len());
    for (at, request) in requests.into_iter().enumerate() {
        match action(request) {
            Ok(action) => made.push(action),
            Err(message) => {
                let refused = StoreError::Batch { at, error: Box::new(StoreError::Invalid(message)) };
                return Err((uploads, refused.into()));
            }
        }
    }
    let mut files: BTreeMap<usize, Vec<Upload>> = BTreeMap::new();
    for mut upload in uploads {
        let place = place(&upload.field).filter(|(at, _)| *at < made.len());
        let Some((at, field)) = place else {
            let message = format!("file {:?} belongs to no request: call it requests.0.field", upload.field);
            let mut all: Vec<Upload> = files.into_values().flatten().collect();
            all.push(upload);
            return Err((all, ApiError::bad_request(message)));
        };
        upload.field = field;
        files.entry(at).or_default().push(upload);
    }
    for (at, uploads) in files {
        made[at].uploads = Arc::new(uploads);
    }
    Ok(made)
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

fn action(request: Single) -> Result<Action, String> {
    let Single { method, url, body } = request;
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (collection, id) = match segments[..] {
        ["api", "collections", collection, "records"] => (collection, None),
        ["api", "collections", collection, "records", id] => (collection, Some(id.to_owned())),
        _ => return Err(format!("{path:?} is not /api/collections/{{collection}}/records or a record below it")),
    };
    let verb = match (method.to_ascii_uppercase().as_str(), id) {
        ("POST", None) => Verb::Create,
        ("PUT", None) => Verb::Upsert,
        ("PATCH", Some(id)) => Verb::Update(id),
        ("DELETE", Some(id)) => Verb::Delete(id),
        (method, _) => return Err(format!("{method} {path} cannot be part of a batch")),
    };
    Ok(Action::new(verb, collection, body.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: &str, url: &str) -> Result<Verb, String> {
        action(Single { method: method.to_owned(), url: url.to_owned(), body: None }).map(|action| action.verb)
    }

    #[test]
    fn only_changes_of_records_can_be_part_of_a_batch() {
        assert_eq!(parsed("post", "/api/collections/posts/records?expand=a"), Ok(Verb::Create));
        assert_eq!(parsed("PUT", "/api/collections/posts/records"), Ok(Verb::Upsert));
        assert_eq!(parsed("PATCH", "/api/collections/posts/records/abc"), Ok(Verb::Update("abc".into())));
        assert_eq!(parsed("DELETE", "/api/collections/posts/records/abc"), Ok(Verb::Delete("abc".into())));
        for (method, url) in [
            ("GET", "/api/collections/posts/records"),
            ("POST", "/api/collections/posts/records/abc"),
            ("DELETE", "/api/collections/posts/records"),
            ("POST", "/api/collections"),
            ("POST", "/api/sql"),
            ("POST", ""),
        ] {
            assert!(parsed(method, url).is_err(), "{method} {url}");
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
