//! What happens to every request: it is counted and traced, its response names this node, and a replica refuses
//! writes before anything else looks at them.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::{Instrument, Span, field};
use vski_replication::names::header;
use vski_replication::node::Role;
use vski_replication::{clock, digest};
use vski_sync_agent::telemetry;

use super::around::{Around, Within};
use super::error::ApiError;
use super::json::{in_memory, is_json};
use super::{bodies, caching};
use crate::app::{App, Databases};
use crate::trace::{self, Asked};

/// Longest text of a refusal that is passed on, bytes.
const MAX_REFUSAL_BYTES: usize = 4096;

/// The specification's answer to a write on a replica, to the letter.
const READ_ONLY: &str = r#"{"error": "replica is read-only", "code": 403}"#;

/// Counts a request and gives it a span, which goes to the OTLP collector if there is one. Every response says which node it
/// came from, errors and preflights included.
#[derive(Clone)]
pub struct Observe(pub App);

impl Around for Observe {
    fn around<S: Within>(
        &self,
        request: Request,
        within: &mut S,
    ) -> impl Future<Output = Response> + Send + 'static + use<S> {
        let (app, started) = (self.0.clone(), Instant::now());
        let method = known_method(request.method());
        let matched = request.extensions().get::<MatchedPath>().cloned();
        let span = span(&request, route(matched.as_ref()));
        let trace = trace::of_request(&span, request.headers());
        let asked = Asked::of(&request);
        let handled = trace::scope(trace, asked, within.handle(request)).instrument(span.clone());
        async move {
            let mut response = handled.await;
            let (route, status) = (route(matched.as_ref()), response.status());
            span.record("http.response.status_code", status.as_u16());
            app.metrics.http_requests.with_label_values(&[method, route, status.as_str()]).inc();
            app.metrics.http_seconds.with_label_values(&[route]).observe(started.elapsed().as_secs_f64());
            response.headers_mut().extend(app.identity.headers.iter().cloned());
            response
        }
    }
}

/// As metrics call it: there are only so many routes.
fn route(matched: Option<&MatchedPath>) -> &str {
    matched.map_or("unmatched", MatchedPath::as_str)
}

/// A span for traces; none where nobody would see it, since it costs a request more than reading a record does.
fn span(request: &Request, route: &str) -> Span {
    if !telemetry::is_exporting() {
        return Span::none();
    }
    let method = request.method();
    tracing::info_span!(
        "http request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = %method,
        http.route = route,
        url.path = request.uri().path(),
        http.response.status_code = field::Empty,
    )
}

/// As metrics call it: a caller may send any word.
fn known_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| known == method).unwrap_or("other")
}

/// A request from the door to its handler, and its response back, in the order in which it happens.
#[derive(Clone)]
pub struct Admit(pub App);

impl Around for Admit {
    fn around<S: Within>(
        &self,
        request: Request,
        within: &mut S,
    ) -> impl Future<Output = Response> + Send + 'static + use<S> {
        let method = request.method().clone();
        let sealed = method == Method::GET && request.uri().path().starts_with("/api/replica/");
        let (request, loan) = bodies::lend(request);
        let handled = match refusal(&self.0, &request) {
            Some(refusal) => Err(refusal),
            None => Ok((time_limit(&self.0, &request), within.handle(request))),
        };
        async move {
            // Once there is an answer the request is gone: what is left of its body is back with its lender.
            let mut response = match handled {
                Err(refusal) => refusal,
                Ok((limit, handled)) => envelope(in_time(limit, handled).await).await,
            };
            if sealed {
                response = seal(response).await;
            }
            if let Some(loan) = loan {
                loan.settle(&mut response).await;
            }
            caching::keep_private(&method, &mut response);
            response
        }
    }
}

/// On a replica a write is refused before authentication, body and path are looked at (the specification's text).
fn refusal(app: &App, request: &Request) -> Option<Response> {
    if app.identity.role == Role::Replica && is_refused(request.method(), request.uri().path()) {
        let json = [(CONTENT_TYPE, "application/json")];
        return Some((StatusCode::FORBIDDEN, json, READ_ONLY).into_response());
    }
    bodies::check(app, request).err().map(IntoResponse::into_response)
}

