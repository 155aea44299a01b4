//! How stale a read may be.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::duration;

/// The longest that a read may be told to wait: clients and load balancers in between give up about then.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What a read gets whose position did not arrive in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fallback {
    /// 503 with Retry-After.
    #[value(name = "503")]
    Unavailable,
    /// 307 to the master.
    Redirect,
}

/// Flags and variables about stale reads.
#[derive(Args, Clone, Copy, Debug)]
pub struct Freshness {
    /// On a replica: answer reads of data with 503 while their database may be older than this; none: never
    #[arg(long, env = "MAX_LAG_SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_lag_seconds: Option<u64>,
    /// How long a read waits for the position in its X-Vski-Min-Position, such as 500ms or 2s; at most 60s
    #[arg(long, env = "MIN_POSITION_WAIT", value_parser = wait, default_value = "2s")]
    pub min_position_wait: Duration,
    /// What a replica answers when that position did not arrive in time: 503, or a redirect to MASTER_URL
    #[arg(long, env = "MIN_POSITION_FALLBACK", value_enum, default_value = "503")]
    pub min_position_fallback: Fallback,
}

impl Freshness {
    /// The oldest a replica's data may be.
    #[must_use]
    pub fn max_lag(&self) -> Option<Duration> {
        self.max_lag_seconds.map(Duration::from_secs)
    }
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = duration::parse(text).map_err(|error| error.to_string())?;
    if wait <= MAX_WAIT { Ok(wait) } else { Err(format!("is longer than {MAX_WAIT:?}: choose a shorter wait")) }
}
