//! The digest of a JSON answer, in its header `X-Vski-Digest`: `blake3=<64 hex digits in lower case>` over the body.

/// The header's value for a body.
#[must_use]
pub fn of(body: &[u8]) -> String {
    format!("blake3={}", blake3::hash(body).to_hex())
}

/// Whether `body` is the one that the header's value was made for. A value of another form is of none.
#[must_use]
pub fn matches(value: &[u8], body: &[u8]) -> bool {
    value == of(body).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::damage::damaged;

    #[test]
    fn every_flipped_bit_and_every_truncation_of_body_or_value_is_detected() {
        let body = br#"{"dbs":[{"name":"default","version":7}]}"#;
        let value = of(body);
        assert!(matches(value.as_bytes(), body));
        for (what, body) in damaged(body) {
            assert!(!matches(value.as_bytes(), &body), "{what}");
        }
        for (what, value) in damaged(value.as_bytes()) {
            assert!(!matches(&value, body), "{what}");
        }
    }
}
