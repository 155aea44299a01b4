//! One background thread creates, changes and deletes records, one after another, and keeps a `Ledger`: for each id,
//! the values it may have. An answered write leaves one value; a write without an answer (the connection broke, the
//! node was stopping) leaves the old and the new one, and its record is not touched again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, records};
use crate::eventually;

/// How long the writer waits for a node that was killed, and a scenario for writes: a container that is stopped, made anew
/// and started on a busy machine is away for longer than a process.
const BACK: Duration = Duration::from_secs(240);

/// A writer that was refused waits for so long, as any client should.
const REFUSED: Duration = Duration::from_millis(50);

/// The fields that a collection needs to be written to.
pub const FIELDS: [(&str, &str); 2] = [("n", "number"), ("note", "text")];

/// A running writer.
pub struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Ledger>>,
}

#[derive(Default)]
struct Shared {
    /// Set once, by [`Load::stop`].
    stop: AtomicBool,
    /// Writes that were answered with success.
    acknowledged: AtomicU64,
}

/// What the records of a collection may be: `n`, or `None` for no record.
#[derive(Debug)]
pub struct Ledger {
    collection: String,
    possible: BTreeMap<String, BTreeSet<Option<i64>>>,
}

/// A record that a node does not hold as it was acknowledged.
#[derive(Debug)]
pub struct Differing {
    /// Its id.
    pub id: String,
    /// `n` of what the node holds.
    pub held: Option<i64>,
    /// `n` of what was acknowledged, or may have been written.
    pub possible: BTreeSet<Option<i64>>,
}

/// The seed of a random run: `VSKI_SEED`, or a new one. Printed, so that a failure can be repeated.
pub fn seed() -> Result<u64> {
    let seed = match std::env::var("VSKI_SEED") {
        Ok(text) => text.parse().with_context(|| format!("VSKI_SEED={text} is no number"))?,
        Err(_) => rand::random(),
    };
    println!("VSKI_SEED={seed}");
    Ok(seed)
}

impl Load {
    /// Starts writing to a collection that has [`FIELDS`] and that nobody else writes to.
    #[must_use]
    pub fn start(client: Client, collection: &str, seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            client,
            shared: Arc::clone(&shared),
            random: StdRng::seed_from_u64(seed),
            present: Vec::new(),
            numbers: 0,
            ledger: Ledger { collection: collection.to_owned(), possible: BTreeMap::new() },
        };
        Self { shared, thread: std::thread::spawn(|| writer.run()) }
    }

    /// Waits until that many more writes are acknowledged.
    pub fn wait_for(&self, more: u64) -> Result<()> {
        let wanted = self.shared.acknowledged.load(Ordering::Relaxed) + more;
        eventually(&format!("{more} more writes are acknowledged"), BACK, || {
            ensure!(!self.thread.is_finished(), "the writer has ended: Load::stop says why");
            Ok(self.shared.acknowledged.load(Ordering::Relaxed) >= wanted)
        })
    }

    /// Stops writing.
    pub fn stop(self) -> Result<Ledger> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        let ledger = ended.context("the background writer failed")?;
        println!("{} writes acknowledged", self.shared.acknowledged.load(Ordering::Relaxed));
        Ok(ledger)
    }
}

impl Ledger {
    /// Fails unless a node that is at rest holds exactly what was acknowledged.
    pub fn check(&self, client: &Client) -> Result<()> {
        let differing = self.differing(client)?;
        ensure!(differing.is_empty(), "records that are not as they were acknowledged: {differing:?}");
        Ok(())
    }

    /// Records that a node at rest does not hold as they were acknowledged.
    pub fn differing(&self, client: &Client) -> Result<Vec<Differing>> {
        let mut found = BTreeMap::new();
        for record in client.all_records(&self.collection)? {
            let (id, n) = (record["id"].as_str().context("a record without id")?, number(&record)?);
            ensure!(record["note"] == note(n), "record {id} is mixed of two writes: {record}");
            found.insert(id.to_owned(), n);
        }
        let held = self.possible.iter().map(|(id, possible)| Differing {
            id: id.clone(),
            held: found.remove(id),
            possible: possible.clone(),
        });
        let differing = held.filter(|record| !record.possible.contains(&record.held)).collect();
        ensure!(found.is_empty(), "records that nobody wrote: {found:?}");
        Ok(differing)
    }
}

