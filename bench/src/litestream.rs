//! The time from a commit until a file of Litestream's replica has it: what comes closest there to a copy that can be read.
//!
//! A program of its own writes at a fixed rate and notes where each commit ends in the WAL, which SQLite tells in the `-shm` file.
//! Each file of the replica says up to where in the WAL it goes. The clock starts when the commit has returned, and stops
//! when a file that covers it has its name.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::eventually;
use e2e::process::{self, Process};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rusqlite::Connection;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use vski_replication::connection;

use crate::pace::at_rate;
use crate::pair::PATIENCE;
use crate::posts;
use crate::usage::{Taken, Usage};

/// Pause between two looks for files.
const PAUSE: Duration = Duration::from_micros(300);

/// How long is waited for the last files: twice as long as two of its intervals last by default.
const LAST_FILES: Duration = Duration::from_secs(4);

/// Where SQLite keeps the number of frames and the salt in the `-shm` file, and how long its header is.
const FRAMES_AT: usize = 16;
const SALT_AT: usize = 32;
const SHM_HEADER: usize = 48;

/// Bytes of the WAL before its first frame, and of a frame before its page.
const WAL_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// Where a file of the replica says which part of the WAL it has: offset, length and salt, the highest byte first.
const OFFSET_AT: usize = 48;
const LENGTH_AT: usize = 56;
const WAL_SALT_AT: usize = 64;
const FILE_HEADER: usize = 68;

/// A place in the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// One more each time that the WAL begins anew.
    salt: u32,
    end: u64,
}

impl Place {
    /// Whether everything up to `other` is in what goes up to here.
    fn covers(self, other: Self) -> bool {
        match self.salt.wrapping_sub(other.salt) {
            0 => self.end >= other.end,
            newer => newer < u32::MAX / 2,
        }
    }
}

/// A database that Litestream copies into a directory.
pub struct Copied {
    conn: Connection,
    /// Held open as long as the database: to close it would end SQLite's locks.
    shm: File,
    frame: u64,
    replica: PathBuf,
    process: Process,
}

impl Copied {
    /// Starts it in `place`; `interval` is how often it looks for commits and copies them, its default if there is none.
    pub fn start(place: &Path, tools: &Path, interval: Option<&str>) -> Result<Self> {
        std::fs::create_dir_all(place)?;
        let (database, replica) = (place.join("source.db"), place.join("replica"));
        let conn = connection::writer(&database)?;
        conn.execute_batch("CREATE TABLE posts (id INTEGER PRIMARY KEY, body TEXT)")?;
        let page: u32 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let shm = File::open(place.join("source.db-shm")).context("open the -shm file")?;
        let (monitor, sync) = match interval {
            Some(interval) => {
                (format!("    monitor-interval: {interval}\n"), format!("      sync-interval: {interval}\n"))
            }
            None => Default::default(),
        };
        let (path, to) = (database.display(), replica.display());
        let config =
            format!("dbs:\n  - path: {path}\n{monitor}    replica:\n      type: file\n      path: {to}\n{sync}");
        let file = place.join("litestream.yml");
        std::fs::write(&file, config)?;
        let mut command = process::command(tools.join("litestream"));
        command.arg("replicate").arg("-config").arg(&file);
        let process = Process::spawn("litestream", &mut command)?;
        let copied = Self { conn, shm, frame: FRAME_HEADER + u64::from(page), replica: replica.join("ltx/0"), process };
        copied.insert(&mut StdRng::seed_from_u64(4))?;
        eventually("Litestream copies", PATIENCE, || Ok(copied.replica.exists()))?;
        Ok(copied)
    }

