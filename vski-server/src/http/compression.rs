//! Answers in gzip or zstd, to whom asks for it. What replicas fetch has forms of its own, and files go as they are.

use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, HeaderMap, StatusCode, Version};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{And, Predicate, SizeAbove};

/// Shorter answers fit into a packet or two as they are.
const MIN_BYTES: u16 = 1024;

/// What of an answer says whether it is a text that is worth it.
type IsText = fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool;

/// Compresses texts that are long enough; fast rather than small, since it happens between the reader and the socket.
pub fn layer() -> CompressionLayer<And<SizeAbove, IsText>> {
    let when = SizeAbove::new(MIN_BYTES).and(is_text as IsText);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(when)
}

fn is_text(status: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    status.is_success() && (kind.starts_with("application/json") || kind.starts_with("text/"))
}
