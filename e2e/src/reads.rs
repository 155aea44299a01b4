//! Reads through a load balancer, again and again, by clients that keep their connections: none may fail, none may be
//! answered by somebody else, and none may be stale.
//!
//! An answer is stale if it lacks a write that the reader knew of and told of (`Tells`), or if it comes from a node that
//! has been too far behind for longer than load balancers need to notice (`Reads::beyond`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use reqwest::Method;
use serde_json::json;

use crate::client::{Client, Reply, records};
use crate::eventually::eventually;

/// Pause of a client between two reads: faults last for seconds, and the machine has other work.
const PAUSE: Duration = Duration::from_millis(20);

/// A client that knows of a write reads it so often before it writes anew.
const READS_OF_A_WRITE: u64 = 10;

/// A node that is too far behind may answer for so long: a check each second, two that fail, the longest of which takes 4 s;
/// and what a busy machine adds, on which checks come late.
const NOTICED: Duration = Duration::from_secs(20);

/// How long readers may take for some reads, on a busy machine.
const SOON: Duration = Duration::from_secs(180);

/// Nodes that may answer.
pub const NODES: [&str; 3] = ["master", "r001", "r002"];

/// How a reader tells of the write that it knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// In X-Vski-Min-Position, as programs do.
    Header,
    /// By the cookie that the write's answer set, as browsers do.
    Cookie,
    /// Not at all: it has to expect stale answers.
    Nothing,
}

/// Reads that go on until [`Reads::stop`].
pub struct Reads {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Report>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Nodes that are too far behind, and since when.
    beyond: Mutex<BTreeMap<String, Instant>>,
    /// Plain reads that began when such a node should have been noticed.
    watched: AtomicUsize,
    /// Stale answers.
    stale: AtomicUsize,
}

/// What the reads met.
#[derive(Debug, Default)]
pub struct Report {
    /// Answers of each node.
    pub answered: BTreeMap<String, u64>,
    /// What went wrong, and when.
    pub failures: Vec<String>,
    /// Answers that were older than they may be, and when.
    pub stale: Vec<String>,
    /// Reads that told of a write and got 502, 503 or 504: no node that was up had it.
    pub refused: Vec<String>,
    /// The slowest answer.
    pub slowest: Duration,
}

/// A write that a reader knows of.
struct Known {
    path: String,
    position: String,
    cookie: String,
}

impl Reads {
    /// Starts to read a collection that has records: two readers that know nothing, two that know of writes of their own.
    pub fn start(client: &Client, collection: &str) -> Self {
        Self::by(client, collection, &[None, None, Some(Tells::Header), Some(Tells::Cookie)])
    }

    /// One reader for each that is named; `None` knows of no writes.
    pub fn by(client: &Client, collection: &str, readers: &[Option<Tells>]) -> Self {
        let shared = Arc::new(Shared::default());
        let reader = |tells: &Option<Tells>| {
            let mut reader = Reader {
                client: client.clone(),
                path: records(collection),
                shared: Arc::clone(&shared),
                began: Instant::now(),
                report: Report::default(),
            };
            let tells = *tells;
            std::thread::spawn(move || {
                match tells {
                    None => reader.read_plainly(),
                    Some(tells) => reader.read_what_it_wrote(tells),
                }
                reader.report
            })
        };
        let clients = readers.iter().map(reader).collect();
        Self { shared, clients }
    }

    /// From now on this node is too far behind to answer, until [`Reads::fresh`].
    pub fn beyond(&self, node: &str) {
        self.shared.beyond().insert(node.to_owned(), Instant::now());
    }

    /// The node may answer again.
    pub fn fresh(&self, node: &str) {
        self.shared.beyond().remove(node);
    }

    /// Waits for so many plain reads that a node which is too far behind must not answer.
    pub fn wait_watched(&self, reads: usize) -> Result<()> {
        let wanted = self.shared.watched.load(Ordering::Relaxed) + reads;
        eventually(&format!("{reads} reads beside a stale node"), SOON, || {
            Ok(self.shared.watched.load(Ordering::Relaxed) >= wanted)
        })
    }

    /// Waits for a stale answer: where one has to come, a reader that never notices any proves nothing.
    pub fn wait_stale(&self) -> Result<()> {
        eventually("a stale answer is noticed", SOON, || Ok(self.shared.stale.load(Ordering::Relaxed) > 0))
    }

    /// Stops reading, and fails unless every read was answered, by a node that was fresh enough, within `limit`.
    pub fn stop(self, limit: Duration) -> Result<Report> {
        let all = self.stop_without_master(limit)?;
        ensure!(all.refused.is_empty(), "{} reads were refused:\n{}", all.refused.len(), all.refused.join("\n"));
        Ok(all)
    }

