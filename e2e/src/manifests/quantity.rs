use anyhow::{Context, Result};

/// Suffixes and what they multiply by, as of the Kubernetes documentation on quantities.
const SUFFIXES: [(&str, f64); 9] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("m", 0.001),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
];

/// The amount that a quantity says: cores or bytes.
pub fn quantity(text: &str) -> Result<f64> {
    let found = SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (number, factor) = found.unwrap_or((text, 1.0));
    let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let amount: Option<f64> = plain.then(|| number.parse().ok()).flatten();
    Ok(amount.with_context(|| format!("{text:?} is no quantity"))? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_what_is_none_is_refused() {
        for (text, amount) in [("100m", 0.1), ("2", 2.0), ("1.5", 1.5), ("64Mi", 67_108_864.0), ("2G", 2e9)] {
            assert!((quantity(text).unwrap() - amount).abs() < 1e-9, "{text}");
        }
        for text in ["", "Mi", "2MB", "2GiB", "-1", "1e3x", "ten"] {
            assert!(quantity(text).is_err(), "{text}");
        }
    }
}
