use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Which of a process's two outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Answers of commands.
    Stdout,
    /// Logs and errors.
    Stderr,
}

/// Everything a process has printed so far, in the order in which it arrived.
#[derive(Clone, Default)]
pub struct Output {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Signalled for each new line and each closed stream.
    grown: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<(Stream, String)>,
    /// Streams that reached their end: 2 once the process, and whoever inherited its output, is gone.
    closed: usize,
}

impl Output {
    /// Starts a thread that reads one stream to its end.
    pub fn follow(&self, stream: Stream, source: impl Read + Send + 'static) {
        let output = self.clone();
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                output.state().lines.push((stream, text));
                output.shared.grown.notify_all();
                line.clear();
            }
            output.state().closed += 1;
            output.shared.grown.notify_all();
        });
    }

    /// All lines of both streams.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.state().lines.iter().map(|(_, line)| line.clone()).collect()
    }

    /// The lines of one stream.
    #[must_use]
    pub fn of(&self, stream: Stream) -> Vec<String> {
        let state = self.state();
        state.lines.iter().filter(|(from, _)| *from == stream).map(|(_, line)| line.clone()).collect()
    }

    /// Waits for the first line from which `find` makes something. Fails at once when the output ends without one.
    pub fn wait_for<T>(&self, what: &str, deadline: Duration, mut find: impl FnMut(&str) -> Option<T>) -> Result<T> {
        let (started, mut seen) = (Instant::now(), 0);
        let mut state = self.state();
        loop {
            if let Some(found) = state.lines[seen..].iter().find_map(|(_, line)| find(line)) {
                return Ok(found);
            }
            seen = state.lines.len();
            if state.closed == 2 {
                bail!("the process ended before it printed {what}; its last lines:\n{}", last(&state.lines));
            }
            let Some(left) = deadline.checked_sub(started.elapsed()) else {
                bail!("not within {deadline:?}: {what} in the output; its last lines:\n{}", last(&state.lines));
            };
            (state, _) = self.shared.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until both streams have ended, so that no line of an ended process is missed.
    pub fn wait_for_end(&self, deadline: Duration) -> Result<()> {
        let state = self.state();
        let ended = self.shared.grown.wait_timeout_while(state, deadline, |state| state.closed < 2);
        let (state, _) = ended.unwrap_or_else(PoisonError::into_inner);
        anyhow::ensure!(state.closed == 2, "the output is still open {deadline:?} after the process ended");
        Ok(())
    }

    /// The last lines, for people.
    #[must_use]
    pub fn tail(&self) -> String {
        last(&self.state().lines)
    }

    /// A reader thread cannot leave a half-made change behind: a poisoned lock is still good.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn last(lines: &[(Stream, String)]) -> String {
    const SHOWN: usize = 40;
    let shown: Vec<&str> =
        lines.iter().skip(lines.len().saturating_sub(SHOWN)).map(|(_, line)| line.as_str()).collect();
    shown.join("\n")
}

/// A field of a JSON log line, or its `level`; `None` for other lines.
#[must_use]
pub fn log_field(line: &str, name: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let value = if name == "level" { line.get(name)? } else { line.get("fields")?.get(name)? };
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// Whether a line reports something that an operator should look at: WARN, ERROR or a panic.
#[must_use]
pub fn is_alarming(line: &str) -> bool {
    is_panic(line) || matches!(log_field(line, "level").as_deref(), Some("WARN" | "ERROR"))
}

/// Whether a line reports a panic, which no fault from outside excuses.
#[must_use]
pub fn is_panic(line: &str) -> bool {
    line.contains("panicked at")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_is_found_by_its_message_and_field() {
        let line = r#"{"level":"INFO","fields":{"message":"listening","address":"127.0.0.1:3001","n":3}}"#;
        assert_eq!(log_field(line, "message").as_deref(), Some("listening"));
        assert_eq!(log_field(line, "address").as_deref(), Some("127.0.0.1:3001"));
        assert_eq!(log_field(line, "n").as_deref(), Some("3"));
        assert!(!is_alarming(line) && is_alarming(&line.replace("INFO", "WARN")));
        assert_eq!(log_field("plain text", "message"), None);
    }

    #[test]
    fn output_that_ends_without_the_line_fails_at_once_and_shows_what_there_was() {
        let output = Output::default();
        output.follow(Stream::Stderr, &b"one\ntwo\n"[..]);
        output.follow(Stream::Stdout, &b""[..]);
        let find = |wanted: &'static str| move |line: &str| (line == wanted).then_some(());
        output.wait_for("two", Duration::from_secs(5), find("two")).unwrap();
        let error = output.wait_for("three", Duration::from_secs(5), find("three")).unwrap_err().to_string();
        assert!(error.contains("ended") && error.contains("one\ntwo"), "{error}");
    }
}
