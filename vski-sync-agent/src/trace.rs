//! Between the spans of this process and the trace context that travels with entries.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use vski_replication::trace::Trace;

use crate::telemetry;

/// The span as others name it; `None` where nothing is exported or RUST_LOG leaves this span out. Its parent is fixed
/// from here on.
#[must_use]
pub fn of_span(span: &Span) -> Option<Trace> {
    if !telemetry::is_exporting() || span.is_disabled() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| Trace {
        trace_id: context.trace_id().to_bytes(),
        span_id: context.span_id().to_bytes(),
        flags: context.trace_flags().to_u8(),
    })
}

/// Makes `span` a child of `parent`, which may be another process's, unless it has begun.
pub fn set_parent(span: &Span, parent: Trace) {
    // A span that is not exported has no parent to set.
    let _ = span.set_parent(Context::new().with_remote_span_context(span_context(parent)));
}

/// Links `span` to another one that has to do with it and is not its parent.
pub fn link(span: &Span, other: Trace) {
    span.add_link(span_context(other));
}

fn span_context(trace: Trace) -> SpanContext {
    let (trace_id, span_id) = (TraceId::from_bytes(trace.trace_id), SpanId::from_bytes(trace.span_id));
    SpanContext::new(trace_id, span_id, TraceFlags::new(trace.flags), true, TraceState::NONE)
}
