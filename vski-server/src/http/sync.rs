//! `POST /api/replica/sync`: bring this replica to its master's head now, and say how it went. `…/verify` compares too.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use vski_replication::names::route;
use vski_sync_agent::supervisor::{AgentHandle, Outcome, SyncReport};

use super::error::ApiError;
use super::extract::{Params, Peer};
use crate::app::{App, Databases};

/// The route of a replica; `agent` is the embedded one.
pub fn router(app: App, agent: Option<AgentHandle>) -> Router {
    let second = agent.clone();
    let sync = move |State(app): State<App>, _peer: Peer| sync_now(app, agent.clone());
    let verify = move |State(app): State<App>, _peer: Peer, Params(params): Params<VerifyParams>| {
        verify_now(app, second.clone(), params.repair)
    };
    Router::new().route(route::SYNC, post(sync)).route(route::VERIFY, post(verify)).with_state(app)
}

/// 200 at the head, 502 where the master could not be followed, 409 where a database has stopped.
async fn sync_now(app: App, agent: Option<AgentHandle>) -> Result<Response, ApiError> {
    let Some(agent) = agent else { return Err(external_agent(&app)) };
    Ok(answer(agent.sync_now().await))
}

#[derive(Deserialize)]
struct VerifyParams {
    #[serde(default)]
    repair: bool,
}

/// The same, after every row was compared with the master's; 409 where some differ.
async fn verify_now(app: App, agent: Option<AgentHandle>, repair: bool) -> Result<Response, ApiError> {
    let Some(agent) = agent else { return Err(external_agent(&app)) };
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

fn external_agent(app: &App) -> ApiError {
    let holder = match &app.databases {
        Databases::Replica(replica) => replica.dir().holder().ok().flatten(),
        Databases::Master(_) => None,
    };
    let place = holder.and_then(|holder| holder.admin).unwrap_or_else(|| "its AGENT_ADDR".to_owned());
    ApiError::new(StatusCode::CONFLICT, format!("this replica's agent is a process of its own: POST /sync to {place}"))
}