/// How long a request may take. What replicas ask waits on purpose, and a manual migration takes what it takes.
fn time_limit(app: &App, request: &Request) -> Option<Duration> {
    let path = request.uri().path();
    let endless = path.starts_with("/api/replica/") || path == "/api/sql";
    (!endless).then_some(app.limits.request_time)
}

/// Ends a request that takes too long.
async fn in_time(limit: Option<Duration>, handled: impl Future<Output = Response>) -> Response {
    let Some(limit) = limit else { return handled.await };
    match tokio::time::timeout(limit, handled).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("the request took longer than {limit:?}: a write may have been stored all the same");
            ApiError::new(StatusCode::REQUEST_TIMEOUT, message).into_response()
        }
    }
}

/// Refusals that are not ours (a path that is no text, a range that cannot be served) get our envelope too.
async fn envelope(response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_json(response.headers()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, MAX_REFUSAL_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let reason = status.canonical_reason().unwrap_or("refused").to_owned();
    let refusal = ApiError::new(status, if text.is_empty() { reason } else { text }).into_response();
    [CONTENT_TYPE, CONTENT_LENGTH].iter().for_each(|name| _ = parts.headers.remove(name));
    let (ours, body) = refusal.into_parts();
    parts.headers.extend(ours.headers);
    Response::from_parts(parts, body)
}

/// Tells the caller what this node's clock showed when it was asked and when it answered, so that both can be compared.
pub async fn tell_time(request: Request, next: Next) -> Response {
    let asked_ms = clock::now_ms();
    let mut response = next.run(request).await;
    let value = format!("{asked_ms},{}", clock::now_ms());
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert(header::TIME, value);
    }
    response
}

/// Says what the bytes of a JSON answer to a replica hash to: of all that a master tells, these have no hash of their own.
async fn seal(response: Response) -> Response {
    if !is_json(response.headers()) {
        return response;
    }
    let (mut parts, body) = match in_memory(response).await {
        Ok(answer) => answer,
        Err(failure) => return failure,
    };
    let digest = HeaderValue::from_str(&digest::of(&body)).expect("hex digits are header text");
    parts.headers.insert(header::DIGEST, digest);
    Response::from_parts(parts, body.into())
}

/// A replica tells which nodes are between the caller and the master, itself first: a loop shows by it.
pub async fn tell_path(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Databases::Replica(replica) = &app.databases {
        let upstream = replica.account().map(|account| account.upstream).unwrap_or_default();
        let own = &app.identity.id;
        let path = if upstream.is_empty() { own.clone() } else { format!("{own},{upstream}") };
        if let Ok(value) = HeaderValue::from_str(&path) {
            response.headers_mut().insert(header::PATH, value);
        }
    }
    response
}

/// Whether a replica refuses this request.
pub fn is_refused(method: &Method, path: &str) -> bool {
    is_write(method) && !is_allowed(path)
}

fn is_write(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::CONNECT)
}

/// Logins and what is about replication itself.
fn is_allowed(path: &str) -> bool {
    let workflows = path.strip_prefix("/api/workflows").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    path.ends_with("/auth-with-password")
        || path.ends_with("/auth-refresh")
        || path.starts_with("/api/replica/")
        || workflows
}

#[cfg(test)]
mod tests {
    use axum::Json;

    use super::*;

    #[tokio::test]
    async fn a_json_answer_to_a_replica_carries_the_digest_of_its_bytes() {
        let json = (StatusCode::CONFLICT, Json(["a", "b"])).into_response();
        for (answer, expected) in [(json, Some(digest::of(br#"["a","b"]"#))), ("bytes".into_response(), None)] {
            let sealed = seal(answer).await;
            let told = sealed.headers().get(header::DIGEST).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(told, expected);
            let body = axum::body::to_bytes(sealed.into_body(), 100).await.unwrap();
            assert!(expected.is_none_or(|expected| digest::matches(expected.as_bytes(), &body)));
        }
    }

    #[test]
    fn only_logins_replication_and_workflows_pass_a_replica() {
        for path in [
            "/api/admins/auth-with-password",
            "/api/collections/users/auth-refresh",
            "/api/replica/sync",
            "/api/workflows",
            "/api/workflows/1",
        ] {
            assert!(is_allowed(path), "{path}");
        }
        for path in ["/", "/api/collections/posts/records", "/api/replicas", "/api/workflowsx", "/auth-with-password/x"]
        {
            assert!(!is_allowed(path), "{path}");
        }
    }
}