    /// The same where the master was away for a while: nobody else may have had the newest write then.
    pub fn stop_without_master(self, limit: Duration) -> Result<Report> {
        let all = self.report()?;
        ensure!(all.failures.is_empty(), "{} reads failed:\n{}", all.failures.len(), all.failures.join("\n"));
        ensure!(all.stale.is_empty(), "{} answers were stale:\n{}", all.stale.len(), all.stale.join("\n"));
        ensure!(!all.answered.is_empty(), "nothing was read");
        ensure!(all.slowest <= limit, "a read took {:?}, more than {limit:?}", all.slowest);
        println!("      {:?}, {} refused, slowest {:?}", all.answered, all.refused.len(), all.slowest);
        Ok(all)
    }

    /// Stops reading.
    pub fn report(self) -> Result<Report> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Report::default();
        for client in self.clients {
            let one = client.join().map_err(|_| anyhow!("a reader panicked"))?;
            one.answered.into_iter().for_each(|(node, count)| *all.answered.entry(node).or_default() += count);
            all.failures.extend(one.failures);
            all.stale.extend(one.stale);
            all.refused.extend(one.refused);
            all.slowest = all.slowest.max(one.slowest);
        }
        Ok(all)
    }
}

impl Shared {
    fn beyond(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Instant>> {
        self.beyond.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

struct Reader {
    client: Client,
    /// Of the collection's records.
    path: String,
    shared: Arc<Shared>,
    began: Instant,
    report: Report,
}

impl Reader {
    fn read_plainly(&mut self) {
        let path = format!("{}?perPage=5", self.path);
        while !self.shared.stopped() {
            let asked = Instant::now();
            let overdue = |since: &Instant| asked.duration_since(*since) > NOTICED;
            let beyond: Vec<String> =
                self.shared.beyond().iter().filter(|(_, since)| overdue(since)).map(|(node, _)| node.clone()).collect();
            match read(&self.client, &path) {
                Ok(node) if beyond.contains(&node) => {
                    self.stale(format!("after {:?}: {node} is too far behind", self.began.elapsed()));
                }
                Ok(node) => *self.report.answered.entry(node).or_default() += 1,
                Err(error) => self.report.failures.push(format!("after {:?}: {error:#}", self.began.elapsed())),
            }
            if !beyond.is_empty() {
                self.shared.watched.fetch_add(1, Ordering::Relaxed);
            }
            self.pause(asked);
        }
    }

    fn read_what_it_wrote(&mut self, tells: Tells) {
        let mut known = None;
        for number in 0.. {
            if self.shared.stopped() {
                return;
            }
            if number % READS_OF_A_WRITE == 0 {
                // Without a master there is nothing newer to know of.
                known = self.write().or(known);
            }
            let asked = Instant::now();
            if let Some(known) = &known {
                self.read_known(known, tells);
            }
            self.pause(asked);
        }
    }

    /// A write that was acknowledged.
    fn write(&self) -> Option<Known> {
        let reply = self.client.send(Method::POST, &self.path, Some(&json!({"n": -1}))).ok()?.ok().ok()?;
        let cookie = reply.header("set-cookie")?.split(';').next()?.to_owned();
        let path = format!("{}/{}", self.path, reply.json().ok()?["id"].as_str()?);
        Some(Known { path, position: reply.position().ok()?.to_owned(), cookie })
    }

    fn read_known(&mut self, known: &Known, tells: Tells) {
        let answer = match tells {
            Tells::Header => self.client.with_header("x-vski-min-position", &known.position),
            Tells::Cookie => self.client.with_header("cookie", &known.cookie),
            Tells::Nothing => Ok(self.client.clone()),
        }
        .and_then(|client| client.get(&known.path));
        let after = self.began.elapsed();
        let told = |reply: &Reply| format!("after {after:?}: {reply:?}");
        match answer {
            Err(error) => self.report.failures.push(format!("after {after:?}: {error:#}")),
            Ok(reply) => match (reply.status, reply.header("x-replica-id")) {
                (200, Some(node)) => *self.report.answered.entry(node.to_owned()).or_default() += 1,
                (404, Some(_)) => self.stale(format!("{}: misses {}", told(&reply), known.position)),
                (502..=504, _) => self.report.refused.push(told(&reply)),
                _ => self.report.failures.push(told(&reply)),
            },
        }
    }

    fn stale(&mut self, what: String) {
        self.report.stale.push(what);
        self.shared.stale.fetch_add(1, Ordering::Relaxed);
    }

    fn pause(&mut self, asked: Instant) {
        self.report.slowest = self.report.slowest.max(asked.elapsed());
        std::thread::sleep(PAUSE);
    }
}

/// Reads once. Returns who answered.
pub fn read(client: &Client, path: &str) -> Result<String> {
    let reply = client.get(path)?;
    let node = reply.header("x-replica-id").with_context(|| format!("nobody's answer: {reply:?}"))?.to_owned();
    ensure!(NODES.contains(&node.as_str()), "the answer of a stranger: {reply:?}");
    ensure!(reply.status == 200, "{node} answered {}: {}", reply.status, reply.body);
    ensure!(reply.json()?["items"].as_array().is_some_and(|items| !items.is_empty()), "no rows: {}", reply.body);
    Ok(node)
}
