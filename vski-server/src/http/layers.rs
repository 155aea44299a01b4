//! What happens to every request: it is counted and traced, its response names this node, and a replica refuses
//! writes before anything else looks at them.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::{Instrument, field};
use vski_replication::names::header;
use vski_replication::node::Role;
use vski_replication::{clock, digest};

use super::error::ApiError;
use crate::app::{App, Databases};
use crate::trace;

/// Longest text of a refusal that is passed on, bytes.
const MAX_REFUSAL_BYTES: usize = 4096;

/// The specification's answer to a write on a replica, to the letter.
const READ_ONLY: &str = r#"{"error": "replica is read-only", "code": 403}"#;

/// Counts a request and gives it a span, which goes to the OTLP collector if there is one.
pub async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = matched.unwrap_or_else(|| "unmatched".to_owned());
    let span = tracing::info_span!(
        "http request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = %method,
        http.route = route,
        url.path = request.uri().path(),
        http.response.status_code = field::Empty,
    );
    let trace = trace::of_request(&span, request.headers());
    let response = trace::scope(trace, next.run(request)).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    let known = matches!(method.as_str(), "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS");
    let method = if known { method.as_str() } else { "other" };
    app.metrics.http_requests.with_label_values(&[method, &route, status.as_str()]).inc();
    app.metrics.http_seconds.with_label_values(&[&route]).observe(started.elapsed().as_secs_f64());
    response
}

/// Ends a request that takes too long. What replicas ask waits on purpose, and a manual migration takes what it takes.
pub async fn in_time(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api/replica/") || path == "/api/sql" {
        return next.run(request).await;
    }
    let limit = app.limits.request_time;
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("the request took longer than {limit:?}: a write may have been stored all the same");
            ApiError::new(StatusCode::REQUEST_TIMEOUT, message).into_response()
        }
    }
}

/// Refusals that are not ours (a path that is no text, a range that cannot be served) get our envelope too.
pub async fn envelope(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_json(&response) {
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

fn is_json(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

/// Every response says which node it came from, errors and preflights included.
pub async fn identify(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let identity = &app.identity;
    let mut set = |name: &'static str, value: &str| {
        // An address from the operator may hold what no header can; then it is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    };
    set(header::REPLICA_MODE, identity.role.name());
    set(header::REPLICA_ID, &identity.id);
    if let Some(master) = &identity.master_url {
        set(header::MASTER_URL, master);
    }
    response
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
pub async fn seal(request: Request, next: Next) -> Response {
    let sealed = request.method() == Method::GET && request.uri().path().starts_with("/api/replica/");
    let response = next.run(request).await;
    if !sealed || !is_json(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // It is in memory already: JSON is never streamed here.
    let body = match axum::body::to_bytes(body, usize::MAX).await {
        Ok(body) => body,
        Err(error) => return ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
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

/// On a replica a write is refused before authentication, body and path are looked at (the specification's text).
pub async fn read_only(State(app): State<App>, request: Request, next: Next) -> Response {
    if app.identity.role == Role::Replica && is_refused(request.method(), request.uri().path()) {
        let json = [(CONTENT_TYPE, "application/json")];
        return (StatusCode::FORBIDDEN, json, READ_ONLY).into_response();
    }
    next.run(request).await
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
    use axum::body::Body;
    use axum::routing::get;
    use axum::{Json, Router, middleware};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_json_answer_to_a_replica_carries_the_digest_of_its_bytes() {
        let list = || async { (StatusCode::CONFLICT, Json(["a", "b"])) };
        let router = Router::new()
            .route("/api/replica/status", get(list))
            .route("/api/collections", get(list))
            .route("/api/replica/snapshot/1", get(|| async { "bytes" }))
            .layer(middleware::from_fn(seal));
        for (path, expected) in [
            ("/api/replica/status", Some(digest::of(br#"["a","b"]"#))),
            ("/api/collections", None),
            ("/api/replica/snapshot/1", None),
        ] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let told = response.headers().get(header::DIGEST).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(told, expected, "{path}");
            let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
            assert!(expected.is_none_or(|expected| digest::matches(expected.as_bytes(), &body)), "{path}");
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
