use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Does something `rate` times a second for some time, and says how often that was. What is slower than the rate is not waited for.
pub fn at_rate(rate: u32, time: Duration, mut turn: impl FnMut() -> Result<()>) -> Result<u32> {
    let (began, pause) = (Instant::now(), Duration::from_secs(1) / rate);
    let mut turns = 0;
    loop {
        let due = pause * turns;
        if due.max(began.elapsed()) >= time {
            return Ok(turns);
        }
        thread::sleep(due.saturating_sub(began.elapsed()));
        turn()?;
        turns += 1;
    }
}
