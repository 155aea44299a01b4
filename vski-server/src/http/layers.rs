//! What happens to every request: it is counted and traced, its response names this node, and a replica refuses
//! writes before anything else looks at them.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowHeaders, AllowMethods, Any, CorsLayer};
use tracing::{Instrument, field};
use vski_replication::clock;
use vski_replication::names::header;
use vski_replication::node::Role;

use super::error::ApiError;
use crate::app::{App, Databases};

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
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    let known = matches!(method.as_str(), "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS");
    let method = if known { method.as_str() } else { "other" };
    app.metrics.http_requests.with_label_values(&[method, &route, status.as_str()]).inc();
    app.metrics.http_seconds.with_label_values(&[&route]).observe(started.elapsed().as_secs_f64());
    response
}

/// Refusals that are not ours (a path that is no text, a range that cannot be served) get our envelope too.
pub async fn envelope(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_json =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !(status.is_client_error() || status.is_server_error()) || is_json {
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

/// Lets browsers of any origin in and shows them our headers.
pub fn cors() -> CorsLayer {
    let exposed = [header::REPLICA_MODE, header::REPLICA_ID, header::MASTER_URL, header::POSITION];
    let exposed = exposed.map(HeaderName::from_static);
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
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
    if app.identity.role == Role::Replica && is_write(request.method()) && !is_allowed(request.uri().path()) {
        let json = [(CONTENT_TYPE, "application/json")];
        return (StatusCode::FORBIDDEN, json, READ_ONLY).into_response();
    }
    next.run(request).await
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
    use super::*;

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
