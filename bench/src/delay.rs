//! The time from a commit until the record is read on a replica, over HTTP on both sides.
//!
//! One thread writes at a fixed rate to the master. The clock starts when the master has answered a write. Other threads
//! ask the replica for the record again and again; the clock stops when it answers with it.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::client::{Client, records};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::pace::at_rate;
use crate::pair::{PATIENCE, Pair};
use crate::posts;

/// Threads that look at the replica: more than one, so that a slow record does not delay the look at the next one.
const READERS: usize = 4;

/// Pause between two looks: they shall not use up the machine.
const PAUSE: Duration = Duration::from_micros(300);

/// A record that is to be looked for.
struct Written {
    id: String,
    answered: Instant,
}

/// What was seen of one record.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// When it was answered, since the beginning.
    pub at: Duration,
    /// How long it was not there yet.
    pub delay_ms: f64,
}

/// Writes for some time, `rate` records a second, and looks for each of them.
pub fn measure(pair: &Pair, rate: u32, time: Duration) -> Result<Vec<Seen>> {
    let (master, replica) = (pair.master.client()?, pair.replica.client()?);
    let (sender, receiver) = mpsc::channel();
    let (receiver, began) = (Mutex::new(receiver), Instant::now());
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| look_for_all(&replica, &receiver, began))).collect();
        write(&master, rate, time, &sender)?;
        // Readers end when nothing more can come.
        drop(sender);
        let mut seen = Vec::new();
        for reader in readers {
            seen.extend(reader.join().map_err(|_| anyhow!("a reader panicked"))??);
        }
        seen.sort_by_key(|seen| seen.at);
        Ok(seen)
    })
}

/// All delays, ms.
pub fn delays(seen: &[Seen]) -> Vec<f64> {
    seen.iter().map(|seen| seen.delay_ms).collect()
}

fn write(master: &Client, rate: u32, time: Duration, sender: &Sender<Written>) -> Result<()> {
    let mut random = StdRng::seed_from_u64(5);
    let written = at_rate(rate, time, || {
        let record = master.create_record(posts::NAME, &posts::record(&mut random))?;
        let id = record["id"].as_str().context("a record without an id")?.to_owned();
        sender.send(Written { id, answered: Instant::now() }).context("nobody looks any more")
    });
    written.map(drop)
}

fn look_for_all(replica: &Client, receiver: &Mutex<Receiver<Written>>, began: Instant) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(written) = next else { return Ok(seen) };
        let delay_ms = look_for(replica, &written)?.as_secs_f64() * 1e3;
        seen.push(Seen { at: written.answered.duration_since(began), delay_ms });
    }
}

fn look_for(replica: &Client, written: &Written) -> Result<Duration> {
    let path = format!("{}/{}", records(posts::NAME), written.id);
    loop {
        if replica.get(&path)?.status == 200 {
            return Ok(written.answered.elapsed());
        }
        ensure!(written.answered.elapsed() < PATIENCE, "record {} never came to the replica", written.id);
        thread::sleep(PAUSE);
    }
}
