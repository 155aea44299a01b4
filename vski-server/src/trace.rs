//! The trace that a request belongs to, from its headers to the writer.
//!
//! Where spans are exported it is the request's own span, a child of what the caller sent as `traceparent`; where none
//! are, it is what the caller sent, so that a write's trace reaches those replicas that export. Nothing is made for
//! requests without the header while nothing is exported.

use std::fmt;
use std::future::Future;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, Uri};
use opentelemetry::Context;
use opentelemetry::propagation::Extractor;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use vski_replication::trace::Trace;
use vski_sync_agent::{telemetry, trace};

/// The W3C header.
const TRACEPARENT: &str = "traceparent";

tokio::task_local! {
    /// Of the request that this task handles.
    static CURRENT: (Option<Trace>, Asked);
}

/// What a request asks for, for the lines of the log that it causes.
#[derive(Clone, Debug)]
pub struct Asked {
    method: Method,
    uri: Uri,
}

impl Asked {
    /// What this one asks for.
    pub fn of(request: &Request) -> Self {
        Self { method: request.method().clone(), uri: request.uri().clone() }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.uri.path())
    }
}

/// The trace of a request; its span, which has not begun, becomes a child of what the caller sent.
pub fn of_request(span: &Span, headers: &HeaderMap) -> Option<Trace> {
    let told = headers.get(TRACEPARENT);
    if telemetry::is_exporting() && !span.is_disabled() {
        if told.is_some() {
            let headers = Headers(headers);
            let parent = opentelemetry::global::get_text_map_propagator(|propagator| {
                propagator.extract_with_context(&Context::new(), &headers)
            });
            // It has not begun, and the exporter's layer is there.
            let _ = span.set_parent(parent);
        }
        return trace::of_span(span);
    }
    Trace::parse(told?.as_bytes())
}

/// Runs a request's handler so that [`current`] answers `trace` in it, and [`asked`] what it was asked for.
pub fn scope<F: Future>(trace: Option<Trace>, asked: Asked, handler: F) -> impl Future<Output = F::Output> {
    CURRENT.scope((trace, asked), handler)
}

/// The trace of the request that this task handles; `None` outside of one.
#[must_use]
pub fn current() -> Option<Trace> {
    CURRENT.try_with(|(trace, _)| *trace).ok().flatten()
}

/// What the request of this task asks for, for a line of the log; empty outside of one.
#[must_use]
pub fn asked() -> String {
    CURRENT.try_with(|(_, asked)| asked.to_string()).unwrap_or_default()
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[tokio::test]
    async fn what_the_caller_sent_is_there_while_its_request_is_handled() {
        let mut headers = HeaderMap::new();
        assert_eq!(of_request(&Span::none(), &headers), None);
        headers.insert(TRACEPARENT, TEXT.parse().unwrap());
        let told = of_request(&Span::none(), &headers);
        assert_eq!(told.map(|trace| trace.to_string()).as_deref(), Some(TEXT));
        assert_eq!(current(), None);
        let request = Request::builder().method("PUT").uri("/a/b?c=d").body(axum::body::Body::empty()).unwrap();
        let seen = scope(told, Asked::of(&request), async { (current(), asked()) }).await;
        assert_eq!(seen, (told, "PUT /a/b".to_owned()));
        assert_eq!(asked(), "");
        headers.insert(TRACEPARENT, "nonsense".parse().unwrap());
        assert_eq!(of_request(&Span::none(), &headers), None);
    }
}
