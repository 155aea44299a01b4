//! What a replica does on request. `POST /api/replica/sync`: bring it to its master's head now, and say how it went;
//! `POST /api/replica/verify` compares too.
//! `POST /api/replica/release`, for operators: stop following and let the directory go; reads are served on.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use vski_replication::names::route;
use vski_sync_agent::admin;
use vski_sync_agent::supervisor::{AgentHandle, Outcome, SyncReport};

use super::error::ApiError;
use super::extract::{Caller, Params, Peer};
use crate::app::{AdminToken, App, Databases};

/// The routes of a replica; `agent` is the embedded one.
pub fn router(app: App, agent: Option<AgentHandle>) -> Router {
    let (verified, released) = (agent.clone(), agent.clone());
    let sync = move |State(app): State<App>, _peer: Peer| sync_now(app, agent.clone());
    let verify = move |State(app): State<App>, _peer: Peer, Params(params): Params<VerifyParams>| {
        verify_now(app, verified.clone(), params.repair)
    };
    let release = move |State(app): State<App>, caller: Caller| release(app, caller, released.clone());
    Router::new()
        .route(route::SYNC, post(sync))
        .route(route::VERIFY, post(verify))
        .route(route::RELEASE, post(release))
        .with_state(app)
}

/// 200 at the head, 502 where the master could not be followed, 409 where a database has stopped.
async fn sync_now(app: App, agent: Option<AgentHandle>) -> Result<Response, ApiError> {
    let Some(agent) = agent else { return Err(external_agent(&app, admin::SYNC)) };
    Ok(answer(agent.sync_now().await))
}

#[derive(Deserialize)]
struct VerifyParams {
    #[serde(default)]
    repair: bool,
}

/// The same, after every row was compared with the master's; 409 where some differ.
async fn verify_now(app: App, agent: Option<AgentHandle>, repair: bool) -> Result<Response, ApiError> {
    let Some(agent) = agent else { return Err(external_agent(&app, admin::VERIFY)) };
    Ok(answer(agent.verify_now(repair).await))
}

fn answer(report: SyncReport) -> Response {
    let status = match &report.outcome {
        Outcome::AtHead => StatusCode::OK,
        Outcome::Failed(_) => StatusCode::BAD_GATEWAY,
        Outcome::Stopped(_) => StatusCode::CONFLICT,
    };
    (status, Json(report)).into_response()
}

/// 204 once the lock is free. The transaction under way is finished first.
async fn release(app: App, caller: Caller, agent: Option<AgentHandle>) -> Result<StatusCode, ApiError> {
    let AdminToken::Operator = caller.require_admin()? else {
        return Err(ApiError::forbidden("only commands on this machine may do this: send an operator's token"));
    };
    let Some(agent) = agent else { return Err(external_agent(&app, admin::RELEASE)) };
    agent.release().await;
    Ok(StatusCode::NO_CONTENT)
}

fn external_agent(app: &App, path: &str) -> ApiError {
    let holder = match &app.databases {
        Databases::Replica(replica) => replica.dir().holder().ok().flatten(),
        Databases::Master(_) => None,
    };
    let place = holder.and_then(|holder| holder.admin).unwrap_or_else(|| "its AGENT_ADDR".to_owned());
    ApiError::new(StatusCode::CONFLICT, format!("this replica's agent is a process of its own: POST {path} to {place}"))
}
