//! `@now` and the other times of a filter, in UTC.

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use rusqlite::types::Value as Sql;

use super::ast::DateMacro;
use crate::store::ids;

/// The macro's value at a time in ms since 1970: a number for parts of a time, otherwise text as dates are stored.
pub fn value(date: DateMacro, now_ms: i64) -> Sql {
    let now = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let local = now.to_zoned(TimeZone::UTC).datetime();
    let today = local.date();
    let start = |day: jiff::civil::Date| text(day.to_datetime(Time::midnight()));
    let end = |day: jiff::civil::Date| text(day.to_datetime(END_OF_DAY));
    match date {
        DateMacro::Now => text(local),
        DateMacro::Second => Sql::Integer(local.second().into()),
        DateMacro::Minute => Sql::Integer(local.minute().into()),
        DateMacro::Hour => Sql::Integer(local.hour().into()),
        DateMacro::Weekday => Sql::Integer(local.weekday().to_sunday_zero_offset().into()),
        DateMacro::Day => Sql::Integer(local.day().into()),
        DateMacro::Month => Sql::Integer(local.month().into()),
        DateMacro::Year => Sql::Integer(local.year().into()),
        DateMacro::Yesterday => text(today.yesterday().unwrap_or(today).to_datetime(local.time())),
        DateMacro::Tomorrow => text(today.tomorrow().unwrap_or(today).to_datetime(local.time())),
        DateMacro::TodayStart => start(today),
        DateMacro::TodayEnd => end(today),
        DateMacro::MonthStart => start(today.first_of_month()),
        DateMacro::MonthEnd => end(today.last_of_month()),
        DateMacro::YearStart => start(today.first_of_year()),
        DateMacro::YearEnd => end(today.last_of_year()),
    }
}

/// Whether the macro is a number.
pub fn is_number(date: DateMacro) -> bool {
    use DateMacro::{Day, Hour, Minute, Month, Second, Weekday, Year};
    matches!(date, Second | Minute | Hour | Weekday | Day | Month | Year)
}

const END_OF_DAY: Time = Time::constant(23, 59, 59, 999_000_000);

fn text(time: DateTime) -> Sql {
    let stamp = time.to_zoned(TimeZone::UTC).map_or(Timestamp::UNIX_EPOCH, |zoned| zoned.timestamp());
    Sql::Text(ids::format_time(stamp.as_millisecond()))
}

/// A date as somebody may write it, in the form in which dates are stored: a year, a month, a day, or a time with or
/// without seconds, parts of them, `T`, and a zone. Without a zone it is UTC.
pub fn stored_date(written: &str) -> Option<String> {
    let written = written.trim();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let padded = match written.len() {
        4 if digits(written) => format!("{written}-01-01"),
        7 if written.split('-').all(digits) => format!("{written}-01"),
        _ => written.to_owned(),
    };
    match padded.parse::<Timestamp>() {
        Ok(stamp) => Some(ids::format_time(stamp.as_millisecond())),
        Err(_) => ids::civil_time(&padded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-02-29 13:14:15.016, a Thursday.
    const LEAP_DAY_MS: i64 = 1_709_212_455_016;

    #[test]
    fn macros_follow_the_calendar_in_utc() {
        for (date, wanted) in [
            (DateMacro::Now, Sql::Text("2024-02-29 13:14:15.016Z".into())),
            (DateMacro::Second, Sql::Integer(15)),
            (DateMacro::Minute, Sql::Integer(14)),
            (DateMacro::Hour, Sql::Integer(13)),
            (DateMacro::Weekday, Sql::Integer(4)),
            (DateMacro::Day, Sql::Integer(29)),
            (DateMacro::Month, Sql::Integer(2)),
            (DateMacro::Year, Sql::Integer(2024)),
            (DateMacro::Yesterday, Sql::Text("2024-02-28 13:14:15.016Z".into())),
            (DateMacro::Tomorrow, Sql::Text("2024-03-01 13:14:15.016Z".into())),
            (DateMacro::TodayStart, Sql::Text("2024-02-29 00:00:00.000Z".into())),
            (DateMacro::TodayEnd, Sql::Text("2024-02-29 23:59:59.999Z".into())),
            (DateMacro::MonthStart, Sql::Text("2024-02-01 00:00:00.000Z".into())),
            (DateMacro::MonthEnd, Sql::Text("2024-02-29 23:59:59.999Z".into())),
            (DateMacro::YearStart, Sql::Text("2024-01-01 00:00:00.000Z".into())),
            (DateMacro::YearEnd, Sql::Text("2024-12-31 23:59:59.999Z".into())),
        ] {
            assert_eq!(value(date, LEAP_DAY_MS), wanted, "{date:?}");
            assert_eq!(matches!(wanted, Sql::Integer(_)), is_number(date), "{date:?}");
        }
    }

    #[test]
    fn a_date_in_any_usual_form_becomes_the_stored_one() {
        for (written, stored) in [
            ("2022", "2022-01-01 00:00:00.000Z"),
            ("2022-03", "2022-03-01 00:00:00.000Z"),
            ("2022-03-04", "2022-03-04 00:00:00.000Z"),
            ("2022-03-04 05:06", "2022-03-04 05:06:00.000Z"),
            ("2022-03-04 05:06:07", "2022-03-04 05:06:07.000Z"),
            ("2022-03-04 05:06:07.089Z", "2022-03-04 05:06:07.089Z"),
            ("2022-03-04T05:06:07Z", "2022-03-04 05:06:07.000Z"),
            ("2022-03-04T05:06:07+02:00", "2022-03-04 03:06:07.000Z"),
            ("9999-12-31", "9999-12-31 00:00:00.000Z"),
            ("9999-12-31 23:59:59.999Z", "9999-12-31 23:59:59.999Z"),
        ] {
            assert_eq!(stored_date(written).as_deref(), Some(stored), "{written}");
        }
        for written in ["", "yesterday", "2022-13-01", "20x2", "12", "2022-", "99999-01-01"] {
            assert_eq!(stored_date(written), None, "{written}");
        }
    }
}
