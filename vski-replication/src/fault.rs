//! Crash and error tests: in debug builds `VSKI_FAULT=<label>` makes a process kill itself with SIGKILL at that place,
//! as a power cut would, and `VSKI_FAULT=<label>=error` makes the operation there fail once.
//!
//! `<label>@<n>` does so the n-th time the place is passed. Release builds contain none of it. Every label stands in a
//! table "Killed at …" of a DESIGN.md, with what a restart does; a test compares the tables with the code.

/// A place where a test may kill this process: nothing here can fail.
#[inline]
pub fn point(label: &str) {
    // Whoever asks for an error here gets none, and the test that waits for one sees that.
    let _ = armed::strikes(label);
}

/// The same before a file operation, which may be made to fail instead.
#[inline]
pub fn io(label: &str) -> std::io::Result<()> {
    if armed::strikes(label) { Err(std::io::Error::other(told(label))) } else { Ok(()) }
}

/// The same before an SQL statement, which may be made to fail instead, as by a disk that cannot be written.
#[inline]
pub fn sql(label: &str) -> rusqlite::Result<()> {
    if !armed::strikes(label) {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
    Err(rusqlite::Error::SqliteFailure(code, Some(told(label))))
}

fn told(label: &str) -> String {
    format!("injected fault at {label}")
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// What the environment asks for.
    #[derive(Debug, PartialEq, Eq)]
    struct Fault {
        label: String,
        /// At which pass, counted from 1.
        nth: u64,
        /// An error instead of a kill.
        error: bool,
    }

    impl Fault {
        fn parse(text: &str) -> Option<Self> {
            let (place, error) = match text.split_once('=') {
                Some((place, "error")) => (place, true),
                Some(_) => return None,
                None => (text, false),
            };
            let (label, nth) = match place.rsplit_once('@') {
                Some((label, nth)) => (label, nth.parse().ok()?),
                None => (place, 1),
            };
            Some(Self { label: label.to_owned(), nth, error })
        }
    }

    /// Whether the operation at this place is to fail. Does not return where the process is to be killed.
    pub(super) fn strikes(label: &str) -> bool {
        static WANTED: LazyLock<Option<Fault>> =
            LazyLock::new(|| std::env::var("VSKI_FAULT").ok().and_then(|text| Fault::parse(&text)));
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let Some(wanted) = WANTED.as_ref().filter(|wanted| wanted.label == label) else { return false };
        if PASSED.fetch_add(1, Ordering::SeqCst) + 1 != wanted.nth {
            return false;
        }
        if wanted.error {
            return true;
        }
        // The process is gone before the call returns; an error can only mean that it is not, and the test sees that.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::thread::park();
        false
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_fault_names_its_place_its_pass_and_whether_it_is_an_error() {
            let fault = |label: &str, nth, error| Some(Fault { label: label.to_owned(), nth, error });
            assert_eq!(Fault::parse("apply:begin"), fault("apply:begin", 1, false));
            assert_eq!(Fault::parse("apply:begin@3"), fault("apply:begin", 3, false));
            assert_eq!(Fault::parse("apply:begin@2=error"), fault("apply:begin", 2, true));
            assert_eq!(Fault::parse("apply:begin=explode"), None);
            assert_eq!(Fault::parse("apply:begin@x"), None);
        }
    }
}

#[cfg(not(debug_assertions))]
mod armed {
    #[inline(always)]
    pub(super) fn strikes(_label: &str) -> bool {
        false
    }
}
