//! Copies of databases for replicas that have none.
//!
//! One connection holds a read transaction and copies on it: the copy is one moment's state however long it takes, and
//! writers go on. One copy per database at a time, shared by all who ask; a copy stays while it is leased, and every
//! request renews the lease.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use tokio_util::sync::CancellationToken;
use vski_replication::changelog::Standing;
use vski_replication::datadir::DataDir;
use vski_replication::lease::{LEASE, Lease};
use vski_replication::position::hex;
use vski_replication::snapshot::{CHUNK_BYTES, Manifest};
use vski_replication::{changelog, connection, fault};

use crate::metrics::Metrics;
use crate::store::error::StoreError;
use crate::store::reader::Reader;
use crate::store::replicable;

/// A copy younger than this is offered to the next who asks.
const SHARED_FOR: Duration = Duration::from_secs(60);

/// Pages copied between two looks at the disk.
const STEP_PAGES: i32 = 4096;

/// How often a lease that another process sees is renewed at most.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// How often copies are looked for that nobody asks for any more, where pruning does not look.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Free bytes that a copy leaves for the database itself, at most.
const FREE_MARGIN: u64 = 64 << 20;

/// On a small volume it leaves one part in so many of all its bytes.
const MARGIN_PARTS: u64 = 20;

/// How often a database is logged at most whose snapshots find no room.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// How far the write-ahead log may grow while a copy holds its read transaction, bytes.
const WAL_LIMIT: u64 = 4 << 30;

/// How many broken leases are remembered.
const BROKEN_LIMIT: usize = 64;

/// The copies on offer.
pub struct Snapshots {
    dir: DataDir,
    /// Whether another process prunes the log, and has to see the leases.
    agent_prunes: bool,
    metrics: Arc<Metrics>,
    leased: Mutex<HashMap<String, Leased>>,
    /// By database, where the copy stands that is being made: nobody has its lease yet.
    making: Mutex<HashMap<String, u64>>,
    /// Copies whose leases were broken, the last ones: whoever asks for one is told so.
    broken: Mutex<VecDeque<String>>,
    /// By database, when it was logged last that a copy finds no room.
    complained: Mutex<HashMap<String, Instant>>,
    /// One at a time per database.
    taking: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

struct Leased {
    manifest: Manifest,
    made: Instant,
    renewed: Instant,
    /// What the agent sees of it, on a replica, and when that was renewed.
    seen: Option<(Lease, Instant)>,
}

impl Leased {
    /// Starts the lease anew. `false`: the agent has broken it.
    fn renew(&mut self) -> bool {
        let now = Instant::now();
        self.renewed = now;
        match &mut self.seen {
            Some((lease, renewed)) if now.duration_since(*renewed) < RENEW_EVERY => !lease.is_broken(),
            Some((lease, renewed)) => {
                *renewed = now;
                lease.renew().unwrap_or_else(|error| {
                    tracing::warn!(%error, "a snapshot's lease cannot be renewed: the agent may prune what follows it");
                    true
                })
            }
            None => true,
        }
    }
}

impl Snapshots {
    /// Those of a master. Starts without copies: those of an earlier process are removed.
    pub fn new(dir: &DataDir, metrics: &Arc<Metrics>) -> std::io::Result<Self> {
        Self::start(dir, metrics, false)
    }

    /// Those of a replica, whose log the agent prunes.
    pub fn beside_agent(dir: &DataDir, metrics: &Arc<Metrics>) -> std::io::Result<Self> {
        Self::start(dir, metrics, true)
    }

    fn start(dir: &DataDir, metrics: &Arc<Metrics>, agent_prunes: bool) -> std::io::Result<Self> {
        for file in std::fs::read_dir(dir.snapshots())? {
            std::fs::remove_file(file?.path())?;
        }
        Ok(Self {
            dir: dir.clone(),
            agent_prunes,
            metrics: Arc::clone(metrics),
            leased: Mutex::default(),
            making: Mutex::default(),
            broken: Mutex::default(),
            complained: Mutex::default(),
            taking: Mutex::default(),
        })
    }

