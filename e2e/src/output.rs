//! What processes print. A question about it is answered by all that was printed before: a program that logs a line and
//! then answers a request has printed the line, however late the test's own threads get their turn.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Time between two looks at streams about which nobody asks.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

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
    /// Streams that go on.
    sources: Vec<Source>,
    /// Streams that reached their end: 2 once the process, and whoever inherited its output, is gone.
    closed: usize,
}

/// The end of a pipe, which is read without waiting.
struct Source {
    stream: Stream,
    pipe: File,
    /// A line that has not come whole.
    begun: Vec<u8>,
}

impl Source {
    /// Takes what was printed. False once there is no more to come.
    fn take(&mut self, lines: &mut Vec<(Stream, String)>) -> bool {
        let mut bytes = [0; 16 << 10];
        loop {
            let goes_on = match self.pipe.read(&mut bytes) {
                Ok(read) => {
                    self.begun.extend_from_slice(&bytes[..read]);
                    read > 0
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) => error.kind() == ErrorKind::Interrupted,
            };
            while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                lines.push((self.stream, String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            if !goes_on {
                if !self.begun.is_empty() {
                    lines.push((self.stream, String::from_utf8_lossy(&self.begun).trim_end().to_owned()));
                }
                return false;
            }
        }
    }
}

impl State {
    /// Takes what was printed on all streams.
    fn take(&mut self) {
        let Self { lines, sources, closed } = self;
        let before = sources.len();
        sources.retain_mut(|source| source.take(lines));
        *closed += before - sources.len();
    }
}

impl Output {
    /// Follows one stream, a pipe, to its end.
    pub fn follow(&self, stream: Stream, pipe: impl Into<OwnedFd>) -> Result<()> {
        let pipe = File::from(pipe.into());
        let flags = fcntl_getfl(&pipe).context("look at a pipe")?;
        fcntl_setfl(&pipe, flags | OFlags::NONBLOCK).context("read a pipe without waiting")?;
        let mut state = self.state();
        state.sources.push(Source { stream, pipe, begun: Vec::new() });
        if state.sources.len() == 1 {
            let output = self.clone();
            std::thread::spawn(move || output.keep_looking());
        }
        Ok(())
    }

    /// Sees to it that no pipe is ever full, and wakes who waits, until all streams have ended.
    fn keep_looking(&self) {
        let mut known = (0, 0);
        loop {
            let state = self.now();
            let (ended, before) = (state.sources.is_empty(), known);
            known = (state.lines.len(), state.closed);
            drop(state);
            if known != before {
                self.shared.grown.notify_all();
            }
            if ended {
                return;
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    /// All lines of both streams.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.now().lines.iter().map(|(_, line)| line.clone()).collect()
    }

    /// The lines of one stream.
    #[must_use]
    pub fn of(&self, stream: Stream) -> Vec<String> {
        let state = self.now();
        state.lines.iter().filter(|(from, _)| *from == stream).map(|(_, line)| line.clone()).collect()
    }

    /// Waits for the first line from which `find` makes something. Fails at once when the output ends without one.
    pub fn wait_for<T>(&self, what: &str, deadline: Duration, mut find: impl FnMut(&str) -> Option<T>) -> Result<T> {
        let (started, mut seen) = (Instant::now(), 0);
        let mut state = self.now();
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
        let state = self.now();
        let ended = self.shared.grown.wait_timeout_while(state, deadline, |state| state.closed < 2);
        let (state, _) = ended.unwrap_or_else(PoisonError::into_inner);
        anyhow::ensure!(state.closed == 2, "the output is still open {deadline:?} after the process ended");
        Ok(())
    }

    /// The last lines, for people.
    #[must_use]
    pub fn tail(&self) -> String {
        last(&self.now().lines)
    }

    /// The state with all that was printed until now.
    fn now(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.take();
        state
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
    use std::io::Write;

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
        let ((stderr, mut errors), (stdout, answers)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        output.follow(Stream::Stderr, stderr).unwrap();
        output.follow(Stream::Stdout, stdout).unwrap();
        errors.write_all(b"one\ntwo\n").unwrap();
        drop((errors, answers));
        let find = |wanted: &'static str| move |line: &str| (line == wanted).then_some(());
        output.wait_for("two", Duration::from_secs(5), find("two")).unwrap();
        let error = output.wait_for("three", Duration::from_secs(5), find("three")).unwrap_err().to_string();
        assert!(error.contains("ended") && error.contains("one\ntwo"), "{error}");
    }

    #[test]
    fn a_line_that_was_printed_is_there_at_once_and_half_a_one_when_the_stream_ends() {
        for n in 0..200 {
            let output = Output::default();
            let (pipe, mut printed) = std::io::pipe().unwrap();
            output.follow(Stream::Stdout, pipe).unwrap();
            write!(printed, "line {n}\nhalf").unwrap();
            assert_eq!(output.lines(), [format!("line {n}")]);
            drop(printed);
            // A child that another test is starting has the pipe open for a moment.
            let ended = || Ok(output.of(Stream::Stdout) == [format!("line {n}"), "half".to_owned()]);
            crate::eventually("the stream ends", Duration::from_secs(60), ended).unwrap();
        }
    }
}
