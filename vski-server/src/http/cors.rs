//! Which pages browsers let read our answers, and what of them (CORS_ORIGINS).

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header as http_header};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};
use vski_replication::names::header;

use crate::config::CorsOrigins;

/// How long a browser need not ask again whether it may ask.
const PREFLIGHT_SECONDS: u64 = 3600;

/// Answers preflights, and shows pages of these origins our headers. Pages that are listed may send cookies, too: the one
/// with a write's position is then carried along.
pub fn layer(origins: &CorsOrigins) -> CorsLayer {
    let ours = [header::REPLICA_MODE, header::REPLICA_ID, header::MASTER_URL, header::POSITION];
    let exposed = ours.map(HeaderName::from_static).into_iter().chain([
        http_header::ETAG,
        http_header::RETRY_AFTER,
        http_header::LOCATION,
        http_header::ACCEPT_RANGES,
        http_header::CONTENT_RANGE,
        http_header::CONTENT_DISPOSITION,
    ]);
    let layer = CorsLayer::new()
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(Duration::from_secs(PREFLIGHT_SECONDS))
        .expose_headers(exposed.collect::<Vec<_>>());
    match origins {
        CorsOrigins::Any => layer.allow_origin(AllowOrigin::any()),
        CorsOrigins::Listed(origins) => {
            let values = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            layer.allow_origin(AllowOrigin::list(values)).allow_credentials(true)
        }
    }
}