    /// A recent copy of the present history that has at least the entries up to `version`, or a new one.
    pub async fn take(self: &Arc<Self>, reader: &Reader, version: u64) -> Result<Manifest, StoreError> {
        let turn = {
            let mut taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(taking.entry(reader.name().to_owned()).or_default())
        };
        let _turn = turn.lock_owned().await;
        self.sweep();
        let (this, reader) = (Arc::clone(self), reader.clone());
        let taken = tokio::task::spawn_blocking(move || match this.recent(&reader, version)? {
            Some(manifest) => Ok(manifest),
            None => this.make(&reader),
        });
        taken.await.map_err(|_| StoreError::ShuttingDown)?
    }

    /// Removes copies that nobody asks for any more, until shutdown. On a master pruning does that.
    pub async fn keep(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(SWEEP_EVERY) => self.sweep(),
            }
        }
    }

    /// The file of a leased copy; the lease starts anew.
    pub fn renew(&self, id: &str) -> Option<PathBuf> {
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        let (lease, file) = (leased.get_mut(id)?, self.file(id));
        // Another server that was started on this directory has cleared what it found.
        if lease.renew() && file.exists() {
            return Some(file);
        }
        leased.remove(id);
        self.broke(id);
        None
    }

    /// Whether a copy is still on offer; its lease is not renewed.
    pub fn is_leased(&self, id: &str) -> bool {
        self.leased.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// Whether the lease of this copy was broken.
    pub fn is_broken(&self, id: &str) -> bool {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|broken| broken == id)
    }

    /// The version after which entries are still needed: by a copy that is leased or being made.
    pub fn oldest_needed(&self, db: &str) -> Option<u64> {
        self.sweep();
        let making = self.making.lock().unwrap_or_else(PoisonError::into_inner).get(db).copied();
        let leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        let held = leased.values().filter(|lease| lease.manifest.db == db).map(|lease| lease.manifest.position.version);
        held.chain(making).min()
    }

    /// Ends all leases of a database whose log has grown to `log_bytes` for their sake.
    pub fn break_leases(&self, db: &str, log_bytes: u64) {
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        leased.retain(|id, lease| {
            if lease.manifest.db != db {
                return true;
            }
            let version = lease.manifest.position.version;
            tracing::warn!(db, id, version, log_bytes, "snapshot lease broken: the log grew too large meanwhile");
            self.broke(id);
            false
        });
    }

    /// Removes a copy, and remembers that whoever had its lease has not let it end.
    fn broke(&self, id: &str) {
        self.remove(id);
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.push_back(id.to_owned());
        if broken.len() > BROKEN_LIMIT {
            broken.pop_front();
        }
    }

    fn remove(&self, id: &str) {
        if let Err(error) = std::fs::remove_file(self.file(id))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, id, "could not remove a snapshot whose lease has ended");
        }
    }

    /// A copy to share. One whose position the log does not lead on from is none: a replica that has converged since then
    /// has another history, and whoever took such a copy would be sent away with it.
    fn recent(&self, reader: &Reader, version: u64) -> Result<Option<Manifest>, StoreError> {
        let conn = reader.dedicated()?;
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        for lease in leased.values_mut() {
            let Manifest { id, db, position, .. } = &lease.manifest;
            let fits = db == reader.name() && position.version >= version && lease.made.elapsed() < SHARED_FOR;
            if !fits || !self.file(id).exists() {
                continue;
            }
            let leads_on = matches!(changelog::standing(&conn, *position)?, Standing::AtHead | Standing::Behind);
            if leads_on && lease.renew() {
                return Ok(Some(lease.manifest.clone()));
            }
        }
        Ok(None)
    }

    /// Removes copies that nobody asked for any more.
    fn sweep(&self) {
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        leased.retain(|id, lease| {
            if lease.seen.as_ref().is_some_and(|(lease, _)| lease.is_broken()) {
                self.broke(id);
                return false;
            }
            let keep = lease.renewed.elapsed() < LEASE;
            if !keep {
                self.remove(id);
            }
            keep
        });
    }

    fn make(&self, reader: &Reader) -> Result<Manifest, StoreError> {
        let started = Instant::now();
        let id: String = hex(&rand::random::<[u8; 8]>());
        let path = self.file(&id);
        let made = self.copy(reader, &id).and_then(|seen| Ok((describe(&id, reader.name(), &path)?, seen)));
        let (manifest, seen) = match made {
            Ok(made) => made,
            Err(error) => {
                self.made(reader.name());
                // A half copy is of no use; what matters is the first error.
                let _ = std::fs::remove_file(&path);
                self.complain(&error);
                return Err(error);
            }
        };
        self.complained.lock().unwrap_or_else(PoisonError::into_inner).remove(reader.name());
        self.metrics.snapshots.with_label_values(&[reader.name()]).inc();
        tracing::info!(
            db = manifest.db,
            bytes = manifest.size,
            version = manifest.position.version,
            seconds = started.elapsed().as_secs_f64(),
            "snapshot made"
        );
        let now = Instant::now();
        let seen = seen.map(|lease| (lease, now));
        let lease = Leased { manifest: manifest.clone(), made: now, renewed: now, seen };
        self.leased.lock().unwrap_or_else(PoisonError::into_inner).insert(id, lease);
        self.made(reader.name());
        Ok(manifest)
    }

    fn made(&self, db: &str) {
        self.making.lock().unwrap_or_else(PoisonError::into_inner).remove(db);
    }

    fn copy(&self, reader: &Reader, id: &str) -> Result<Option<Lease>, StoreError> {
        let path = &self.file(id);
        let source = reader.dedicated()?;
        let transaction = source.unchecked_transaction()?;
        // The first read starts the transaction; the backup then copies what it sees.
        let pages: i64 = transaction.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let version = changelog::head(&transaction)?.position.version;
        self.making.lock().unwrap_or_else(PoisonError::into_inner).insert(reader.name().to_owned(), version);
        let begin = || Lease::begin(&self.dir, id, reader.name(), version).map_err(|error| unwritable(path, &error));
        let lease = self.agent_prunes.then(begin).transpose()?;
        if let Some(problems) = replicable::problems(&transaction)? {
            return Err(StoreError::Unreplicable { name: reader.name().to_owned(), problems });
        }
        let page_size: i64 = transaction.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let needed = u64::try_from(pages.saturating_mul(page_size)).unwrap_or(0);
        self.check_space(reader.name(), needed)?;
        let copied = self.copy_pages(&transaction, reader, path, u64::try_from(page_size).unwrap_or(0));
        // SQLite knows only that it is full.
        copied.map_err(|error| match (error, self.dir.free_bytes()) {
            (StoreError::DiskFull, Ok(free)) => StoreError::NoRoom { db: reader.name().to_owned(), needed, free },
            (error, _) => error,
        })?;
        drop(transaction);
        let synced = fault::io("snapshot:fsync").and_then(|()| File::open(path)).and_then(|file| file.sync_all());
        synced.map_err(|error| unreadable(path, &error))?;
        Ok(lease)
    }

    fn copy_pages(&self, source: &Connection, reader: &Reader, path: &Path, page_size: u64) -> Result<(), StoreError> {
        fault::sql("snapshot:begin")?;
        let mut target = Connection::open(path)?;
        target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE")?;
        let backup = Backup::new(source, &mut target)?;
        loop {
            fault::sql("snapshot:step")?;
            match backup.step(STEP_PAGES)? {
                StepResult::Done => break,
                StepResult::More => {
                    let left = u64::try_from(backup.progress().remaining).unwrap_or(0);
                    self.check_space(reader.name(), left.saturating_mul(page_size))?;
                    check_wal(reader.path())?;
                }
                _ => std::thread::yield_now(),
            }
        }
        drop(backup);
        Ok(target.close().map_err(|(_, error)| error)?)
    }

    /// Whether `bytes` more fit, and the margin besides.
    fn check_space(&self, db: &str, bytes: u64) -> Result<(), StoreError> {
        let needed = bytes.saturating_add(margin(self.dir.volume_bytes()?));
        let free = self.dir.free_bytes()?;
        if free < needed { Err(StoreError::NoRoom { db: db.to_owned(), needed, free }) } else { Ok(()) }
    }

    /// Logs that there is no room, once until there is, and now and then while there is none.
    fn complain(&self, error: &StoreError) {
        let StoreError::NoRoom { db, needed, free } = error else { return };
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.get(db).is_some_and(|last| last.elapsed() < COMPLAIN_EVERY) {
            return;
        }
        complained.insert(db.clone(), Instant::now());
        tracing::warn!(
            db,
            needed_bytes = needed,
            free_bytes = free,
            "no room for a snapshot on DATA_DIR's file system: replicas that need one wait"
        );
    }

    fn file(&self, id: &str) -> PathBuf {
        self.dir.snapshots().join(format!("{id}.db"))
    }
}

