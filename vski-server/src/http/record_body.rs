//! A record as a request brings it: JSON, or a form with files (`multipart/form-data`).
//!
//! A form's texts become values as the collection's fields want them; a key that is repeated becomes a list; the part
//! `@jsonPayload` is a JSON object whose keys count as parts (PocketBase's clients). Files are streamed to the disk
//! before the record is written: who may not create or change records at all, and who asks for a collection that is not
//! there, is refused before, of a batch as far as it is known by then.

use std::sync::Arc;

use axum::extract::multipart::{Field as Part, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRef, FromRequest, FromRequestParts, Multipart, RawPathParams, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::asked::Asked;
use super::batch::gate::Gate;
use super::error::ApiError;
use super::extract::{Body, Caller, DbName, RawBody, check_keys};
use crate::app::App;
use crate::store::collections::{self, Catalogue, Collection};
use crate::store::error::StoreError;
use crate::store::fields::{Field, FieldKind};
use crate::store::files::values::DEFAULT_FILE_BYTES;
use crate::store::files::{Upload, Uploads};
use crate::store::master::Master;
use crate::store::query::rules::closed;

/// Parts of a form at most.
const MAX_PARTS: usize = 1_000;

/// Bytes of a form's texts at most.
const MAX_TEXT_BYTES: usize = 8 << 20;

/// Bytes of a file that are collected before they are written.
const BUFFER: usize = 256 << 10;

/// Key of the part that holds an object of other keys.
const JSON_PAYLOAD: &str = "@jsonPayload";

/// The body of a request that creates or changes a record.
pub struct RecordBody {
    /// Its values.
    pub value: Map<String, Value>,
    /// Its files, whole on the disk and without rows. The writer's request holds them, too.
    pub uploads: Arc<Vec<Upload>>,
    /// What it holds in memory, bytes.
    pub bytes: usize,
}

impl RecordBody {
    /// Removes the files at once, of a request that was refused.
    pub fn discard(uploads: &[Upload]) {
        uploads.iter().for_each(Upload::discard);
    }
}

impl<S: Send + Sync> FromRequest<S> for RecordBody
where
    App: FromRef<S>,
    Arc<Master>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if is_form(&request) {
            // A box of its own: what reading a form takes need not be moved for each request that has none.
            return Box::pin(Self::from_form(request, state)).await;
        }
        let Body { value, bytes } = json_object(RawBody::from_request(request, state).await?.0).await?;
        Ok(Self { value, uploads: Arc::default(), bytes })
    }
}

impl RecordBody {
    async fn from_form<S: Send + Sync>(request: Request, state: &S) -> Result<Self, ApiError>
    where
        App: FromRef<S>,
        Arc<Master>: FromRef<S>,
    {
        let (mut parts, body) = with_upload_limit(request, state).into_parts();
        let DbName(db) = DbName::from_request_parts(&mut parts, state).await?;
        let path = RawPathParams::from_request_parts(&mut parts, state).await;
        let path = path.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
        let collection = path.iter().find(|(name, _)| *name == "collection").map(|(_, value)| value.to_owned());
        let collection = collection.unwrap_or_default();
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        let collection =
            App::from_ref(state).reader(&db)?.read(move |conn| collections::view(conn, &collection)).await?;
        check_may_write(&collection, &parts.method, caller.is_admin())?;
        let request = Request::from_parts(parts, body);
        let form = Multipart::from_request(request, state).await;
        let form = form.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
        let master: Arc<Master> = FromRef::from_ref(state);
        let reading = Form::new(master.uploads(), db, collection, DEFAULT_FILE_BYTES);
        let Form { values: value, files, text_bytes: bytes, .. } = reading.read(form).await?;
        Ok(Self { value, uploads: Arc::new(files), bytes })
    }
}

/// The body of a batch.
pub struct BatchBody {
    /// `{requests: […]}`.
    pub value: Value,
    /// Its files, by keys that name their request.
    pub uploads: Vec<Upload>,
    /// What it holds in memory, bytes.
    pub bytes: usize,
}

impl<S: Send + Sync> FromRequest<S> for BatchBody
where
    App: FromRef<S>,
    Arc<Master>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if is_form(&request) {
            return Box::pin(Self::from_form(request, state)).await;
        }
        let Body { value, bytes } = Body::from_request(request, state).await?;
        Ok(Self { value: unpack(value)?, uploads: Vec::new(), bytes })
    }
}

