//! The server's metrics, prefix `vski_`. docs/OPERATIONS.md lists every one; a test compares.

use std::sync::{Mutex, OnceLock, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use vski_sync_agent::metrics::AgentMetrics;

use crate::replication::verdict::ReplicaRow;

/// Seconds, from a commit on a fast disk to a bad day.
const SECONDS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Requests in a batch.
const REQUESTS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Bytes, by powers of four.
const BYTES: [f64; 10] =
    [0.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// Everything this process counts.
pub struct Metrics {
    /// Also holds the embedded agent's metrics.
    pub registry: Registry,
    /// HTTP requests by method, route and status.
    pub http_requests: IntCounterVec,
    /// Their duration by route.
    pub http_seconds: HistogramVec,
    /// Replication calls refused, by reason.
    pub replica_auth_failures: IntCounterVec,
    /// Snapshots made, by database.
    pub snapshots: IntCounterVec,
    /// Entries that each replica lacks, by replica and database.
    pub replica_behind: IntGaugeVec,
    /// 1 for what to make of each replica, by replica, database and verdict.
    pub replica_verdict: IntGaugeVec,
    /// Version of the log's head, by database.
    pub log_version: IntGaugeVec,
    /// Version of the oldest entry that the log keeps, by database.
    pub log_oldest: IntGaugeVec,
    /// Payload bytes of the entries that the log keeps, by database.
    pub log_bytes: IntGaugeVec,
    /// Bytes of the write-ahead log on disk, by database.
    pub wal_bytes: IntGaugeVec,
    /// Bytes that are free for this process where the databases lie.
    pub disk_free: IntGauge,
    /// Bytes that there are in all.
    pub disk_bytes: IntGauge,
    /// Lag of each database, on a replica, as of the last scrape.
    pub replica_lag: GaugeVec,
    /// How long reads waited for the position that they asked for.
    pub min_position_wait: Histogram,
    /// Reads whose position did not come in time.
    pub min_position_timeouts: IntCounter,
    /// The embedded agent's, on a replica that has one.
    agent: OnceLock<AgentMetrics>,
    /// One scrape at a time replaces the replicas' series.
    observing: Mutex<()>,
    queue: HistogramVec,
    batch: HistogramVec,
    commit: HistogramVec,
    capture: HistogramVec,
    changeset: HistogramVec,
}

/// What one database's writer observes.
#[derive(Clone)]
pub struct WriterMetrics {
    /// Requests left in the queue when a batch is taken.
    pub queue_requests: Histogram,
    /// Requests per transaction.
    pub batch_requests: Histogram,
    /// Duration of COMMIT, with its fsync.
    pub commit_seconds: Histogram,
    /// Duration of building a changeset.
    pub capture_seconds: Histogram,
    /// Size of a changeset.
    pub changeset_bytes: Histogram,
}

/// Makes metrics and registers them.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn single(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(name, help)?)
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        label: &str,
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &[label])?)
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

