//! The one border between errors and HTTP: status, envelope, and what the caller may know.
//!
//! Envelope: `{error, code, status, message, data}`; `status` equals `code` and `message` equals `error`, the keys of
//! the specification and of PocketBase. `data` has `{code, message}` per refused field.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::store::error::{FieldError, StoreError};
use crate::trace;

/// Seconds after which a refused caller may try again.
const RETRY_AFTER_SECONDS: u64 = 1;

/// An error as the caller sees it.
#[derive(Debug)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// One sentence: what was wrong and what to do.
    pub message: String,
    /// Details by field or by name.
    pub data: Map<String, Value>,
    /// Seconds after which the caller may try again, if that is known.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error with this status and text.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), data: Map::new(), retry_after: None }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401: no valid token.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    /// 403: a valid caller who may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// Tells when to try again.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.data.insert(key.to_owned(), value.into());
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, message, data, retry_after } = self;
        let code = status.as_u16();
        let body = json!({ "error": message, "code": code, "status": code, "message": message, "data": data });
        let mut response = (status, axum::Json(body)).into_response();
        let usual = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECONDS);
        if let Some(seconds) = retry_after.or(usual) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if let StoreError::Batch { at, error } = error {
            return batch(at, *error);
        }
        let status = match &error {
            StoreError::NotFound(_) => StatusCode::NOT_FOUND,
            StoreError::Forbidden(_) => StatusCode::FORBIDDEN,
            StoreError::Invalid(_) | StoreError::Fields(_) | StoreError::Line { .. } | StoreError::Batch { .. } => {
                StatusCode::BAD_REQUEST
            }
            StoreError::Unreplicable { .. } | StoreError::View { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            StoreError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            StoreError::Overloaded
            | StoreError::HandedOver
            | StoreError::ShuttingDown
            | StoreError::NotReady(_)
            | StoreError::Unusable { .. }
            | StoreError::ReadTimeout(_)
            | StoreError::ReadsBusy(_)
            | StoreError::Busy
            | StoreError::Changed => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::Damaged(_) => {
                tracing::error!(request = trace::asked(), error = error.describe(), "a request failed");
                StatusCode::SERVICE_UNAVAILABLE
            }
            StoreError::Catalogue(_) => {
                tracing::error!(request = trace::asked(), error = error.describe(), "a request failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
            StoreError::DiskFull | StoreError::NoRoom { .. } => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::Log(_) | StoreError::Directory(_) | StoreError::File(_) | StoreError::Sqlite(_) => {
                tracing::error!(request = trace::asked(), error = error.describe(), "a request failed");
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server could not do this; its log says why");
            }
        };
        let mut api = Self::new(status, error.to_string());
        match error {
            StoreError::Fields(fields) => {
                for field in &fields {
                    api = api.with(&field.field, refused(field));
                }
                api
            }
            StoreError::Line { line, message, fields } => {
                let refused: Map<_, _> = fields.iter().map(|field| (field.field.clone(), refused(field))).collect();
                api.with("line", line).with("reason", message).with("fields", refused)
            }
            _ => api,
        }
    }
}

fn refused(field: &FieldError) -> Value {
    json!({ "code": field.code, "message": field.message })
}

/// A batch that one request made fail: what that one would have been answered stands below `data.requests`, as in
/// PocketBase. What is no fault of the request is the whole batch's answer.
fn batch(at: usize, error: StoreError) -> ApiError {
    let refused = ApiError::from(error);
    if refused.status.is_server_error() {
        return refused;
    }
    let ApiError { status, message, data, .. } = refused;
    let response = json!({ "status": status.as_u16(), "message": message, "data": data });
    let failed = json!({ "code": "batch_request_failed", "message": "Batch request failed.", "response": response });
    let text = format!("request {at} of the batch was refused, and nothing of the batch was stored: {message}");
    ApiError::bad_request(text).with("requests", json!({ at.to_string(): failed }))
}
