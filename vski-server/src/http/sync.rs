//! What a replica does on request. `POST /api/replica/sync`: bring it to its master's head now, and say how it went;
//! `POST /api/replica/verify` compares too.
//! `POST /api/replica/release`, for operators: stop following and let the directory go; reads are served on.

use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use vski_replication::names::route;
use vski_sync_agent::admin;
use vski_sync_agent::supervisor::{AgentHandle, Outcome, SyncReport};

use super::error::ApiError;
use super::extract::{Caller, Params, Peer};
use super::openapi::shapes::SyncReport as Report;
use crate::app::{AdminToken, App, Databases};

/// A replica, and the agent that its server runs itself.
#[derive(Clone)]
struct SyncState {
    app: App,
    agent: Option<AgentHandle>,
}

impl FromRef<SyncState> for App {
    fn from_ref(state: &SyncState) -> Self {
        state.app.clone()
    }
}

/// The routes of a replica; `agent` is the embedded one.
pub fn router(app: App, agent: Option<AgentHandle>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(sync_now))
        .routes(routes!(verify_now))
        .routes(routes!(release))
        .with_state(SyncState { app, agent })
}

/// Brings the copies to the master's heads now.
///
/// 200 at the head, 502 where the master could not be followed, 409 where a database has stopped.
#[utoipa::path(
    post,
    path = route::SYNC,
    tag = "operators",
    responses(
        (status = 200, body = Report),
        (status = 409, body = Object, description = "a database has stopped, or the agent is a process of its own"),
        (status = 502, body = Report, description = "the master could not be followed")
    )
)]
async fn sync_now(State(SyncState { app, agent }): State<SyncState>, _peer: Peer) -> Result<Response, ApiError> {
    let Some(agent) = agent else { return Err(external_agent(&app, admin::SYNC)) };
    Ok(answer(agent.sync_now().await))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct VerifyParams {
    #[serde(default)]
    repair: bool,
}

/// Brings the copies to the master's heads and compares them with the master's.
///
/// The same, after every row was compared with the master's; 409 where some differ.
#[utoipa::path(
    post,
    path = route::VERIFY,
    tag = "operators",
    params(VerifyParams),
    responses(
        (status = 200, body = Report),
        (status = 409, body = Object, description = "a database has stopped, or the agent is a process of its own"),
        (status = 502, body = Report, description = "the master could not be followed")
    )
)]
async fn verify_now(
    State(SyncState { app, agent }): State<SyncState>,
    _peer: Peer,
    Params(params): Params<VerifyParams>,
) -> Result<Response, ApiError> {
    let Some(agent) = agent else { return Err(external_agent(&app, admin::VERIFY)) };
    Ok(answer(agent.verify_now(params.repair).await))
}

fn answer(report: SyncReport) -> Response {
    let status = match &report.outcome {
        Outcome::AtHead => StatusCode::OK,
        Outcome::Failed(_) => StatusCode::BAD_GATEWAY,
        Outcome::Stopped(_) => StatusCode::CONFLICT,
    };
    (status, Json(report)).into_response()
}

/// Stops following and lets the directory go.
///
/// 204 once the lock is free. The transaction under way is finished first.
#[utoipa::path(post, path = route::RELEASE, tag = "operators", responses((status = 204)))]
async fn release(State(SyncState { app, agent }): State<SyncState>, caller: Caller) -> Result<StatusCode, ApiError> {
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