/// Free bytes that a copy leaves on a volume of `total` bytes.
fn margin(total: u64) -> u64 {
    FREE_MARGIN.min(total / MARGIN_PARTS)
}

fn check_wal(database: &Path) -> Result<(), StoreError> {
    if connection::wal_bytes(database) > WAL_LIMIT {
        tracing::warn!(limit_bytes = WAL_LIMIT, "a snapshot was given up: the write-ahead log grew too far meanwhile");
        return Err(StoreError::Overloaded);
    }
    Ok(())
}

/// Checks the finished copy once and says what each part of it hashes to.
fn describe(id: &str, db: &str, path: &Path) -> Result<Manifest, StoreError> {
    fault::sql("snapshot:describe")?;
    let copy = connection::finished_copy(path)?;
    let verdict: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        tracing::error!(db, verdict, "the database is damaged: restore it from a replica or a backup");
        return Err(StoreError::Invalid(format!("database {db} is damaged: {verdict}")));
    }
    let (database_id, position) = (changelog::database_id(&copy)?, changelog::head(&copy)?.position);
    drop(copy);
    let (size, chunks, blake3) = hash_chunks(path).map_err(|error| unreadable(path, &error))?;
    let manifest = Manifest {
        id: id.to_owned(),
        db: db.to_owned(),
        database_id,
        position,
        size,
        chunks,
        blake3,
        sha256: String::new(),
    };
    Ok(manifest.sealed())
}