impl BatchBody {
    async fn from_form<S: Send + Sync>(request: Request, state: &S) -> Result<Self, ApiError>
    where
        App: FromRef<S>,
        Arc<Master>: FromRef<S>,
    {
        let request = with_upload_limit(request, state);
        let (mut parts, body) = request.into_parts();
        let DbName(db) = DbName::from_request_parts(&mut parts, state).await?;
        let Asked(asked) = Asked::from_request_parts(&mut parts, state).await?;
        let app = App::from_ref(state);
        let catalogue = app.reader(&db)?.read(Catalogue::load).await?;
        let form = Multipart::from_request(Request::from_parts(parts, body), state).await;
        let form = form.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
        let master: Arc<Master> = FromRef::from_ref(state);
        let gate = Gate { request: asked, db: db.clone(), catalogue, limits: app.limits };
        let reading = Form::new(master.uploads(), db, Collection::default(), app.limits.upload_bytes);
        let reading = Form { gate: Some(gate), ..reading };
        let Form { values, files, text_bytes: bytes, .. } = reading.read(form).await?;
        Ok(Self { value: Value::Object(values), uploads: files, bytes })
    }
}

/// A JSON body. None at all is an empty one: what PocketBase's JavaScript client sends for a record without values.
async fn json_object(body: Bytes) -> Result<Body<Map<String, Value>>, ApiError> {
    if body.is_empty() { Ok(Body { value: Map::new(), bytes: 0 }) } else { Body::parse(body).await }
}

/// PocketBase's Python client sends a form's `@jsonPayload` as JSON where there is no file.
fn unpack(value: Value) -> Result<Value, ApiError> {
    let Some(payload) = value.get(JSON_PAYLOAD).and_then(Value::as_str) else { return Ok(value) };
    check_keys(payload.as_bytes())?;
    serde_json::from_str(payload).map_err(|error| ApiError::bad_request(format!("@jsonPayload is not JSON: {error}")))
}

/// Whether its body is a form with files.
pub fn is_form(request: &Request) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
    kind.is_some_and(|kind| kind.starts_with(b"multipart/form-data"))
}

/// Forms may be larger than other bodies: their files go to the disk.
fn with_upload_limit<S>(mut request: Request, state: &S) -> Request
where
    App: FromRef<S>,
{
    DefaultBodyLimit::max(App::from_ref(state).limits.upload()).apply(&mut request);
    request
}

/// Where the rule shuts out everybody but admins, nothing is stored for others.
fn check_may_write(collection: &Collection, method: &Method, admin: bool) -> Result<(), StoreError> {
    let rules = &collection.rules;
    let rule = if *method == Method::POST { &rules.create_rule } else { &rules.update_rule };
    if admin || rule.is_some() { Ok(()) } else { Err(closed(collection)) }
}

/// A form as it is read.
struct Form {
    uploads: Uploads,
    db: String,
    collection: Collection,
    values: Map<String, Value>,
    files: Vec<Upload>,
    text_bytes: usize,
    /// Largest file of a field without a bound of its own.
    most: u64,
    /// Of a batch: asked before a file is stored.
    gate: Option<Gate>,
}

impl Form {
    fn new(uploads: &Uploads, db: String, collection: Collection, most: u64) -> Self {
        let uploads = uploads.clone();
        Self { uploads, db, collection, values: Map::new(), files: Vec::new(), text_bytes: 0, most, gate: None }
    }

    /// All of it, or nothing that stays on the disk.
    async fn read(mut self, form: Multipart) -> Result<Self, ApiError> {
        match self.parts(form).await {
            Ok(()) => Ok(self),
            Err(error) => {
                RecordBody::discard(&self.files);
                Err(error)
            }
        }
    }

    async fn parts(&mut self, mut form: Multipart) -> Result<(), ApiError> {
        let mut count = 0;
        while let Some(part) = form.next_field().await.map_err(|error| broken(&error))? {
            count += 1;
            if count > MAX_PARTS {
                return Err(ApiError::bad_request(format!("a form has at most {MAX_PARTS} parts")));
            }
            let name = part.name().unwrap_or_default().to_owned();
            if part.file_name().is_some() {
                self.file(name, part).await?;
            } else {
                self.text(name, part).await?;
            }
        }
        Ok(())
    }

