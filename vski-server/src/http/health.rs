//! Is the process alive, is it fit for traffic, what does it count.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use vski_replication::node::DatabaseState;
use vski_replication::{changelog, clock};

use super::error::ApiError;
use crate::app::{App, Databases};
use crate::replication::verdict;

/// `GET /health`, `/api/health`, `/livez`, `/readyz`, `/metrics`. HEAD works too.
pub fn router() -> Router<App> {
    Router::new()
        .route("/health", get(health))
        .route("/api/health", get(health))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// 200 as long as the process answers.
async fn health(State(app): State<App>) -> Json<Value> {
    let identity = &app.identity;
    Json(json!({
        "status": "ok",
        "mode": identity.role.name(),
        "id": identity.id,
        "publicUrl": identity.public_url,
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

async fn livez() -> &'static str {
    "ok\n"
}

/// 200 once every offered database was copied whole; a master is ready as soon as it listens.
async fn readyz(State(app): State<App>) -> Result<Response, ApiError> {
    let (ready, dbs) = match &app.databases {
        Databases::Master(master) => {
            let names: Vec<_> = master.all().into_iter().map(|database| json!({ "name": database.name })).collect();
            (true, names)
        }
        Databases::Replica(replica) => {
            let states = replica.states()?;
            let ready = !states.is_empty() && states.iter().all(|state| state.bootstrapped);
            (ready, states.iter().map(state_json).collect())
        }
    };
    let (code, status) = if ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    let body = json!({ "status": status, "mode": app.identity.role.name(), "id": app.identity.id, "dbs": dbs });
    let mut response = (code, Json(body)).into_response();
    if !ready {
        response.headers_mut().insert(header::RETRY_AFTER, 1.into());
    }
    Ok(response)
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
    })
}

/// Prometheus' text format.
async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    for reader in app.readers()? {
        let name = reader.name().to_owned();
        let mut wal = reader.path().as_os_str().to_owned();
        wal.push("-wal");
        let bytes = std::fs::metadata(wal).map_or(0, |wal| wal.len());
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
    if let (Databases::Master(master), Some(replicas)) = (&app.databases, &app.replicas) {
        let rows = verdict::rows(master, replicas, clock::now_ms()).await?;
        app.metrics.observe_replicas(&rows);
    }
    let text = app.metrics.encode().map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics could not be encoded: {error}"))
    })?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
