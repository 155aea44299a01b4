//! Prometheus metrics, prefix `vski_sync_`. docs/OPERATIONS.md lists them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use vski_replication::clock;
use vski_replication::node::DatabaseState;

use crate::error::ErrorKind;
use crate::round::Verified;

/// Seconds that one transaction of applied entries takes.
const APPLY_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The agent's metrics; a clone shares them.
#[derive(Clone)]
pub struct AgentMetrics {
    lag: GaugeVec,
    behind: IntGaugeVec,
    version: IntGaugeVec,
    state: IntGaugeVec,
    last_contact: GaugeVec,
    applied_entries: IntCounterVec,
    applied_bytes: IntCounterVec,
    errors: IntCounterVec,
    apply_seconds: HistogramVec,
    bootstrap_bytes: IntCounterVec,
    bootstraps: IntCounterVec,
    converges: IntCounterVec,
    converge_bytes: IntCounterVec,
    lost_reports: IntCounterVec,
    files_waiting: IntGaugeVec,
    files_fetched: IntCounterVec,
    file_bytes: IntCounterVec,
    verified: IntGaugeVec,
    differing: IntGaugeVec,
    differing_files: IntGaugeVec,
    /// Without labels; empty until the skew is known.
    clock_skew: GaugeVec,
    /// How each database is doing: lag is computed from it at each scrape, so that it grows while nothing happens.
    states: Arc<Mutex<BTreeMap<String, DatabaseState>>>,
}

