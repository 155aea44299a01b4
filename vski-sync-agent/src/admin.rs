//! The listener of the separate process, on AGENT_ADDR.
//!
//! `GET /livez` always 200; `GET /readyz` 200 once every offered database was bootstrapped, else 503, with the states
//! as JSON; `GET /metrics` in Prometheus' text format; `POST /sync` (a replica's, operator's or admin's token) syncs
//! now: 200 at the master's head, 502 failed, 409 stopped; `POST /verify` (`?repair=true`) compares too, 409 where rows
//! differ. HEAD works wherever GET does.

use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Deserialize;
use serde_json::json;
use vski_replication::token::{self, Audience, Bearer, Secrets, TokenError};

use crate::metrics::AgentMetrics;
use crate::supervisor::{AgentHandle, Outcome};

/// Where the separate process takes a request to sync.
pub(crate) const SYNC: &str = "/sync";

/// Where it takes a request to compare.
pub(crate) const VERIFY: &str = "/verify";

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
        .with_state(admin)
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
    let (encoder, mut text) = (TextEncoder::new(), Vec::new());
    match encoder.encode(&admin.registry.gather(), &mut text) {
        Ok(()) => ([(CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn sync(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if let Err(refusal) = authorise(&admin.secrets, &headers) {
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
    if let Err(refusal) = authorise(&admin.secrets, &headers) {
        return refusal;
    }
    let report = admin.agent.verify_now(params.repair).await;
    (status_of(&report.outcome), Json(report)).into_response()
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
fn authorise(secrets: &Secrets, headers: &HeaderMap) -> Result<(), Response> {
    let unauthorised = |error: TokenError| refuse(StatusCode::UNAUTHORIZED, &error.to_string());
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let header = header.ok_or_else(|| unauthorised(TokenError::Missing))?;
    let claims = secrets.verify(token::from_authorization(header)).map_err(unauthorised)?;
    match (claims.aud, claims.bearer) {
        (Audience::Replica | Audience::Operator, _) | (Audience::User, Bearer::Admin) => Ok(()),
        _ => Err(refuse(StatusCode::FORBIDDEN, "only replicas, operators and admins may request a sync")),
    }
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message, "code": status.as_u16() }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vski_replication::token::Claims;

    fn status(claims: Option<Claims>) -> Option<StatusCode> {
        let secrets = Secrets::new("shared", None);
        let mut headers = HeaderMap::new();
        if let Some(claims) = claims {
            headers.insert(AUTHORIZATION, format!("Bearer {}", secrets.mint(&claims)).parse().unwrap());
        }
        authorise(&secrets, &headers).err().map(|response| response.status())
    }

    #[test]
    fn only_replicas_operators_and_admins_may_sync() {
        assert_eq!(status(None), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(status(Some(Claims { exp: 1, ..Claims::operator() })), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(status(Some(Claims::new("r", Bearer::Record, Audience::User, 60))), Some(StatusCode::FORBIDDEN));
        assert_eq!(status(Some(Claims::new("a", Bearer::Admin, Audience::User, 60))), None);
        assert_eq!(status(Some(Claims::operator())), None);
        assert_eq!(status(Some(Claims::replica("r001", 60))), None);
    }
}
