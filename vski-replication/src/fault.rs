//! Crash tests: `VSKI_FAULT=<label>` makes a debug build kill itself with SIGKILL at that place, as a power cut would.
//!
//! `VSKI_FAULT=<label>@<n>` does so the n-th time the place is passed. Release builds contain none of it.

#[cfg(debug_assertions)]
use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

/// A place where a test may kill this process.
#[cfg(debug_assertions)]
pub fn point(label: &str) {
    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("VSKI_FAULT").ok()?;
        match text.rsplit_once('@') {
            Some((label, nth)) => Some((label.to_owned(), nth.parse().ok()?)),
            None => Some((text, 1)),
        }
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);
    if let Some((wanted, nth)) = &*WANTED
        && wanted == label
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *nth
    {
        // The process is gone before the call returns; an error can only mean that it is not, and the test sees that.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::thread::park();
    }
}

/// A place where a test may kill a debug build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_label: &str) {}
