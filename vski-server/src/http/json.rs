use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

/// Room for the headers that an answer gets on its way out: a map that grows with them is built anew each time.
const HEADERS: usize = 20;

/// An answer that is JSON text already.
pub struct JsonText(pub Vec<u8>);

impl IntoResponse for JsonText {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.0));
        *response.headers_mut() = HeaderMap::with_capacity(HEADERS);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}
