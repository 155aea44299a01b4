//! What one transaction applies, as spans: each a child of the commit that made its entry on the master.

use tracing::{Span, field};
use vski_replication::entry::Entry;
use vski_replication::trace::Trace;

use crate::{telemetry, trace};

/// The spans of entries that are applied but not yet committed. They end with it.
pub(super) struct ApplySpans {
    /// The request that brought the entries.
    pulled: Option<Trace>,
    /// The last entry that one was begun for.
    begun: u64,
    open: Vec<Span>,
}

impl ApplySpans {
    /// No span yet: there will be one for each entry with a trace, if this process exports any.
    pub(super) fn new(pulled: Option<Trace>) -> Self {
        Self { pulled, begun: 0, open: Vec::new() }
    }

    /// Begins the span of an entry, unless it was begun by another attempt at it.
    pub(super) fn begin(&mut self, db: &str, entry: &Entry) {
        if entry.version <= self.begun {
            return;
        }
        self.begun = entry.version;
        let Some(parent) = entry.trace.filter(|_| telemetry::is_exporting()) else { return };
        let version = entry.version;
        let span = tracing::info_span!(parent: None, "apply", db, version, otel.status_code = field::Empty);
        trace::set_parent(&span, parent);
        if let Some(pulled) = self.pulled {
            trace::link(&span, pulled);
        }
        self.open.push(span);
    }

    /// Ends them: their entries are there to stay.
    pub(super) fn committed(mut self) {
        self.open.clear();
    }
}

/// Rolled back.
impl Drop for ApplySpans {
    fn drop(&mut self) {
        self.open.iter().for_each(|span| _ = span.record("otel.status_code", "ERROR"));
    }
}
