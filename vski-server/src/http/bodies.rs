//! Bodies that are not read to their end: too large by their own account, or refused half-way.
//!
//! HTTP/1 sends the next request after the body of the last one. So what is left of a body is read, if it is little and
//! comes soon; else the connection ends, and its client is told so.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, Version, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use vski_replication::names::route;

use super::error::ApiError;
use super::record_body::is_form;
use crate::app::App;

/// What is left of a body is read up to here, bytes.
const MAX_REST_BYTES: usize = 1 << 20;

/// How long the rest of a body may take to come.
const REST_WAIT: Duration = Duration::from_secs(1);

/// Refuses a body that says of itself that it is larger than any that this node takes.
pub fn check(app: &App, request: &Request) -> Result<(), ApiError> {
    if *request.method() == Method::PUT && request.uri().path().starts_with(route::FILES) {
        // The row that names the file bounds it.
        return Ok(());
    }
    let Some(length) = content_length(request) else { return Ok(()) };
    let (limit, setting) = if is_form(request) {
        (app.limits.upload(), "MAX_UPLOAD_BYTES")
    } else {
        (app.limits.body(), "MAX_BODY_BYTES")
    };
    if length <= limit as u64 {
        return Ok(());
    }
    let message = format!("the request body is larger than this server takes ({setting}): send less at once");
    Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message))
}

/// Lends a request's body to its handler; [`Loan::settle`] looks after what the handler leaves of it. `None` where the next
/// request does not wait behind this one's body.
pub fn lend(request: Request) -> (Request, Option<Loan>) {
    if request.version() > Version::HTTP_11 || request.body().is_end_stream() {
        return (request, None);
    }
    let left = Arc::new(Mutex::new(None));
    let waits = request.headers().contains_key(header::EXPECT);
    let loan = Loan { waits, length: content_length(&request), left: Arc::clone(&left) };
    let lent = |body: Body| Lent { body: Some(body.into_data_stream()), bytes: 0, left };
    (request.map(|body| Body::from_stream(lent(body))), Some(loan))
}

/// A body that a handler has.
pub struct Loan {
    /// Who asks before sending its body has sent none of it until it is read.
    waits: bool,
    /// How long it is by its own account.
    length: Option<u64>,
    left: Arc<Mutex<Option<Rest>>>,
}

impl Loan {
    /// Reads what a handler left of the body, or ends the connection after the answer.
    pub async fn settle(self, response: &mut Response) {
        let rest = self.left.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Rest { body, bytes }) = rest else { return };
        let is_long = self.length.is_some_and(|length| length.saturating_sub(bytes as u64) > MAX_REST_BYTES as u64);
        if is_long || (self.waits && bytes == 0) || !drained(body).await {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

fn content_length(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the rest of a body came in time and was little.
async fn drained(mut rest: BodyDataStream) -> bool {
    let read = async {
        let mut bytes = 0;
        while let Some(chunk) = rest.next().await {
            let Ok(chunk) = chunk else { return false };
            bytes += chunk.len();
            if bytes > MAX_REST_BYTES {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(REST_WAIT, read).await.unwrap_or(false)
}

/// What a handler did not read of a body.
struct Rest {
    body: BodyDataStream,
    /// Bytes that it did read.
    bytes: usize,
}

/// A body that goes back to its lender if it is dropped before its end.
struct Lent {
    /// `None` once it has ended.
    body: Option<BodyDataStream>,
    bytes: usize,
    left: Arc<Mutex<Option<Rest>>>,
}

impl Stream for Lent {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_next(context);
        match &polled {
            Poll::Ready(Some(Ok(chunk))) => self.bytes += chunk.len(),
            Poll::Ready(None) => self.body = None,
            _ => {}
        }
        polled
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let bytes = self.bytes;
        let rest = self.body.take().map(|body| Rest { body, bytes });
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = rest;
    }
}
