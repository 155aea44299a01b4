//! The W3C trace context that an entry carries, so that the trace of a write goes on where the entry is applied.
//!
//! It is a diagnostic and no part of history: the chain does not cover it, and one that is not well-formed is none.
//! The form is `traceparent` of the W3C recommendation "Trace Context", version 00: `00-<trace id>-<span id>-<flags>`
//! in lower-case hex, 55 bytes.

use std::fmt;

/// Bytes of a trace context as text.
pub const TRACE_BYTES: usize = 55;

/// The bit of the flags that says that the trace is recorded.
const SAMPLED: u8 = 1;

/// A span of a trace, as others name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace; never all zeros.
    pub trace_id: [u8; 16],
    /// The span in it that what follows is a child of; never all zeros.
    pub span_id: [u8; 8],
    /// The flags, of which only the lowest bit is known here.
    pub flags: u8,
}

impl Trace {
    /// Reads the text form; `None` for anything else, whatever it is.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text: &[u8; TRACE_BYTES] = text.try_into().ok()?;
        if &text[..3] != b"00-" || text[35] != b'-' || text[52] != b'-' {
            return None;
        }
        let (trace_id, span_id) = (unhex(&text[3..35])?, unhex(&text[36..52])?);
        let [flags] = unhex(&text[53..])?;
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self { trace_id, span_id, flags })
    }

    /// Whether whoever began the trace records it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace_id, span_id) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{:02x}", self.flags)
    }
}

/// Lower-case hex digits only, as the recommendation has it.
fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_text_form_comes_back_as_it_was() {
        let trace = Trace::parse(TEXT.as_bytes()).unwrap();
        assert_eq!(trace.to_string(), TEXT);
        assert_eq!((trace.span_id[0], trace.flags), (0xb7, 1));
        assert!(trace.is_sampled());
        assert!(!Trace { flags: 2, ..trace }.is_sampled());
    }

    #[test]
    fn whatever_is_not_the_text_form_is_no_trace() {
        for text in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c+b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-\u{e4}7ad6b7169203331-01",
        ] {
            assert_eq!(Trace::parse(text.as_bytes()), None, "{text}");
        }
    }
}
