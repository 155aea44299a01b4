//! Is the process alive, is it fit for traffic, what does it count.

use std::path::Path;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use vski_replication::node::{DatabaseState, MISSING_ON_MASTER};
use vski_replication::{changelog, clock, connection};

use super::error::ApiError;
use super::extract::Params;
use super::openapi::at;
use super::openapi::shapes::{Health, Readiness};
use crate::app::{App, Databases};
use crate::config::duration;
use crate::replication::verdict;

/// `GET /health`, `/api/health`, `/livez`, `/readyz`, `/metrics`. HEAD works too.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(at("/api/health", routes!(health)))
        .routes(routes!(livez))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
}

/// 200 as long as the process answers. The last three are what PocketBase's clients read.
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = Health)))]
async fn health(State(app): State<App>) -> Json<Value> {
    let identity = &app.identity;
    Json(json!({
        "status": "ok",
        "mode": identity.role.name(),
        "id": identity.id,
        "publicUrl": identity.public_url,
        "version": env!("CARGO_PKG_VERSION"),
        "code": 200,
        "message": "API is healthy.",
        "data": {},
    }))
}

/// 200 as long as the process answers.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "health",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
async fn livez() -> &'static str {
    "ok\n"
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ReadyParams {
    max_lag: Option<String>,
}

/// 200 once every offered database was copied whole and, if `?max_lag=` says so, is not further behind than that.
/// A master is ready as soon as it listens.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    params(ReadyParams),
    responses((status = 200, body = Readiness), (status = 503, body = Readiness))
)]
async fn readyz(State(app): State<App>, Params(params): Params<ReadyParams>) -> Result<Response, ApiError> {
    let max_lag = params.max_lag.as_deref().map(duration::parse).transpose();
    let max_lag = max_lag.map_err(|error| ApiError::bad_request(format!("max_lag: {error}")))?;
    let mut body = json!({ "mode": app.identity.role.name(), "id": app.identity.id });
    let status = match &app.databases {
        Databases::Master(master) => {
            // Its rows are served and written all the same.
            let open = master.all().into_iter().map(|database| match database.writer.problems() {
                None => json!({ "name": database.name }),
                Some(problems) => {
                    json!({ "name": database.name, "error": format!("it cannot be replicated: {problems}") })
                }
            });
            let unusable = master.unusable().iter().map(|(name, error)| json!({ "name": name, "error": error }));
            body["dbs"] = open.chain(unusable).collect();
            "ready"
        }
        Databases::Replica(replica) => {
            let account = replica.account()?;
            body["dbs"] = account.databases.iter().map(state_json).collect();
            body["clockSkewSeconds"] = json!(account.clock_skew_ms.map(|ms| ms as f64 / 1000.0));
            readiness(&account.databases, max_lag)
        }
    };
    body["status"] = status.into();
    let ready = status == "ready";
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = (code, Json(body)).into_response();
    if !ready {
        response.headers_mut().insert(header::RETRY_AFTER, 1.into());
    }
    Ok(response)
}

fn readiness(states: &[DatabaseState], max_lag: Option<Duration>) -> &'static str {
    let now_ms = clock::now_ms();
    // A database that the master no longer has cannot become fresher.
    let fresh = |state: &DatabaseState| {
        state.state == MISSING_ON_MASTER
            || max_lag.is_none_or(|max| state.lag_seconds(now_ms).is_some_and(|lag| lag <= max.as_secs_f64()))
    };
    if states.is_empty() || states.iter().any(DatabaseState::is_awaited) {
        "not ready"
    } else if !states.iter().all(fresh) {
        "lagging"
    } else {
        "ready"
    }
}

fn state_json(state: &DatabaseState) -> Value {
    json!({
        "name": state.name,
        "state": state.state,
        "detail": state.detail,
        "bootstrapped": state.bootstrapped,
        "position": state.position,
        "lagSeconds": state.lag_seconds(clock::now_ms()),
        "entriesBehind": state.entries_behind(),
        "filesWaiting": state.files_waiting,
        "lastError": state.last_error,
    })
}

/// Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    observe_lag(&app)?;
    let readers = app.readers()?;
    if let Some(reader) = readers.first() {
        observe_disk(&app, reader.path());
    }
    for reader in readers {
        let name = reader.name().to_owned();
        let bytes = connection::wal_bytes(reader.path());
        app.metrics.wal_bytes.with_label_values(&[&name]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let counting = reader.clone();
        let log = reader.read(move |conn| {
            let (base, head) = (changelog::base(conn)?.position.version, changelog::head(conn)?.position.version);
            // A log without entries will begin with the one after its base.
            Ok([head, base + 1, counting.log_bytes(conn)?])
        });
        let metrics = [&app.metrics.log_version, &app.metrics.log_oldest, &app.metrics.log_bytes];
        for (metric, value) in metrics.into_iter().zip(log.await?) {
            metric.with_label_values(&[&name]).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
    let rows = verdict::rows(|db| app.reader(db), &app.replicas, clock::now_ms()).await?;
    app.metrics.observe_replicas(&rows);
    let text = app.metrics.encode().map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics could not be encoded: {error}"))
    })?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// All databases lie on one file system. One that cannot be asked keeps what it said last.
fn observe_disk(app: &App, database: &Path) {
    if let Ok(disk) = rustix::fs::statvfs(database) {
        let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(disk.f_frsize)).unwrap_or(i64::MAX);
        app.metrics.disk_free.set(bytes(disk.f_bavail));
        app.metrics.disk_bytes.set(bytes(disk.f_blocks));
    }
}

/// Computed here, from what the agent wrote down: it grows while the agent is frozen or dead.
fn observe_lag(app: &App) -> Result<(), ApiError> {
    let Databases::Replica(replica) = &app.databases else { return Ok(()) };
    app.metrics.replica_lag.reset();
    for state in replica.states()?.iter() {
        if let Some(lag) = state.lag_seconds(clock::now_ms()) {
            app.metrics.replica_lag.with_label_values(&[&state.name]).set(lag);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(bootstrapped: bool, behind_ms: Option<i64>) -> DatabaseState {
        let at_head_ms = behind_ms.map(|ms| clock::now_ms() - ms);
        DatabaseState { bootstrapped, at_head_ms, ..DatabaseState::new("a", "follow") }
    }

    #[test]
    fn a_replica_is_ready_with_every_copy_and_fresh_with_every_lag_known_and_small() {
        let max = Some(Duration::from_secs(5));
        assert_eq!(readiness(&[], None), "not ready");
        assert_eq!(readiness(&[state(true, None), state(false, Some(0))], max), "not ready");
        assert_eq!(readiness(&[state(true, None)], None), "ready");
        assert_eq!(readiness(&[state(true, None)], max), "lagging");
        assert_eq!(readiness(&[state(true, Some(1_000)), state(true, Some(9_000))], max), "lagging");
        assert_eq!(readiness(&[state(true, Some(1_000)), state(true, Some(0))], max), "ready");
    }
}
