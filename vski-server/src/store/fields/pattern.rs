//! Regular expressions that callers wrote: bounded in size, and linear in the text (crate `regex`).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use regex::{Regex, RegexBuilder};

/// Longest pattern, bytes.
const PATTERN_BYTES: usize = 1000;

/// Most memory of a compiled pattern, bytes.
const COMPILED_BYTES: usize = 1 << 20;

/// Compiled patterns that are kept.
const KEPT: usize = 256;

static COMPILED: LazyLock<Mutex<HashMap<String, Arc<Regex>>>> = LazyLock::new(Mutex::default);

/// The compiled form, or what is wrong with the pattern in one line.
pub fn compiled(pattern: &str) -> Result<Arc<Regex>, String> {
    let mut kept = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(compiled) = kept.get(pattern) {
        return Ok(Arc::clone(compiled));
    }
    if pattern.len() > PATTERN_BYTES {
        return Err(format!("it has more than {PATTERN_BYTES} bytes"));
    }
    let built = RegexBuilder::new(pattern).size_limit(COMPILED_BYTES).dfa_size_limit(COMPILED_BYTES).build();
    // The last line says what is wrong, those before it show where.
    let reason = |error: regex::Error| error.to_string().lines().last().unwrap_or_default().trim().to_owned();
    let compiled = Arc::new(built.map_err(reason)?);
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(pattern.to_owned(), Arc::clone(&compiled));
    Ok(compiled)
}
