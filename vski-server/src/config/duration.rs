//! Spans of time as people write them: `500ms`, `5s`, `2m`, `24h`, and plain seconds, `5`.

use std::time::Duration;

/// Text that is no span of time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a span of time such as 500ms, 5s, 2m or 24h")]
pub struct DurationError(String);

/// Reads a whole number with a unit; seconds without one.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let bad = || DurationError(text.chars().take(100).collect());
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let ms_per_unit = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    number.checked_mul(ms_per_unit).map(Duration::from_millis).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_a_unit_and_plain_seconds_are_spans_of_time() {
        for (text, ms) in [("500ms", 500), ("5s", 5_000), ("2m", 120_000), ("24h", 86_400_000), ("7", 7_000), ("0", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_examples() {
        for text in ["", "s", "5 s", " 5s", "5S", "-5s", "+5s", "1.5s", "5s5", "5d", "é", "18446744073709551615s"] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains("500ms"), "{error}");
        }
    }
}