    async fn text(&mut self, name: String, mut part: Part<'_>) -> Result<(), ApiError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = part.chunk().await.map_err(|error| broken(&error))? {
            self.text_bytes += chunk.len();
            if self.text_bytes > MAX_TEXT_BYTES {
                let message = format!("the values of a form have over {MAX_TEXT_BYTES} bytes: send less at once");
                return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
            }
            bytes.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(bytes).map_err(|_| ApiError::bad_request(format!("part {name} is not UTF-8")))?;
        if name != JSON_PAYLOAD {
            self.put(name, text);
            return Ok(());
        }
        check_keys(text.as_bytes())?;
        let object: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|error| ApiError::bad_request(format!("part {JSON_PAYLOAD} is no JSON object: {error}")))?;
        self.values.extend(object);
        Ok(())
    }

    /// Adds a text under its key: a second one makes a list.
    fn put(&mut self, name: String, text: String) {
        let field = self.collection.visible().find(|field| field.name == name.trim_matches(['+', '-']));
        let value = field.map_or_else(|| Value::String(text.clone()), |field| typed(field, &text));
        match self.values.get_mut(&name) {
            None => drop(self.values.insert(name, value)),
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }

    async fn file(&mut self, field: String, mut part: Part<'_>) -> Result<(), ApiError> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate.check(&self.values, &field))?;
        let original = part.file_name().unwrap_or_default().to_owned();
        let limit = self.limit(&field);
        let (uploads, db, key, name) = (self.uploads.clone(), self.db.clone(), field.clone(), original.clone());
        let mut receiving = blocking(move || uploads.begin(&db, &key, &name)).await?;
        let mut buffer = Vec::new();
        loop {
            let chunk = part.chunk().await;
            let refusal = match &chunk {
                Err(error) => Some(broken(error)),
                Ok(Some(chunk)) if receiving.size() + (buffer.len() + chunk.len()) as u64 > limit => {
                    Some(too_large(&field, &original, limit))
                }
                Ok(_) => None,
            };
            if let Some(refusal) = refusal {
                blocking(move || receiving.discard()).await?;
                return Err(refusal);
            }
            let ended = matches!(chunk, Ok(None));
            buffer.extend_from_slice(&chunk.ok().flatten().unwrap_or_default());
            if ended || buffer.len() >= BUFFER {
                let bytes = std::mem::take(&mut buffer);
                receiving = blocking(move || receiving.write(&bytes).map(|()| receiving)).await?;
            }
            if ended {
                break;
            }
        }
        // Browsers send a part without name and content where nothing was chosen.
        if original.is_empty() && receiving.size() == 0 {
            return blocking(move || receiving.discard()).await;
        }
        self.files.push(blocking(move || receiving.finish()).await?);
        Ok(())
    }

    /// The largest file that a field takes.
    fn limit(&self, field: &str) -> u64 {
        let field = self.collection.visible().find(|known| known.name == field.trim_matches(['+', '-']));
        match field.map(|field| &field.kind) {
            Some(FieldKind::File { max_size, .. }) if *max_size > 0 => *max_size,
            _ => self.most,
        }
    }
}

/// Runs what waits for the disk where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::ShuttingDown)?;
    Ok(done?)
}

fn too_large(field: &str, original: &str, limit: u64) -> ApiError {
    let message = format!("{original} has more than the {limit} bytes that are allowed");
    StoreError::field(field.trim_matches(['+', '-']), "validation_file_size_limit", message).into()
}

/// A text of a form as a value of the field.
fn typed(field: &Field, text: &str) -> Value {
    let json = || serde_json::from_str(text).ok();
    let found = match field.kind {
        FieldKind::Number { .. } if text.trim().is_empty() => Some(0.into()),
        FieldKind::Number { .. } => json().filter(Value::is_number),
        FieldKind::Bool {} => match text {
            "" => Some(false.into()),
            "true" | "1" => Some(true.into()),
            "false" | "0" => Some(false.into()),
            _ => None,
        },
        _ => None,
    };
    found.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn broken(error: &MultipartError) -> ApiError {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request body is larger than this server takes: send less at once",
        ),
        _ => ApiError::bad_request(format!("the form cannot be read: {}", error.body_text())),
    }
}
