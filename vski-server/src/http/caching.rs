//! What caches may do with answers. Nobody may give one user's answer to another, and nothing is used again unasked; but
//! asking again costs little: answers with data carry an `ETag`, and `If-None-Match` with it gets 304 without a body.
//!
//! The tag is a hash of the body: it follows all that shapes an answer (`fields`, `expand`, rules, who asks), and is the
//! same on every node. It is a weak one, because the same answer also travels compressed.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::json::{in_memory, is_json};

/// For one user, who has to ask again each time.
const REVALIDATE: &str = "private, no-cache";

/// Answers to what is no read: among them tokens.
const NEVER: &str = "no-store";

/// What else than the address an answer depends on; rules may look at any header, so that nobody may go without asking.
const VARIES: &str = "authorization, x-api-key, x-dbname";

/// Hex digits of a tag: 128 bits.
const TAG_DIGITS: usize = 32;

/// Gives an answer to `method` that says nothing of caches a word on them.
pub fn keep_private(method: &Method, response: &mut Response) {
    let headers = response.headers_mut();
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(if is_read(method) { REVALIDATE } else { NEVER }));
        headers.append(VARY, HeaderValue::from_static(VARIES));
    }
}

/// The tags that a caller has an answer of, if its request may be answered by one.
pub fn known(request: &Request) -> Option<Vec<HeaderValue>> {
    is_read(request.method()).then(|| request.headers().get_all(IF_NONE_MATCH).iter().cloned().collect())
}

/// Tags what a read answers in JSON, or answers that the caller has it.
pub async fn tag(known: &[HeaderValue], response: Response) -> Response {
    if response.status() != StatusCode::OK || !is_json(response.headers()) {
        return response;
    }
    let (mut parts, body) = match in_memory(response).await {
        Ok(answer) => answer,
        Err(failure) => return failure,
    };
    let tag = ["W/\"", &blake3::hash(&body).to_hex()[..TAG_DIGITS], "\""].concat();
    let opaque = &tag["W/".len()..];
    let is_known = known.iter().any(|value| names(value, opaque));
    parts.headers.insert(ETAG, HeaderValue::try_from(tag).expect("hex digits and quotes are header text"));
    if !is_known {
        return Response::from_parts(parts, body.into());
    }
    parts.status = StatusCode::NOT_MODIFIED;
    [CONTENT_TYPE, CONTENT_LENGTH].iter().for_each(|name| _ = parts.headers.remove(name));
    Response::from_parts(parts, Body::empty())
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether an If-None-Match has the tag, weak or strong (RFC 9110, 13.1.2). Our tags have no comma in them.
fn names(value: &HeaderValue, opaque: &str) -> bool {
    let Ok(value) = value.to_str() else { return false };
    value.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == opaque)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_every_form_that_clients_and_proxies_send_it_in() {
        let has = |value: &'static str| names(&HeaderValue::from_static(value), "\"ab\"");
        for value in ["\"ab\"", "W/\"ab\"", "\"x\", W/\"ab\"", "W/\"ab\",\"x\"", "*"] {
            assert!(has(value), "{value}");
        }
        for value in ["", "ab", "\"a\"", "W/\"abc\"", "w/\"ab\"", "\"AB\""] {
            assert!(!has(value), "{value}");
        }
    }
}
