use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// An exporter that tells once when sending begins to fail, and once when it works again: the SDK would tell of every
/// batch, and not what to do.
#[derive(Debug)]
pub(super) struct Told<E> {
    exporter: E,
    endpoint: String,
    failing: AtomicBool,
}

impl<E> Told<E> {
    pub(super) fn new(exporter: E, endpoint: String) -> Self {
        Self { exporter, endpoint, failing: AtomicBool::new(false) }
    }

    /// Whether this is news.
    fn is_new(&self, failing: bool) -> bool {
        self.failing.swap(failing, Ordering::Relaxed) != failing
    }
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        let endpoint = &self.endpoint;
        match &sent {
            Err(error) if self.is_new(true) => tracing::warn!(
                endpoint,
                %error,
                remedy = "start the collector, or set OTEL_EXPORTER_OTLP_ENDPOINT to where it listens, or unset it",
                "traces do not reach the collector; they are lost, nothing else is"
            ),
            Ok(()) if self.is_new(false) => tracing::info!(endpoint, "traces reach the collector again"),
            _ => {}
        }
        // An error would only be logged by the caller.
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_failure_and_the_first_success_after_it_are_news() {
        let told = Told::new((), "http://collector:4318".to_owned());
        let news = [false, true, true, false, false, true].map(|failing| told.is_new(failing));
        assert_eq!(news, [false, true, false, true, false, true]);
    }
}