fn hash_chunks(path: &Path) -> std::io::Result<(u64, Vec<String>, String)> {
    let mut file = File::open(path)?;
    let (mut size, mut chunks, mut whole) = (0, Vec::new(), blake3::Hasher::new());
    loop {
        let mut chunk = Vec::new();
        Read::by_ref(&mut file).take(CHUNK_BYTES).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            return Ok((size, chunks, whole.finalize().to_hex().to_string()));
        }
        size += chunk.len() as u64;
        whole.update(&chunk);
        chunks.push(blake3::hash(&chunk).to_hex().to_string());
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Invalid(format!("the snapshot {} cannot be leased: {error}", path.display()))
}

fn unreadable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Invalid(format!("the snapshot {} cannot be read back: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_leaves_a_margin_that_fits_the_volume() {
        for (volume, left) in [(0, 0), (40 << 20, 2 << 20), (1 << 30, (1 << 30) / 20), (1 << 40, 64 << 20)] {
            assert_eq!(margin(volume), left);
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_both_numbers_and_whose_volume_it_is() {
        let keep = tempfile::tempdir().unwrap();
        let dir = DataDir::open(keep.path()).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let snapshots = Snapshots::new(&dir, &metrics).unwrap();
        snapshots.check_space("shop", 0).unwrap();
        let error = snapshots.check_space("shop", u64::MAX / 2).unwrap_err();
        let StoreError::NoRoom { needed, free, .. } = error else { panic!("{error}") };
        let said = error.to_string();
        for part in [needed.to_string(), free.to_string(), "shop".to_owned(), "the node that makes it".to_owned()] {
            assert!(said.contains(&part), "{said}");
        }
        snapshots.complain(&error);
        assert!(snapshots.complained.lock().unwrap().contains_key("shop"));
    }
}
