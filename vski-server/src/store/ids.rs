//! Record ids: 15 characters of `[a-z0-9]` whose order follows creation time.
//!
//! Ten characters of microseconds since 1970 in base 36 (enough until 2085), five random ones. Ordered keys go to the
//! right edge of the table's tree: several times more inserts per second than random ones.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimePrinter;

/// Length of a record id (PocketBase's).
pub const ID_LENGTH: usize = 15;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const TIME_DIGITS: usize = 10;

/// The last microsecond that an id was made of: ids keep their order when the clock is set back while running.
static LAST_MICROSECOND: AtomicU64 = AtomicU64::new(0);

/// Keeps new ids behind those of a time that the log has already seen, ms since 1970.
pub fn advance_clock(committed_ms: i64) {
    let microsecond = u64::try_from(committed_ms).unwrap_or(0).saturating_mul(1000);
    LAST_MICROSECOND.fetch_max(microsecond, Ordering::Relaxed);
}

/// A new id, greater than every one made before by this process.
#[must_use]
pub fn record_id() -> String {
    let now = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0);
    let last = LAST_MICROSECOND.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
    let microsecond = now.max(last.unwrap_or(0) + 1);
    let mut id = vec![0; ID_LENGTH];
    base36(microsecond, &mut id[..TIME_DIGITS]);
    base36(rand::random::<u32>().into(), &mut id[TIME_DIGITS..]);
    String::from_utf8(id).expect("base 36 digits are ASCII")
}

/// Whether a caller's own id has the shape of ours.
#[must_use]
pub fn is_record_id(id: &str) -> bool {
    id.len() == ID_LENGTH && id.bytes().all(|byte| DIGITS.contains(&byte))
}

fn base36(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(number % 36) as usize];
        number /= 36;
    }
}

/// Now, as PocketBase writes times: `2026-01-31 23:59:59.123Z`.
#[must_use]
pub fn now() -> String {
    format_time(Timestamp::now().as_millisecond())
}

/// How times are written, as PocketBase does it.
const STORED: &str = "%Y-%m-%d %H:%M:%S.%3fZ";

/// A time in ms since 1970, as PocketBase writes it.
#[must_use]
pub fn format_time(ms: i64) -> String {
    // Prints the same as STORED.
    const PRINTER: DateTimePrinter = DateTimePrinter::new().separator(b' ').precision(Some(3));
    PRINTER.timestamp_to_string(&Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// A time in UTC as [`format_time`] has it. Other than a number of ms it may be the last day of the year 9999, by which people
/// mean never.
#[must_use]
pub fn civil_time(text: &str) -> Option<String> {
    let time: DateTime = text.strip_suffix(['Z', 'z']).unwrap_or(text).parse().ok()?;
    Some(time.strftime(STORED).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_fifteen_characters_and_follow_creation_order() {
        let ids: Vec<_> = (0..10_000).map(|_| record_id()).collect();
        assert!(ids.iter().all(|id| is_record_id(id)));
        assert!(ids.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn ids_of_all_threads_differ() {
        let threads: Vec<_> =
            (0..4).map(|_| std::thread::spawn(|| (0..2_000).map(|_| record_id()).collect::<Vec<_>>())).collect();
        let ids: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let distinct: std::collections::BTreeSet<_> = ids.iter().map(|id| &id[..TIME_DIGITS]).collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn times_are_written_as_pocketbase_does() {
        assert_eq!(format_time(1_700_000_000_005), "2023-11-14 22:13:20.005Z");
        for ms in [0, -1, 999, 1_700_000_000_000, 253_402_207_200_999, i64::MAX] {
            let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
            assert_eq!(format_time(ms), time.strftime(STORED).to_string());
        }
    }
}
