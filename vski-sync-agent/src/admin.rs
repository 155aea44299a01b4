//! The listener of the separate process, on AGENT_ADDR.
//!
//! `GET /livez` always 200; `GET /readyz` 200 once every offered database was bootstrapped, else 503, with the states
//! as JSON; `GET /metrics` in Prometheus' text format; `POST /sync` (a replica's, operator's or admin's token) syncs
//! now: 200 at the master's head, 502 failed, 409 stopped; `POST /verify` (`?repair=true`) compares too, 409 where rows
//! differ. `POST /release` (an operator's token) stops syncing and lets the directory go, while the process stays: 204.
//! HEAD works wherever GET does.
//!
//! On a directory that was promoted the probes are 200 and nothing can be requested.

use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Deserialize;
use serde_json::json;
use vski_replication::token::{self, Audience, Bearer, Claims, Secrets, TokenError};

use crate::metrics::AgentMetrics;
use crate::supervisor::{AgentHandle, Outcome};

/// Where the separate process takes a request to sync.
pub const SYNC: &str = "/sync";

/// Where the separate process is asked to let the directory go.
pub const RELEASE: &str = "/release";

/// Where it takes a request to compare.
pub const VERIFY: &str = "/verify";

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) agent: AgentHandle,
    pub(crate) registry: Registry,
    pub(crate) metrics: AgentMetrics,
    pub(crate) secrets: Secrets,
}

/// All routes.
pub(crate) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route(SYNC, post(sync))
        .route(VERIFY, post(verify))
        .route(RELEASE, post(release))
        .with_state(admin)
}

/// The routes of a process that has nothing to do.
pub(crate) fn idle_router(registry: Registry) -> Router {
    let ready = || async { Json(json!({ "ready": true, "dbs": [], "promoted": true })) };
    let promoted = || async { refuse(StatusCode::CONFLICT, "this directory was promoted to master: nothing to sync") };
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(ready))
        .route("/metrics", get(move || async move { text(&registry) }))
        .route(SYNC, post(promoted))
}

async fn livez() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let ready = admin.agent.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "dbs": admin.agent.states() }))).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    admin.metrics.refresh();
    text(&admin.registry)
}

fn text(registry: &Registry) -> Response {
    let (encoder, mut text) = (TextEncoder::new(), Vec::new());
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => ([(CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn sync(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if let Err(refusal) = authorise(&admin.secrets, &headers, may_sync) {
        return refusal;
    }
    let report = admin.agent.sync_now().await;
    (status_of(&report.outcome), Json(report)).into_response()
}

#[derive(Deserialize)]
struct VerifyParams {
    #[serde(default)]
    repair: bool,
}

async fn verify(State(admin): State<Admin>, Query(params): Query<VerifyParams>, headers: HeaderMap) -> Response {
    if let Err(refusal) = authorise(&admin.secrets, &headers, may_sync) {
        return refusal;
    }
    let report = admin.agent.verify_now(params.repair).await;
    (status_of(&report.outcome), Json(report)).into_response()
}

async fn release(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if let Err(refusal) = authorise(&admin.secrets, &headers, may_release) {
        return refusal;
    }
    admin.agent.release().await;
    StatusCode::NO_CONTENT.into_response()
}

/// The status that tells how a requested sync ended.
pub(crate) fn status_of(outcome: &Outcome) -> StatusCode {
    match outcome {
        Outcome::AtHead => StatusCode::OK,
        Outcome::Failed(_) => StatusCode::BAD_GATEWAY,
        Outcome::Stopped(_) => StatusCode::CONFLICT,
    }
}

#[expect(clippy::result_large_err, reason = "the refusal is the response, made once and sent at once")]
fn authorise(secrets: &Secrets, headers: &HeaderMap, may: fn(&Claims) -> bool) -> Result<(), Response> {
    let unauthorised = |error: TokenError| refuse(StatusCode::UNAUTHORIZED, &error.to_string());
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let header = header.ok_or_else(|| unauthorised(TokenError::Missing))?;
    let claims = secrets.verify(token::from_authorization(header)).map_err(unauthorised)?;
    if may(&claims) { Ok(()) } else { Err(refuse(StatusCode::FORBIDDEN, "this token does not allow it")) }
}

/// Replicas, operators and admins.
fn may_sync(claims: &Claims) -> bool {
    matches!((claims.aud, claims.bearer), (Audience::Replica | Audience::Operator, _) | (Audience::User, Bearer::Admin))
}

/// Only commands of somebody who knows the secret.
fn may_release(claims: &Claims) -> bool {
    claims.aud == Audience::Operator
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message, "code": status.as_u16() }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(claims: Option<Claims>, may: fn(&Claims) -> bool) -> Option<StatusCode> {
        let secrets = Secrets::new("shared", None);
        let mut headers = HeaderMap::new();
        if let Some(claims) = claims {
            headers.insert(AUTHORIZATION, format!("Bearer {}", secrets.mint(&claims)).parse().unwrap());
        }
        authorise(&secrets, &headers, may).err().map(|response| response.status())
    }

    #[test]
    fn only_replicas_operators_and_admins_may_sync_and_only_operators_end_it() {
        let user = |bearer| Claims::new("u", bearer, Audience::User, 60);
        for (claims, sync, release) in [
            (None, Some(StatusCode::UNAUTHORIZED), Some(StatusCode::UNAUTHORIZED)),
            (
                Some(Claims { exp: 1, ..Claims::operator() }),
                Some(StatusCode::UNAUTHORIZED),
                Some(StatusCode::UNAUTHORIZED),
            ),
            (Some(user(Bearer::Record)), Some(StatusCode::FORBIDDEN), Some(StatusCode::FORBIDDEN)),
            (Some(user(Bearer::Admin)), None, Some(StatusCode::FORBIDDEN)),
            (Some(Claims::replica("r001", 60)), None, Some(StatusCode::FORBIDDEN)),
            (Some(Claims::operator()), None, None),
        ] {
            assert_eq!((status(claims.clone(), may_sync), status(claims, may_release)), (sync, release));
        }
    }
}
