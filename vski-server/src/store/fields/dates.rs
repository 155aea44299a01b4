//! Times: taken in many forms, as PocketBase takes them, stored in one: `2026-01-31 23:59:59.123Z`.

use jiff::Timestamp;
use rusqlite::types::Value as Sql;
use serde_json::Value;

use super::Field;
use crate::store::error::FieldError;
use crate::store::ids;

/// Length of a stored time: those of other years than 0 to 9999 would not sort as texts.
const STORED_LENGTH: usize = 24;

/// A time in its stored form. Without an offset it is UTC, without a time of day it is midnight. Four digits are a year, as
/// in filters; any other text of digits is refused, since nobody can tell whether it is a day or seconds.
#[must_use]
pub fn parse(text: &str) -> Option<String> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return if text.len() == 4 { parse(&format!("{text}-01-01")) } else { None };
    }
    let stamp = || jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    match text.parse::<Timestamp>() {
        Ok(time) => stored(time),
        Err(_) => ids::civil_time(text).and_then(sortable).or_else(|| stored(stamp()?)),
    }
}

/// A time in its stored form, of seconds since 1970.
#[must_use]
pub fn of_seconds(seconds: i64) -> Option<String> {
    stored(Timestamp::from_second(seconds).ok()?)
}

fn stored(time: Timestamp) -> Option<String> {
    sortable(ids::format_time(time.as_millisecond()))
}

fn sortable(stored: String) -> Option<String> {
    (stored.len() == STORED_LENGTH && !stored.starts_with('-')).then_some(stored)
}

/// The value of a date field; a blank one is no value.
pub fn date(field: &Field, value: &Value, (min, max): (&str, &str)) -> Result<Sql, FieldError> {
    let time = match value {
        Value::String(text) if text.trim().is_empty() => return Ok(field.zero()),
        Value::String(text) => parse(text),
        Value::Number(number) => number.as_i64().and_then(of_seconds),
        other => return Err(field.mistyped(other)),
    };
    let time = time.ok_or_else(|| {
        let message =
            "must be a time, as 2026-01-31 23:59:59.123Z, a day, as 2026-01-31, or seconds since 1970 as a number";
        let message = message.to_owned();
        field.error("validation_invalid_date", message)
    })?;
    if parse(min).is_some_and(|min| time < min) {
        return Err(field.error("validation_min_greater_equal_than_required", format!("must be {min} or later")));
    }
    if parse(max).is_some_and(|max| time > max) {
        return Err(field.error("validation_max_less_equal_than_required", format!("must be {max} or earlier")));
    }
    Ok(Sql::Text(time))
}