struct Writer {
    client: Client,
    shared: Arc<Shared>,
    random: StdRng,
    /// Ids of the records that are there for certain.
    present: Vec<String>,
    /// The last `n` that was used: each write has its own.
    numbers: i64,
    ledger: Ledger,
}

impl Writer {
    fn run(mut self) -> Result<Ledger> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            match self.random.random_range(0..10) {
                0..6 => self.create()?,
                6..9 => self.update()?,
                _ => self.delete()?,
            }
        }
        Ok(self.ledger)
    }

    fn create(&mut self) -> Result<()> {
        let id: String = (0..15).map(|_| char::from(b'a' + self.random.random_range(0..26_u8))).collect();
        let (n, mut record) = self.next_record();
        record["id"] = json!(id);
        let path = records(&self.ledger.collection);
        self.write(Method::POST, &path, Some(&record), id, Some(n))
    }

    fn update(&mut self) -> Result<()> {
        let Some(id) = self.take() else { return self.create() };
        let (n, record) = self.next_record();
        let path = format!("{}/{id}", records(&self.ledger.collection));
        self.write(Method::PATCH, &path, Some(&record), id, Some(n))
    }

    fn delete(&mut self) -> Result<()> {
        let Some(id) = self.take() else { return self.create() };
        let path = format!("{}/{id}", records(&self.ledger.collection));
        self.write(Method::DELETE, &path, None, id, None)
    }

    /// Takes one of the records that are there for certain; [`Writer::write`] puts it back if it still is.
    fn take(&mut self) -> Option<String> {
        let count = self.present.len();
        (count > 0).then(|| self.present.swap_remove(self.random.random_range(0..count)))
    }

    fn next_record(&mut self) -> (i64, Value) {
        self.numbers += 1;
        (self.numbers, json!({"n": self.numbers, "note": note(self.numbers)}))
    }

    fn write(&mut self, method: Method, path: &str, body: Option<&Value>, id: String, n: Option<i64>) -> Result<()> {
        let unknown = || BTreeSet::from([None]);
        match self.client.send(method.clone(), path, body) {
            Ok(reply) if (200..300).contains(&reply.status) => {
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                self.ledger.possible.insert(id.clone(), BTreeSet::from([n]));
                if n.is_some() {
                    self.present.push(id);
                }
                Ok(())
            }
            Ok(reply) if !matches!(reply.status, 502..=504) => {
                bail!("{method} {path} answered {}: {}", reply.status, reply.body)
            }
            // Stopping, overloaded or gone, or so says a load balancer: the write may have happened or not.
            Ok(_) | Err(_) => {
                self.ledger.possible.entry(id).or_insert_with(unknown).insert(n);
                std::thread::sleep(REFUSED);
                self.wait_until_back()
            }
        }
    }

    fn wait_until_back(&self) -> Result<()> {
        eventually("the master takes writes again", BACK, || {
            Ok(self.shared.stop.load(Ordering::Relaxed) || self.client.get("/livez")?.status == 200)
        })
    }
}

/// Text that belongs to a number, with characters of every UTF-8 length: half a write would show.
fn note(n: i64) -> String {
    format!("note {n} é € 😀 {}", "x".repeat(usize::try_from(n % 200).unwrap_or_default()))
}

/// `n`, which a node may print as an integer or as a floating-point number.
fn number(record: &Value) -> Result<i64> {
    let n = &record["n"];
    let whole = || n.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 1e15).map(|n| n as i64);
    n.as_i64().or_else(whole).with_context(|| format!("n of {record} is no whole number"))
}
