//! The `Range` of a request for a file (RFC 9110, 14.2): one range of bytes is answered, all else that the header may say is
//! ignored, as the RFC allows, and the whole file is sent.

use axum::http::HeaderValue;

/// The range that is to be answered, in a form without suffixes and numbers beyond the file's end: `bytes=3-10`. `None`: the
/// whole file. One that begins at or after the end, or is the last 0 bytes, cannot be answered (416) and begins at `size`.
pub fn answered(header: &HeaderValue, size: u64) -> Option<HeaderValue> {
    let (unit, range) = header.to_str().ok()?.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = match (number(first)?, number(last)?) {
        (None, None) => return None,
        (None, Some(suffix)) => (size.saturating_sub(suffix), None),
        (Some(first), Some(last)) if last < first => return None,
        (Some(first), last) => (first.min(size), last.filter(|last| *last < size)),
    };
    let last = last.map(|last| last.to_string()).unwrap_or_default();
    HeaderValue::from_str(&format!("bytes={first}-{last}")).ok()
}

/// A number that may be absent. One that is too large for us is larger than any file.
fn number(text: &str) -> Option<Option<u64>> {
    match text {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(Some(digits.parse().unwrap_or(u64::MAX))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_brought_into_the_file_and_all_else_is_ignored() {
        for (asked, size, wanted) in [
            ("bytes=0-4", 11, Some("bytes=0-4")),
            ("bytes=3-", 11, Some("bytes=3-")),
            ("Bytes=003-3", 11, Some("bytes=3-3")),
            ("bytes=-5", 11, Some("bytes=6-")),
            ("bytes=-999", 11, Some("bytes=0-")),
            ("bytes=-99999999999999999999", 11, Some("bytes=0-")),
            ("bytes=0-99999999999999999999", 11, Some("bytes=0-")),
            ("bytes=10-11", 11, Some("bytes=10-")),
            // These cannot be answered.
            ("bytes=11-", 11, Some("bytes=11-")),
            ("bytes=99999999999999999999-", 11, Some("bytes=11-")),
            ("bytes=-0", 11, Some("bytes=11-")),
            ("bytes=-5", 0, Some("bytes=0-")),
            ("lines=0-1", 11, None),
            ("bytes=0-1,3-4", 11, None),
            ("bytes=4-3", 11, None),
            ("bytes=-", 11, None),
            ("bytes=x-3", 11, None),
            ("bytes=+1-3", 11, None),
            ("bytes=", 11, None),
            ("bytes", 11, None),
            ("", 11, None),
        ] {
            let answered = answered(&HeaderValue::from_static(asked), size);
            assert_eq!(answered.as_ref().map(|value| value.to_str().unwrap()), wanted, "{asked}");
        }
    }
}
