//! `GET /api/openapi.json`: what this node answers, as OpenAPI 3.1, for programs. `GET /api/docs`: the same for people; the
//! page is one file and asks no other host for anything.
//!
//! Handlers carry what is their own (`#[utoipa::path]`), and a router that mounts them describes them; `complete` adds
//! what is true of many. A replica's document has its routes only.

/// Answers and bodies that have no type of their own.
pub mod shapes;

/// What is true of many routes: who may ask, what may be refused, headers.
mod complete;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use bytes::Bytes;
use utoipa::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;
use vski_replication::node::Role;

/// The page, with a place for the nonce that lets its own style and script run.
const PAGE: &str = include_str!("page.html");

const NONCE: &str = "{{nonce}}";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "VSKI",
        description = "A backend in a box over SQLite that scales reads with replicas. docs/API.md tells the rest."
    ),
    components(schemas(shapes::Error)),
    tags(
        (name = "records", description = "Records of a collection. The collection's rules say who may."),
        (name = "batch", description = "Many changes of records in one transaction."),
        (name = "files", description = "Uploaded files."),
        (name = "auth", description = "Records of auth collections: logging in."),
        (name = "collections", description = "Collections. Admins only."),
        (name = "databases", description = "Databases. Admins only."),
        (name = "admins", description = "Admins, at two paths."),
        (name = "keys", description = "API keys for machines. Admins only."),
        (name = "migrations", description = "Manual migrations. Admins only."),
        (name = "health", description = "Is this node alive, fit for traffic, and what does it count."),
        (name = "replication", description = "What replicas ask of the node that they follow."),
        (name = "operators", description = "What commands ask of a running node."),
        (name = "documentation", description = "This document."),
    )
)]
struct Base;

/// The document, once every route is known.
type Document = Arc<OnceLock<Bytes>>;

/// Adds the routes of this module, and the document of all.
pub fn described(routes: OpenApiRouter, role: Role) -> Router {
    let document = Document::default();
    let own = OpenApiRouter::with_openapi(Base::openapi()).routes(routes!(json)).routes(routes!(page));
    let (router, api) = own.with_state(Arc::clone(&document)).merge(routes).split_for_parts();
    document.get_or_init(|| complete::complete(api, role).to_string().into());
    router
}

/// The same handlers at another path than the one beside them.
pub fn at<S>(path: &str, (schemas, mut paths, methods): UtoipaMethodRouter<S>) -> UtoipaMethodRouter<S> {
    paths.paths = std::mem::take(&mut paths.paths).into_values().map(|item| (path.to_owned(), item)).collect();
    (schemas, paths, methods)
}

/// Describes handlers that `router` has at another path.
pub fn document<S: Clone + Send + Sync + 'static>(
    mut router: OpenApiRouter<S>,
    described: UtoipaMethodRouter<S>,
) -> OpenApiRouter<S> {
    let (schemas, paths, _) = described;
    let api = router.get_openapi_mut();
    api.paths.merge(paths);
    api.components.get_or_insert_default().schemas.extend(schemas);
    router
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "documentation", responses((status = 200, body = Object)))]
async fn json(State(document): State<Document>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], document.get().cloned().unwrap_or_default())
}

/// A page that shows this document.
#[utoipa::path(
    get,
    path = "/api/docs",
    tag = "documentation",
    responses((status = 200, body = String, content_type = "text/html"))
)]
async fn page() -> impl IntoResponse {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; connect-src 'self'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_SECURITY_POLICY, policy),
    ];
    (headers, PAGE.replace(NONCE, &nonce))
}

#[cfg(test)]
mod tests;
