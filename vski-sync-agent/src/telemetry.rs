//! Logs to stderr, as text or JSON; traces to an OTLP collector over http/protobuf.
//!
//! RUST_LOG filters both (default `info`). The collector's client is a blocking one made outside any runtime, because
//! the batch exporter sends from a plain thread of its own, where an asynchronous client finds no reactor.

/// What is told of a collector that cannot be reached.
mod told;

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use self::told::Told;
use crate::config::LogFormat;

/// How long one export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a stopping process waits for the last spans to be sent.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether spans of this process go anywhere.
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// Keeps the exporter alive; [`Telemetry::shutdown`] sends what is left.
#[must_use = "spans are lost when this is dropped early"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Sets up logging and, with an endpoint, tracing for the whole process. Call once, before any runtime starts.
///
/// `otlp_endpoint` is a base URL; `/v1/traces` is added unless it ends with that already.
pub fn init(service: &'static str, log_format: LogFormat, otlp_endpoint: Option<&str>) -> Telemetry {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let (provider, failure) = match otlp_endpoint.map(|endpoint| tracer_provider(service, endpoint)).transpose() {
        Ok(provider) => (provider, None),
        Err(error) => (None, Some(error)),
    };
    let (filter, bad_filter) = filter();
    let spans = provider.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(service)));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // A second call, as in tests that share a process, keeps the first one's subscriber.
    let _ = tracing_subscriber::registry().with(filter).with(lines).with(spans).try_init();
    if let Some(error) = bad_filter {
        tracing::warn!(error, "RUST_LOG cannot be read, using info");
    }
    if let Some(error) = failure {
        tracing::warn!(%error, "cannot send traces, going on without");
    }
    if let Some(provider) = &provider {
        opentelemetry::global::set_tracer_provider(provider.clone());
        EXPORTING.store(true, Ordering::Relaxed);
    }
    Telemetry { provider }
}

impl Telemetry {
    /// Sends the spans that are left, for at most `SHUTDOWN_TIMEOUT`.
    pub fn shutdown(mut self) {
        self.flush();
    }

    /// On a thread of its own: the exporter's client must neither block nor be dropped on an asynchronous worker.
    fn flush(&mut self) {
        let Some(provider) = self.provider.take() else { return };
        let (done, finished) = mpsc::channel();
        std::thread::spawn(move || {
            // A collector that is gone must not keep the process: what is lost are spans.
            let _ = provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT);
            let _ = done.send(());
        });
        let _ = finished.recv_timeout(SHUTDOWN_TIMEOUT);
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Whether this process exports spans: without, none are made for traces alone.
pub fn is_exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// Whether RUST_LOG says something; the error says what is wrong with it.
pub fn check_filter() -> Result<(), String> {
    filter().1.map_or(Ok(()), Err)
}

fn filter() -> (EnvFilter, Option<String>) {
    let builder = || EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let (filter, failure) = match builder().parse(std::env::var("RUST_LOG").unwrap_or_default()) {
        Ok(filter) => (filter, None),
        Err(error) => (builder().parse_lossy("info"), Some(error.to_string())),
    };
    // It logs an error for each refused certificate, which the caller is told as well, and again with each attempt.
    let repeated = "rustls_platform_verifier=off".parse().expect("a target and a level");
    // Likewise for each batch of spans that it could not send: `Told` says it once.
    let exporter = "opentelemetry-otlp=off".parse().expect("a target and a level");
    (filter.add_directive(repeated).add_directive(exporter), failure)
}

fn tracer_provider(service: &'static str, endpoint: &str) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
    let exporter = match std::thread::spawn(blocking_client).join() {
        Ok(Some(client)) => exporter.with_http_client(client),
        _ => return Err(ExporterBuildError::InternalFailure("no HTTP client".to_owned())),
    };
    let url = traces_url(endpoint);
    let exporter = Told::new(exporter.with_endpoint(&url).build()?, url);
    let resource = Resource::builder().with_service_name(service).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// An image without CA certificates cannot build the usual client; one without any still reaches an http collector.
fn blocking_client() -> Option<reqwest::blocking::Client> {
    let builder = || reqwest::blocking::Client::builder().timeout(EXPORT_TIMEOUT).no_proxy();
    builder().build().or_else(|_| builder().tls_certs_only([]).build()).ok()
}

fn traces_url(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    if endpoint.ends_with("/v1/traces") { endpoint.to_owned() } else { format!("{endpoint}/v1/traces") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traces_path_is_added_once() {
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(traces_url(endpoint), "http://c:4318/v1/traces");
        }
    }

    #[test]
    fn an_unreachable_collector_does_not_hold_up_the_end() {
        let telemetry = init("test", LogFormat::Text, Some("http://127.0.0.1:9"));
        tracing::info_span!("lost").in_scope(|| {});
        telemetry.shutdown();
    }
}
