use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use e2e::Cluster;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// How long a span may take from the request to the receiver: the exporter sends every few seconds.
const LIMIT: Duration = Duration::from_secs(30);

async fn receive(State(spans): State<Sender<ExportTraceServiceRequest>>, body: Bytes) {
    // The test may be over already.
    let _ = spans.send(ExportTraceServiceRequest::decode(body).unwrap());
}

#[test]
fn spans_of_http_requests_reach_an_otlp_receiver() {
    let (sender, received) = channel();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/traces", post(receive)).with_state(sender);
    runtime.spawn(async move { axum::serve(listener, router).await });

    let cluster = Cluster::new().unwrap();
    let mut master = cluster.master("master").unwrap().env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    master.start().unwrap();
    master.client().unwrap().get("/health").unwrap();

    let deadline = Instant::now() + LIMIT;
    let (service, span) = loop {
        let batch = received.recv_timeout(deadline.saturating_duration_since(Instant::now())).expect("spans in time");
        let found = batch.resource_spans.iter().find_map(|resource| {
            let service =
                resource.resource.as_ref()?.attributes.iter().find(|a| a.key == "service.name")?.value.clone()?;
            let mut spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            Some((format!("{service:?}"), spans.find(|span| span.name == "GET /health").cloned()?))
        });
        if let Some(found) = found {
            break found;
        }
    };
    assert!(service.contains("vski-server"), "{service}");
    assert!(has_status(&span, 200), "{span:?}");
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
}

fn has_status(span: &Span, status: i64) -> bool {
    let wanted = format!("{status}");
    span.attributes.iter().any(|a| a.key == "http.response.status_code" && format!("{:?}", a.value).contains(&wanted))
}
