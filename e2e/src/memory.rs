//! A process's own memory: anonymous pages, without the pages of mapped files, which the kernel takes back when it needs
//! them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks at a process's own memory again and again until it is asked for the peak.
pub struct Watch {
    done: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Watch {
    /// Begins to look at the process `pid`.
    #[must_use]
    pub fn begin(pid: u32) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let thread = {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                let mut peak = 0;
                while !done.load(Ordering::Relaxed) {
                    // A process that has ended has no memory any more.
                    peak = peak.max(own(pid).unwrap_or(0));
                    std::thread::park_timeout(PAUSE);
                }
                peak
            })
        };
        Self { done, thread }
    }

    /// The most that it had at once, bytes.
    pub fn peak(self) -> Result<u64> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        let peak = self.thread.join().map_err(|_| anyhow!("the thread that looked panicked"))?;
        anyhow::ensure!(peak > 0, "the process was never seen");
        Ok(peak)
    }
}

/// What the process has now, bytes.
pub fn own(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_seen_after_the_memory_was_given_back() {
        let pid = std::process::id();
        let before = own(pid).unwrap();
        let watch = Watch::begin(pid);
        let mut held = vec![1u8; 256 << 20];
        crate::eventually("it is seen", Duration::from_secs(20), || Ok(own(pid)? >= before + (200 << 20))).unwrap();
        held.truncate(1);
        held.shrink_to_fit();
        assert!(watch.peak().unwrap() >= before + (200 << 20));
    }
}
