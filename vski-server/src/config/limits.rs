//! How much one request may ask for.

use std::time::Duration;

use clap::Args;
use vski_sync_agent::config::{age, bytes};

/// Largest value of MAX_BODY_BYTES: a request waits in memory for its turn.
pub const MOST_BODY_BYTES: u64 = 64 << 20;

/// Limits on requests.
#[derive(Args, Clone, Copy, Debug)]
pub struct Limits {
    /// Largest request body, without files: 32MiB; at most 64MiB
    #[arg(long = "max-body-bytes", env = "MAX_BODY_BYTES", default_value = "32MiB", value_parser = body_bytes)]
    pub body_bytes: u64,
    /// Largest form, with its files: 128MiB, 2GB
    #[arg(long = "max-upload-bytes", env = "MAX_UPLOAD_BYTES", default_value = "128MiB", value_parser = bytes)]
    pub upload_bytes: u64,
    /// How long a request may take, its body included: 30s, 5m
    #[arg(long = "request-timeout", env = "REQUEST_TIMEOUT", default_value = "5m", value_parser = age)]
    pub request_time: Duration,
    /// How long a read of records may take: 10s, 1m
    #[arg(long = "read-timeout", env = "READ_TIMEOUT", default_value = "10s", value_parser = age)]
    pub read_time: Duration,
    /// On a master: writes that may wait for each database
    #[arg(long = "write-queue", env = "WRITE_QUEUE", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub write_queue: u32,
    /// Records that a page may have
    #[arg(long = "max-per-page", env = "MAX_PER_PAGE", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub per_page: u32,
    /// Parentheses that a filter of records may have inside each other
    #[arg(long = "max-filter-depth", env = "MAX_FILTER_DEPTH", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub filter_depth: u32,
    /// On a master: requests that a batch may have
    #[arg(long = "max-batch-requests", env = "MAX_BATCH_REQUESTS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch_requests: u32,
}

impl Limits {
    /// [`Self::body_bytes`] for this machine.
    #[must_use]
    pub fn body(&self) -> usize {
        usize::try_from(self.body_bytes).unwrap_or(usize::MAX)
    }

    /// [`Self::filter_depth`], as what is counted.
    #[must_use]
    pub fn filter_depth(&self) -> usize {
        self.filter_depth as usize
    }

    /// [`Self::upload_bytes`] for this machine.
    #[must_use]
    pub fn upload(&self) -> usize {
        usize::try_from(self.upload_bytes).unwrap_or(usize::MAX)
    }
}

fn body_bytes(text: &str) -> Result<u64, String> {
    let found = bytes(text)?;
    if found > MOST_BODY_BYTES { Err("give at most 64MiB".to_owned()) } else { Ok(found) }
}