impl AgentMetrics {
    /// Makes the metrics and adds them to `registry`, once per registry.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let db = &["db"];
        let histogram = HistogramOpts::new("vski_sync_apply_seconds", "Time of one transaction of applied entries.");
        let metrics = Self {
            lag: GaugeVec::new(
                opts(
                    "lag_seconds",
                    "Upper bound of how old the local copy is: time since it last equalled the master.",
                ),
                db,
            )?,
            behind: IntGaugeVec::new(opts("entries_behind", "Entries behind the master at the last contact."), db)?,
            version: IntGaugeVec::new(opts("version", "Version of the local copy."), db)?,
            state: IntGaugeVec::new(opts("state", "1 for the state that the database is in."), &["db", "state"])?,
            last_contact: GaugeVec::new(
                opts("last_contact_timestamp_seconds", "When the master last answered, seconds since 1970."),
                db,
            )?,
            applied_entries: IntCounterVec::new(opts("applied_entries_total", "Entries applied."), db)?,
            applied_bytes: IntCounterVec::new(opts("applied_bytes_total", "Payload bytes of entries applied."), db)?,
            errors: IntCounterVec::new(
                opts("errors_total", "Failures to sync, by name and the state they led to."),
                &["db", "state", "error"],
            )?,
            apply_seconds: HistogramVec::new(histogram.buckets(APPLY_BUCKETS.to_vec()), db)?,
            bootstrap_bytes: IntCounterVec::new(opts("bootstrap_bytes_total", "Snapshot bytes fetched."), db)?,
            bootstraps: IntCounterVec::new(opts("bootstraps_total", "Snapshots installed."), db)?,
            converges: IntCounterVec::new(opts("converges_total", "Times the copy was made equal in place."), db)?,
            converge_bytes: IntCounterVec::new(opts("converge_bytes_total", "Bytes fetched to do so."), db)?,
            lost_reports: IntCounterVec::new(opts("lost_reports_total", "Files written to .vski/lost."), db)?,
            files_waiting: IntGaugeVec::new(
                opts("files_waiting", "Uploaded files that rows name and the disk lacks."),
                db,
            )?,
            files_fetched: IntCounterVec::new(opts("files_fetched_total", "Uploaded files fetched."), db)?,
            file_bytes: IntCounterVec::new(opts("file_bytes_total", "Bytes of uploaded files fetched."), db)?,
            verified: IntGaugeVec::new(opts("verified_version", "Version at which the copy was last compared."), db)?,
            differing: IntGaugeVec::new(opts("differing_ranges", "Ranges that differed then."), db)?,
            differing_files: IntGaugeVec::new(opts("differing_files", "Uploaded files that differed then."), db)?,
            clock_skew: GaugeVec::new(
                opts("clock_skew_seconds", "How far this node's clock is ahead of the master's."),
                &[],
            )?,
            states: Arc::default(),
        };
        metrics.collectors().into_iter().try_for_each(|collector| registry.register(collector))?;
        Ok(metrics)
    }

    /// Computes what changes with time. Call before encoding.
    pub fn refresh(&self) {
        let now_ms = clock::now_ms();
        for (db, state) in &*self.states.lock().unwrap_or_else(PoisonError::into_inner) {
            if let Some(lag) = state.lag_seconds(now_ms) {
                self.lag.with_label_values(&[db]).set(lag);
            }
        }
    }

    /// A database's state changed.
    pub(crate) fn observe(&self, now: &DatabaseState) {
        let db = now.name.as_str();
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let before = states.insert(db.to_owned(), now.clone());
        drop(states);
        if before.is_none() {
            // At 0 from the beginning, so that the first increase is one.
            let counters = [
                &self.applied_entries,
                &self.bootstraps,
                &self.converges,
                &self.converge_bytes,
                &self.lost_reports,
                &self.files_fetched,
                &self.file_bytes,
            ];
            counters.iter().for_each(|counter| drop(counter.with_label_values(&[db])));
        }
        if let Some(before) = before.filter(|before| before.state != now.state) {
            self.state.with_label_values(&[db, before.state.as_str()]).set(0);
        }
        self.state.with_label_values(&[db, now.state.as_str()]).set(1);
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        if let Some(position) = now.position {
            self.version.with_label_values(&[db]).set(signed(position.version));
        }
        if let Some(behind) = now.entries_behind() {
            self.behind.with_label_values(&[db]).set(signed(behind));
        }
        if let Some(contact) = now.last_contact_ms {
            self.last_contact.with_label_values(&[db]).set(contact as f64 / 1000.0);
        }
    }

    /// A database is not this node's business any more.
    pub(crate) fn forget(&self, db: &str) {
        let state = self.states.lock().unwrap_or_else(PoisonError::into_inner).remove(db);
        // A label that was never set cannot be removed, which is as good.
        let _ = self.lag.remove_label_values(&[db]);
        let _ = self.behind.remove_label_values(&[db]);
        let _ = self.version.remove_label_values(&[db]);
        let _ = self.last_contact.remove_label_values(&[db]);
        let _ = self.files_waiting.remove_label_values(&[db]);
        if let Some(state) = state {
            let _ = self.state.remove_label_values(&[db, state.state.as_str()]);
        }
    }

    pub(crate) fn applied(&self, db: &str, entries: u64, bytes: u64, took: Duration) {
        self.applied_entries.with_label_values(&[db]).inc_by(entries);
        self.applied_bytes.with_label_values(&[db]).inc_by(bytes);
        self.apply_seconds.with_label_values(&[db]).observe(took.as_secs_f64());
    }

    pub(crate) fn failed(&self, db: &str, kind: ErrorKind) {
        self.errors.with_label_values(&[db, kind.state(), kind.name()]).inc();
    }

    pub(crate) fn bootstrap_bytes(&self, db: &str, bytes: u64) {
        self.bootstrap_bytes.with_label_values(&[db]).inc_by(bytes);
    }

    pub(crate) fn bootstrapped(&self, db: &str) {
        self.bootstraps.with_label_values(&[db]).inc();
    }

    pub(crate) fn files_waiting(&self, db: &str, files: u64) {
        self.files_waiting.with_label_values(&[db]).set(i64::try_from(files).unwrap_or(i64::MAX));
    }

    pub(crate) fn file_bytes(&self, db: &str, bytes: u64) {
        self.file_bytes.with_label_values(&[db]).inc_by(bytes);
    }

    pub(crate) fn file_fetched(&self, db: &str) {
        self.files_fetched.with_label_values(&[db]).inc();
    }

    pub(crate) fn verified(&self, verified: &Verified) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let ranges: usize = verified.differences.iter().map(|difference| difference.differing).sum();
        self.verified.with_label_values(&[&verified.db]).set(signed(verified.version));
        self.differing.with_label_values(&[&verified.db]).set(signed(ranges as u64));
        self.differing_files.with_label_values(&[&verified.db]).set(signed(verified.files_differing));
    }

    pub(crate) fn converged(&self, db: &str, bytes: u64, lost: bool) {
        self.converges.with_label_values(&[db]).inc();
        self.converge_bytes.with_label_values(&[db]).inc_by(bytes);
        self.lost_reports.with_label_values(&[db]).inc_by(u64::from(lost));
    }

    pub(crate) fn clock_skew(&self, skew_ms: i64) {
        self.clock_skew.with_label_values::<&str>(&[]).set(skew_ms as f64 / 1000.0);
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.lag.clone()),
            Box::new(self.behind.clone()),
            Box::new(self.version.clone()),
            Box::new(self.state.clone()),
            Box::new(self.last_contact.clone()),
            Box::new(self.applied_entries.clone()),
            Box::new(self.applied_bytes.clone()),
            Box::new(self.errors.clone()),
            Box::new(self.apply_seconds.clone()),
            Box::new(self.bootstrap_bytes.clone()),
            Box::new(self.bootstraps.clone()),
            Box::new(self.converges.clone()),
            Box::new(self.converge_bytes.clone()),
            Box::new(self.lost_reports.clone()),
            Box::new(self.files_waiting.clone()),
            Box::new(self.files_fetched.clone()),
            Box::new(self.file_bytes.clone()),
            Box::new(self.verified.clone()),
            Box::new(self.differing.clone()),
            Box::new(self.differing_files.clone()),
            Box::new(self.clock_skew.clone()),
        ]
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("vski_sync_{name}"), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_in_one_state_and_its_lag_grows_without_contact() {
        let registry = Registry::new();
        let metrics = AgentMetrics::register(&registry).unwrap();
        let mut state = DatabaseState::new("default", "bootstrap");
        metrics.observe(&state);
        state.state = "follow".into();
        state.at_head_ms = Some(clock::now_ms() - 5_000);
        metrics.observe(&state);
        assert_eq!(metrics.state.with_label_values(&["default", "bootstrap"]).get(), 0);
        assert_eq!(metrics.state.with_label_values(&["default", "follow"]).get(), 1);
        metrics.refresh();
        assert!(metrics.lag.with_label_values(&["default"]).get() >= 5.0);
        metrics.forget("default");
        metrics.refresh();
        let left = registry.gather();
        assert!(!left.iter().any(|family| family.name() == "vski_sync_lag_seconds"), "{left:?}");
    }
}