    /// What Litestream takes from now on.
    pub fn usage(&self) -> Result<Usage> {
        Usage::begin(&[self.process.pid()])
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<()> {
        self.process.terminate(PATIENCE).map(drop)
    }

    /// Writes for some time, `rate` rows a second, each in a transaction. How long each was not in the replica, ms, and what
    /// Litestream took meanwhile.
    pub fn measure(&self, rate: u32, time: Duration) -> Result<(Vec<f64>, Taken)> {
        let ended = AtomicBool::new(false);
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&watch, &self.replica, WatchFlags::MOVED_TO)?;
        let (usage, replica) = (self.usage()?, self.replica.as_path());
        let (committed, taken, arrived) = thread::scope(|scope| {
            let watcher = scope.spawn(|| arrivals(watch, replica, &ended));
            let (committed, taken) = (self.write(rate, time), usage.taken());
            thread::sleep(LAST_FILES);
            ended.store(true, Ordering::Relaxed);
            let arrived = watcher.join().map_err(|_| anyhow!("the watcher panicked"))??;
            anyhow::Ok((committed?, taken?, arrived))
        })?;
        let delay = |&(at, place): &(Instant, Place)| {
            let first = arrived.iter().find(|(_, copied)| copied.covers(place));
            let (copied_at, _) = first.with_context(|| format!("{place:?} never came into Litestream's replica"))?;
            // A file may have its name before the writer has looked at its clock.
            Ok(copied_at.saturating_duration_since(at).as_secs_f64() * 1e3)
        };
        Ok((committed.iter().map(delay).collect::<Result<_>>()?, taken))
    }

    fn write(&self, rate: u32, time: Duration) -> Result<Vec<(Instant, Place)>> {
        let (mut random, mut committed) = (StdRng::seed_from_u64(5), Vec::new());
        at_rate(rate, time, || {
            committed.push((self.insert(&mut random)?, self.place()?));
            Ok(())
        })?;
        Ok(committed)
    }

    /// Adds a row; when that was committed.
    fn insert(&self, random: &mut StdRng) -> Result<Instant> {
        let body = posts::record(random).to_string();
        self.conn.prepare_cached("INSERT INTO posts (body) VALUES (?1)")?.execute([body])?;
        Ok(Instant::now())
    }

    /// Where the WAL ends.
    fn place(&self) -> Result<Place> {
        let mut header = [0; SHM_HEADER];
        self.shm.read_exact_at(&mut header, 0)?;
        let frames = u32::from_ne_bytes(four(&header, FRAMES_AT));
        let salt = u32::from_be_bytes(four(&header, SALT_AT));
        Ok(Place { salt, end: WAL_HEADER + u64::from(frames) * self.frame })
    }
}

/// The files that come into the replica, in their order, until there are to be no more.
fn arrivals(watch: rustix::fd::OwnedFd, replica: &Path, ended: &AtomicBool) -> Result<Vec<(Instant, Place)>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    let mut arrived = Vec::new();
    loop {
        let name = match events.next() {
            Ok(event) => event.file_name().map(|name| name.to_string_lossy().into_owned()),
            Err(Errno::WOULDBLOCK) if ended.load(Ordering::Relaxed) => return Ok(arrived),
            Err(Errno::WOULDBLOCK) => {
                thread::sleep(PAUSE);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(name) = name.filter(|name| name.ends_with(".ltx")) {
            let at = Instant::now();
            arrived.push((at, covered(&replica.join(name))?));
        }
    }
}

/// Up to where in the WAL a file of the replica goes.
fn covered(file: &Path) -> Result<Place> {
    let mut header = [0; FILE_HEADER];
    File::open(file)?.read_exact_at(&mut header, 0).with_context(|| format!("read {}", file.display()))?;
    ensure!(header.starts_with(b"LTX1"), "{} is no file of this Litestream", file.display());
    let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|byte| header[at + byte]));
    Ok(Place { salt: u32::from_be_bytes(four(&header, WAL_SALT_AT)), end: number(OFFSET_AT) + number(LENGTH_AT) })
}

fn four(bytes: &[u8], at: usize) -> [u8; 4] {
    std::array::from_fn(|byte| bytes[at + byte])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_covers_what_ends_before_it_in_this_wal_or_an_earlier_one() {
        let at = |salt, end| Place { salt, end };
        assert!(at(7, 100).covers(at(7, 100)) && at(7, 100).covers(at(7, 99)));
        assert!(!at(7, 100).covers(at(7, 101)));
        assert!(at(8, 32).covers(at(7, 1000)) && !at(7, 1000).covers(at(8, 32)));
        assert!(at(0, 32).covers(at(u32::MAX, 1000)), "the salt is counted on from its greatest value");
    }
}
