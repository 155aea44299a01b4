//! The span of one commit, and what of it the entry carries to those who apply it.
//!
//! A commit serves many requests and a span has one parent: that is the first request whose changes are in it and whose
//! trace is recorded. The others are linked.

use tracing::{Span, field};
use vski_replication::trace::Trace;
use vski_sync_agent::{telemetry, trace};

/// From the beginning of a transaction to its end.
pub struct CommitSpan {
    /// None where no spans are exported.
    span: Span,
    trace: Option<Trace>,
}

/// Of a transaction that nobody traces.
impl Default for CommitSpan {
    fn default() -> Self {
        Self { span: Span::none(), trace: None }
    }
}

impl CommitSpan {
    /// Begins with a transaction of this database.
    pub fn begin(db: &str) -> Self {
        if !telemetry::is_exporting() {
            return Self::default();
        }
        let (requests, version, status) = (field::Empty, field::Empty, field::Empty);
        let span = tracing::info_span!(parent: None, "commit", db, requests, version, otel.status_code = status);
        Self { span, trace: None }
    }

    /// Says whose changes are committed. Where no spans are exported the entry carries what the caller sent.
    pub fn caused_by(&mut self, requests: impl Iterator<Item = Option<Trace>> + Clone) {
        let mut traces = requests.clone().flatten();
        // Else one that is not recorded: so is then what comes of it.
        let parent = traces.clone().find(Trace::is_sampled).or_else(|| traces.next());
        if self.span.is_disabled() {
            self.trace = parent.filter(Trace::is_sampled);
            return;
        }
        if let Some(parent) = parent {
            trace::set_parent(&self.span, parent);
        }
        self.span.record("requests", requests.clone().count());
        let others = requests.flatten().filter(|other| other.is_sampled() && Some(*other) != parent);
        others.for_each(|other| trace::link(&self.span, other));
        self.trace = trace::of_span(&self.span).filter(Trace::is_sampled);
    }

    /// What the entry carries, if its trace is recorded.
    pub fn trace(&self) -> Option<Trace> {
        self.trace
    }

    /// Ends: the log then ends at `version`, or nothing was committed.
    pub fn end(self, version: Option<u64>) {
        match version {
            Some(version) => self.span.record("version", version),
            None => self.span.record("otel.status_code", "ERROR"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_exporter_an_entry_carries_the_first_recorded_trace_that_a_caller_sent() {
        let trace = |id, flags| Some(Trace { trace_id: [id; 16], span_id: [id; 8], flags });
        for (requests, expected) in [
            (vec![], None),
            (vec![None, None], None),
            (vec![None, trace(1, 1), trace(2, 1)], trace(1, 1)),
            (vec![trace(1, 0), trace(2, 1)], trace(2, 1)),
            (vec![trace(1, 0)], None),
        ] {
            let mut commit = CommitSpan::begin("a");
            commit.caused_by(requests.into_iter());
            assert_eq!(commit.trace(), expected);
        }
    }
}
