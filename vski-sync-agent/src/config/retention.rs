//! How much history a node keeps: RETENTION_AGE and RETENTION_BYTES.

use std::time::Duration;

use clap::Args;
use vski_replication::changelog::Retention;

/// Flags and variables of both roles.
#[derive(Args, Clone, Copy)]
pub struct RetentionArgs {
    /// Log entries older than this are removed: 90s, 30m, 24h, 7d
    #[arg(long, env = "RETENTION_AGE", default_value = "24h", value_parser = age)]
    pub retention_age: Duration,
    /// The oldest log entries are removed while all together have more than this: 500MB, 1GiB, 4096
    #[arg(long, env = "RETENTION_BYTES", default_value = "1GiB", value_parser = bytes)]
    pub retention_bytes: u64,
    /// An uploaded file that no record names any more is removed after this: 90s, 30m, 24h, 7d
    #[arg(long, env = "FILE_GRACE", default_value = "1h", value_parser = age)]
    pub file_grace: Duration,
}

impl RetentionArgs {
    /// What is kept.
    #[must_use]
    pub fn resolve(&self) -> Retention {
        Retention { max_age: self.retention_age, max_bytes: self.retention_bytes }
    }
}

/// A time with its unit, more than none.
pub fn age(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let seconds = number(text, &UNITS).ok_or("give a whole number of s, m, h or d above 0, such as 24h")?;
    Ok(Duration::from_secs(seconds))
}

/// A size, more than none; without a unit it is bytes.
pub fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("B", 1),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    number(text, &UNITS).ok_or_else(|| "give a whole number of B, KB, MB, GB, KiB, MiB or GiB above 0".to_owned())
}

fn number(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    digits.parse::<u64>().ok()?.checked_mul(*factor).filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_a_unit_and_is_more_than_none() {
        for (text, seconds) in [("90s", 90), ("30m", 1_800), ("24h", 86_400), (" 7 d ", 604_800)] {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "24", "h", "0h", "-1h", "1.5h", "1w", "99999999999999999999s"] {
            assert!(age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_may_be_decimal_or_binary_and_is_more_than_none() {
        for (text, expected) in [
            ("4096", 4_096),
            ("7B", 7),
            ("2KB", 2_000),
            ("2kib", 2_048),
            ("3 MiB", 3 << 20),
            ("1GiB", 1 << 30),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "GiB", "1TB", "-1", "1.5GiB", "18446744073709551615GiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