impl Metrics {
    /// Registers all metrics in a registry of their own.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker(&registry);
        make.gauge("vski_build_info", "1, with the version of this program.", &["version"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let (min_position_wait, min_position_timeouts) = min_position(&registry)?;
        Ok(Self {
            http_requests: make.counter(
                "vski_http_requests_total",
                "HTTP requests answered.",
                &["method", "route", "status"],
            )?,
            http_seconds: make.histogram(
                "vski_http_request_seconds",
                "Duration of HTTP requests, long polls included.",
                "route",
                &SECONDS,
            )?,
            replica_auth_failures: make.counter(
                "vski_replica_auth_failures_total",
                "Replication calls refused for their token.",
                &["reason"],
            )?,
            snapshots: make.counter("vski_snapshots_total", "Snapshots made for replicas.", &["db"])?,
            replica_behind: make.gauge(
                "vski_replica_entries_behind",
                "Entries that a replica lacks.",
                &["replica", "db"],
            )?,
            replica_verdict: make.gauge(
                "vski_replica_verdict",
                "1 for what to make of a replica.",
                &["replica", "db", "verdict"],
            )?,
            log_version: make.gauge("vski_log_version", "Version of the last entry of the log.", &["db"])?,
            log_oldest: make.gauge(
                "vski_log_oldest_version",
                "Version of the oldest entry that the log keeps.",
                &["db"],
            )?,
            log_bytes: make.gauge("vski_log_bytes", "Payload bytes of the entries that the log keeps.", &["db"])?,
            wal_bytes: make.gauge("vski_wal_bytes", "Size of the write-ahead log on disk.", &["db"])?,
            disk_free: make.single("vski_disk_free_bytes", "Free bytes on the file system of the databases.")?,
            disk_bytes: make.single("vski_disk_bytes", "Size of the file system of the databases.")?,
            replica_lag: make.seconds(
                "vski_replica_lag_seconds",
                "Time since this replica was last known to equal its master.",
                &["db"],
            )?,
            min_position_wait,
            min_position_timeouts,
            queue: make.histogram(
                "vski_writer_queue_requests",
                "Requests still waiting when a batch is taken.",
                "db",
                &REQUESTS,
            )?,
            batch: make.histogram("vski_writer_batch_requests", "Requests per transaction.", "db", &REQUESTS)?,
            commit: make.histogram("vski_commit_seconds", "Duration of COMMIT, fsync included.", "db", &SECONDS)?,
            capture: make.histogram(
                "vski_capture_seconds",
                "Duration of building a transaction's changeset.",
                "db",
                &SECONDS,
            )?,
            changeset: make.histogram("vski_changeset_bytes", "Size of a transaction's changeset.", "db", &BYTES)?,
            agent: OnceLock::new(),
            observing: Mutex::default(),
            registry,
        })
    }

    /// Adds the metrics of an agent in this process.
    pub fn with_agent(&self) -> Result<AgentMetrics, prometheus::Error> {
        let metrics = AgentMetrics::register(&self.registry)?;
        Ok(self.agent.get_or_init(|| metrics).clone())
    }

    /// The series of one database's writer.
    pub fn writer(&self, db: &str) -> WriterMetrics {
        WriterMetrics {
            queue_requests: self.queue.with_label_values(&[db]),
            batch_requests: self.batch.with_label_values(&[db]),
            commit_seconds: self.commit.with_label_values(&[db]),
            capture_seconds: self.capture.with_label_values(&[db]),
            changeset_bytes: self.changeset.with_label_values(&[db]),
        }
    }

    /// Tells of these replicas and of no others.
    pub fn observe_replicas(&self, rows: &[ReplicaRow]) {
        let _alone = self.observing.lock().unwrap_or_else(PoisonError::into_inner);
        self.replica_behind.reset();
        self.replica_verdict.reset();
        for row in rows {
            let (replica, db) = (row.replica.as_str(), row.db.as_str());
            if let Some(behind) = row.entries_behind {
                self.replica_behind.with_label_values(&[replica, db]).set(i64::try_from(behind).unwrap_or(i64::MAX));
            }
            self.replica_verdict.with_label_values(&[replica, db, row.verdict.name()]).set(1);
        }
    }

    /// All series in Prometheus' text format.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        if let Some(agent) = self.agent.get() {
            agent.refresh();
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

fn min_position(registry: &Registry) -> Result<(Histogram, IntCounter), prometheus::Error> {
    let wait =
        HistogramOpts::new("vski_min_position_wait_seconds", "How long reads waited for their minimum position.");
    let wait = Histogram::with_opts(wait.buckets(SECONDS.to_vec()))?;
    let timeouts =
        IntCounter::new("vski_min_position_timeouts_total", "Reads whose minimum position did not come in time.")?;
    registry.register(Box::new(wait.clone()))?;
    registry.register(Box::new(timeouts.clone()))?;
    Ok((wait, timeouts))
}
