//! What processes take while they work, from /proc.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

/// Ticks of `utime` and `stime` in a second: USER_HZ, which Linux fixes for programs.
const TICKS: f64 = 100.0;

/// CPU time and peak memory of some processes since a moment.
pub struct Usage {
    pids: Vec<u32>,
    began: Instant,
    seconds: f64,
}

/// What they took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Percent of one core.
    pub cpu: f64,
    /// Peaks of resident memory (VmHWM), pages of mapped files included, added up over the processes, MB of 10^6 bytes.
    pub peak_mb: f64,
}

impl Usage {
    /// Begins now; peaks of before are forgotten.
    pub fn begin(pids: &[u32]) -> Result<Self> {
        for pid in pids {
            fs::write(format!("/proc/{pid}/clear_refs"), "5").context("reset the peak of a process's memory")?;
        }
        Ok(Self { pids: pids.to_vec(), began: Instant::now(), seconds: cpu_seconds(pids)? })
    }

    /// Since then.
    pub fn taken(&self) -> Result<Taken> {
        let (passed, seconds) = (self.began.elapsed().as_secs_f64(), cpu_seconds(&self.pids)? - self.seconds);
        let mut peak = 0.0;
        for pid in &self.pids {
            peak += peak_bytes(&fs::read_to_string(format!("/proc/{pid}/status"))?).context("VmHWM of a process")?;
        }
        Ok(Taken { cpu: seconds / passed * 100.0, peak_mb: peak / 1e6 })
    }
}

fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    let mut sum = 0.0;
    for pid in pids {
        let stat =
            fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("is process {pid} gone?"))?;
        sum += ticks(&stat).context("times of a process")? / TICKS;
    }
    Ok(sum)
}

/// `utime` + `stime` of a line of /proc/PID/stat. The name, in parentheses, may hold spaces and parentheses.
fn ticks(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
}

fn peak_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 10 0 0 0 250 50 0 0 20 0 3 0 100 1000 200";
        assert_eq!(ticks(stat), Some(300.0));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn a_peak_is_given_in_kilobytes() {
        assert_eq!(peak_bytes("VmPeak:\t  9 kB\nVmHWM:\t    2048 kB\n"), Some(2_097_152.0));
        assert_eq!(peak_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_takes_something() {
        let usage = Usage::begin(&[std::process::id()]).unwrap();
        let taken = usage.taken().unwrap();
        assert!(taken.peak_mb > 0.0 && taken.cpu >= 0.0, "{taken:?}");
    }
}
