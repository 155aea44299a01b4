//! The HTTP API. One function lists the routes of each role, one the layers in order.
#![expect(unused_qualifications, reason = "what utoipa makes of parameters names their types so")]

/// Liveness, readiness, metrics.
mod health;

/// Databases: list, create.
mod databases;

/// Collections: list, view, create, update.
mod collections;

/// Records of a collection.
mod records;

/// A record in a request, with files.
mod record_body;

/// Many changes at once.
mod batch;

/// Uploaded files, for those who may see their record.
mod files;

/// Which bytes of a file are asked for.
mod range;

/// Uploaded files, for replicas.
mod peer_files;

/// Uploaded files that a master has lost.
mod lost_files;

/// Manual migrations.
mod sql;

/// Admins: log in, make.
pub mod auth;

/// What replicas ask the node that they follow.
mod replica;

/// What replicas ask about a snapshot's content.
mod compare;

/// A replica takes over: no more writes here.
mod handover;

/// What a replica does on request: sync now, let the directory go.
mod sync;

/// Where a write stands, on its answer and on the next read.
mod position;

/// What a read of data has to pass first.
mod freshness;

/// What handlers take from a request.
mod extract;

/// A request as rules and filters see it.
mod asked;

/// Answers in JSON, as text.
mod json;

/// The states that handlers run in.
pub mod state;

/// Layers that cost little.
mod around;

/// What happens to every request on its way in and out.
mod layers;

/// Whose pages may read answers in a browser.
mod cors;

/// What caches may do with answers.
mod caching;

/// Answers in gzip or zstd.
mod compression;

/// Bodies that are not read to their end.
mod bodies;

/// Errors as callers see them.
mod error;

/// What PocketBase has and this server does not.
mod absent;

/// The description of all this for programs, and a page that shows it.
mod openapi;

use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::{Router, middleware};
use utoipa_axum::router::OpenApiRouter;
use vski_sync_agent::supervisor::AgentHandle;

use self::around::AroundLayer;
use self::error::ApiError;
use self::state::{MasterState, SourceState};
use crate::app::App;

/// Everything a master answers.
pub fn master_router(state: MasterState, source: SourceState) -> Router {
    let app = state.app.clone();
    let routes = OpenApiRouter::new()
        .merge(databases::write_router())
        .merge(collections::write_router())
        .merge(records::write_router())
        .merge(batch::write_router())
        .merge(files::write_router())
        .merge(auth::write_router())
        .merge(sql::write_router())
        .merge(handover::router())
        .merge(lost_files::router())
        .layer(compression::layer())
        .with_state(state);
    with_layers(routes.merge(source_routes(source)).merge(read_routes(&app)), app)
}

/// Everything a replica answers. There is no writer in its state, so no route of it can write.
pub fn replica_router(source: SourceState, agent: Option<AgentHandle>) -> Router {
    let app = source.app.clone();
    let routes = OpenApiRouter::new().merge(sync::router(app.clone(), agent)).merge(source_routes(source));
    with_layers(routes.merge(read_routes(&app)), app)
}

/// What replicas ask, of a master or of a replica in between.
fn source_routes(state: SourceState) -> OpenApiRouter {
    let app = state.app.clone();
    OpenApiRouter::new()
        .merge(replica::router())
        .merge(compare::router())
        .merge(peer_files::router())
        .route_layer(middleware::from_fn_with_state(app, layers::tell_path))
        .with_state(state)
}

/// What both roles answer from their own files.
fn read_routes(app: &App) -> OpenApiRouter {
    let rows = OpenApiRouter::new().merge(collections::read_router()).merge(records::read_router());
    let tagged = freshness::Tagged(app.clone());
    let rows = rows.route_layer((compression::layer(), AroundLayer(tagged)));
    // Files have tags of their own, and are sent as they are.
    let gate = middleware::from_fn_with_state(app.clone(), freshness::gate);
    let data = rows.merge(files::read_router().route_layer(gate));
    let others =
        OpenApiRouter::new().merge(health::router()).merge(databases::read_router()).merge(auth::read_router());
    others.layer(compression::layer()).merge(data).with_state(app.clone())
}

/// The layers from the outside in: the first one sees a request first and its response last. They are few, because each of them
/// costs some boxes and a copy of all within for each request: what can stand in one function does.
fn with_layers(routes: OpenApiRouter, app: App) -> Router {
    openapi::described(routes, app.identity.role).fallback(no_route).method_not_allowed_fallback(no_method).layer((
        AroundLayer(layers::Observe(app.clone())),
        cors::layer(&app.cors_origins),
        AroundLayer(layers::Admit(app.clone())),
        DefaultBodyLimit::max(app.limits.body()),
    ))
}

async fn no_route(uri: Uri) -> ApiError {
    let why = absent::reason(uri.path()).map_or_else(String::new, |reason| format!(": {reason}"));
    ApiError::not_found(format!("there is no route {}{why}", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}
