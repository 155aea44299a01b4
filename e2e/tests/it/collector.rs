//! A receiver of spans, as OTLP over http/protobuf sends them.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use e2e::eventually;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::runtime::Runtime;

/// How long spans may take from their end to here, on a busy machine.
const ARRIVED: Duration = Duration::from_secs(60);

/// A span, and who sent it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) service: String,
    /// The node, as [`OTEL_RESOURCE_ATTRIBUTES`](e2e::Node::env) names it.
    pub(crate) node: String,
    pub(crate) span: Span,
}

impl Received {
    /// An attribute of the span, as text.
    pub(crate) fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.span.attributes, key)
    }

    /// Whether `parent` is its parent in the same trace.
    pub(crate) fn is_child_of(&self, parent: &Self) -> bool {
        self.span.trace_id == parent.span.trace_id && self.span.parent_span_id == parent.span.span_id
    }
}

type Spans = Arc<Mutex<Vec<Received>>>;

/// Listens as long as it lives.
pub(crate) struct Collector {
    spans: Spans,
    endpoint: String,
    _runtime: Runtime,
}

impl Collector {
    /// Listens on an address of this machine, on any port.
    pub(crate) fn start(address: IpAddr) -> Result<Self> {
        let (runtime, spans) = (Runtime::new()?, Spans::default());
        let listener = runtime.block_on(tokio::net::TcpListener::bind((address, 0)))?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let router = Router::new().route("/v1/traces", post(receive)).with_state(Arc::clone(&spans));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { spans, endpoint, _runtime: runtime })
    }

    /// What OTEL_EXPORTER_OTLP_ENDPOINT is to be.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Everything so far.
    pub(crate) fn spans(&self) -> Vec<Received> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a span.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Received) -> bool) -> Result<Received> {
        let found = eventually(what, ARRIVED, || Ok(self.spans().into_iter().find(|span| wanted(span))));
        found.with_context(|| {
            let line = |Received { node, span, .. }: Received| format!("{node}: {} {:?}", span.name, span.attributes);
            self.spans().into_iter().map(line).collect::<Vec<_>>().join("\n")
        })
    }
}

async fn receive(State(spans): State<Spans>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
    for resource in request.resource_spans {
        let about = resource.resource.unwrap_or_default().attributes;
        let named = |key| attribute(&about, key).unwrap_or_default();
        let (service, node) = (named("service.name"), named("service.instance.id"));
        let sent = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(sent.map(|span| Received { service: service.clone(), node: node.clone(), span }));
    }
    StatusCode::OK
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}
