//! Reads through a load balancer, again and again, by clients that keep their connections: none may fail, none may be
//! answered by somebody else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::client::{Client, records};

/// So many clients read at once.
const CLIENTS: usize = 3;

/// Pause of a client between two reads: faults last for seconds, and the machine has other work.
const PAUSE: Duration = Duration::from_millis(20);

/// Nodes that may answer.
pub const NODES: [&str; 3] = ["master", "r001", "r002"];

/// Reads that go on until [`Reads::stop`].
pub struct Reads {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Report>>,
}

/// What the reads met.
#[derive(Debug, Default)]
pub struct Report {
    /// Answers of each node.
    pub answered: BTreeMap<String, u64>,
    /// What went wrong, and when.
    pub failures: Vec<String>,
    /// The slowest answer.
    pub slowest: Duration,
}

impl Reads {
    /// Starts to read a collection that has records.
    pub fn start(client: &Client, collection: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let path = format!("{}?perPage=5", records(collection));
        let reader = |_| {
            let (client, path, stop) = (client.clone(), path.clone(), Arc::clone(&stop));
            std::thread::spawn(move || read_until(&client, &path, &stop))
        };
        let clients = (0..CLIENTS).map(reader).collect();
        Self { stop, clients }
    }

    /// Stops reading, and fails unless every read was answered, by a node, within `limit`.
    pub fn stop(self, limit: Duration) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Report::default();
        for client in self.clients {
            let one = client.join().map_err(|_| anyhow!("a reader panicked"))?;
            one.answered.into_iter().for_each(|(node, count)| *all.answered.entry(node).or_default() += count);
            all.failures.extend(one.failures);
            all.slowest = all.slowest.max(one.slowest);
        }
        ensure!(all.failures.is_empty(), "{} reads failed:\n{}", all.failures.len(), all.failures.join("\n"));
        ensure!(!all.answered.is_empty(), "nothing was read");
        ensure!(all.slowest <= limit, "a read took {:?}, more than {limit:?}", all.slowest);
        Ok(all)
    }
}

fn read_until(client: &Client, path: &str, stop: &AtomicBool) -> Report {
    let (mut report, began) = (Report::default(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        match read(client, path) {
            Ok(node) => *report.answered.entry(node).or_default() += 1,
            Err(error) => report.failures.push(format!("after {:?}: {error:#}", began.elapsed())),
        }
        report.slowest = report.slowest.max(asked.elapsed());
        std::thread::sleep(PAUSE);
    }
    report
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
