//! All databases of a master. Only the process that holds the directory's lock has one of these.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use rustix::fs::Access;
use rustix::io::Errno;
use tokio::sync::watch;
use tracing::Instrument;
use vski_replication::datadir::DataDir;
use vski_replication::names;
use vski_replication::node::NodeDb;

use super::database::{self, Before, Database};
use super::error::{NOT_UNIQUE, StoreError};
use super::files::Uploads;
use super::fingerprint;
use super::reader::Reader;
use super::request::Written;
use super::tombstones;
use super::writer::QUEUE_LIMIT;
use crate::metrics::Metrics;

/// The databases, open for writing.
pub struct Master {
    dir: DataDir,
    metrics: Arc<Metrics>,
    /// Requests that may wait for each database.
    write_queue: u32,
    uploads: Uploads,
    databases: RwLock<BTreeMap<String, Database>>,
    /// Files that could not be opened at start, by database, with the reason and the repair. They stay untouched.
    unusable: BTreeMap<String, String>,
    /// Databases that were deleted: their files stay untouched, and their names taken.
    deleted: RwLock<BTreeSet<String>>,
    /// Who writes, by database.
    threads: Mutex<BTreeMap<String, JoinHandle<()>>>,
    /// One database is deleted or restored at a time.
    changing: tokio::sync::Mutex<()>,
    /// Whether a replica is taking over: until a restart, or until it gives up.
    handed_over: AtomicBool,
    /// Wakes whoever waits for a change of the set.
    changed: watch::Sender<()>,
}

impl Master {
    /// Opens every database in the directory, and makes `default` where none ever was. Another one that is lost or cannot
    /// be opened is told and left alone, and the rest is served; without `default` nobody could log in, so that is an
    /// error.
    pub fn open(dir: &DataDir, metrics: &Arc<Metrics>) -> Result<Self, StoreError> {
        Self::open_with(dir, metrics, QUEUE_LIMIT)
    }

    /// The same, where each database lets `write_queue` requests wait.
    pub fn open_with(dir: &DataDir, metrics: &Arc<Metrics>, write_queue: u32) -> Result<Self, StoreError> {
        let mut master = Self {
            dir: dir.clone(),
            metrics: Arc::clone(metrics),
            write_queue,
            uploads: Uploads::new(dir),
            databases: RwLock::default(),
            unusable: BTreeMap::new(),
            deleted: RwLock::default(),
            threads: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            handed_over: AtomicBool::new(false),
            changed: watch::Sender::new(()),
        };
        let mut node = NodeDb::open(dir)?;
        let mut fingerprints = node.take_fingerprints()?;
        let known = node.known()?;
        let mut names: BTreeSet<String> = dir.databases()?.into_iter().collect();
        names.extend(known.keys().cloned());
        // First: it says which of the others are deleted.
        names.remove(names::DEFAULT_DATABASE);
        for name in std::iter::once(names::DEFAULT_DATABASE.to_owned()).chain(names) {
            if read(&master.deleted).contains(&name) {
                continue;
            }
            let known = known.get(&name).copied();
            let opened = match look(dir, &name, known) {
                Ok(Found::NeverMade) => {
                    node.give_up(&name)?;
                    continue;
                }
                Ok(Found::Usable) => {
                    let before = Before { made: known == Some(true), left: fingerprints.remove(&name) };
                    master.remembered(&node, &name, &before)
                }
                Err(lost) => Err(lost),
            };
            match opened {
                Err(error) if is_the_files_fault(&error) => master.put_aside(name, &error)?,
                opened => opened?,
            }
            if read(&master.deleted).is_empty()
                && let Ok(default) = master.reader(names::DEFAULT_DATABASE)
            {
                *write(&master.deleted) = tombstones::all(&default.dedicated()?)?;
            }
        }
        Ok(master)
    }

    /// The directory.
    pub fn dir(&self) -> &DataDir {
        &self.dir
    }

    /// Where uploaded files go.
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// One database.
    pub fn database(&self, name: &str) -> Result<Database, StoreError> {
        self.of(name, Database::clone)
    }

    /// Its reader.
    pub fn reader(&self, name: &str) -> Result<Reader, StoreError> {
        self.of(name, |database| database.reader.clone())
    }

    /// Something of one database, with the list of them locked.
    fn of<T>(&self, name: &str, take: impl FnOnce(&Database) -> T) -> Result<T, StoreError> {
        let databases = read(&self.databases);
        let unusable = |reason: &String| StoreError::Unusable { name: name.to_owned(), reason: reason.clone() };
        let deleted = || read(&self.deleted).contains(name);
        let reason = || self.unusable.get(name).filter(|_| !deleted());
        databases.get(name).map(take).ok_or_else(|| reason().map_or_else(|| unknown(name), unusable))
    }

    /// The databases whose files could not be opened, with the reason and the repair.
    pub fn unusable(&self) -> &BTreeMap<String, String> {
        &self.unusable
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Database> {
        self.databases.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Wakes when a database appears.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Makes a database. Blocks on the disk.
    pub fn create(&self, name: &str) -> Result<Written<()>, StoreError> {
        check_name(name)?;
        if let Some(taken) = read(&self.deleted).iter().find(|taken| taken.eq_ignore_ascii_case(name)) {
            let message =
                format!("database {taken} was deleted, and its name stays its own: restore it, or choose another");
            return Err(StoreError::field("name", NOT_UNIQUE, message));
        }
        let open = self.all().into_iter().map(|database| database.name);
        let taken = open.chain(self.unusable.keys().cloned()).find(|taken| taken.eq_ignore_ascii_case(name));
        if let Some(taken) = taken {
            let message = format!("database {taken} exists already");
            return Err(StoreError::field("name", NOT_UNIQUE, message));
        }
        self.remembered(&NodeDb::open(&self.dir)?, name, &Before::default())?;
        let head = *self.database(name)?.writer.head().borrow();
        Ok(Written { value: (), head })
    }

    /// The names of deleted databases.
    pub fn deleted(&self) -> Vec<String> {
        read(&self.deleted).iter().cloned().collect()
    }

    /// Deletes a database: nobody is served it any more, and its files stay as they are. Once begun it is finished, also
    /// when the caller goes away: what is in memory and what is stored must tell the same.
    pub async fn delete(self: &Arc<Self>, name: &str) -> Result<Written<()>, StoreError> {
        let (this, name) = (Arc::clone(self), name.to_owned());
        finished(async move { this.delete_now(&name).await }).await
    }

    async fn delete_now(&self, name: &str) -> Result<Written<()>, StoreError> {
        if name == names::DEFAULT_DATABASE {
            return Err(StoreError::Invalid(format!("{name} holds the admins and cannot be deleted")));
        }
        let _alone = self.changing.lock().await;
        match self.database(name) {
            Ok(_) | Err(StoreError::Unusable { .. }) => {}
            Err(error) => return Err(error),
        }
        let writer = self.database(names::DEFAULT_DATABASE)?.writer;
        let wanted = name.to_owned();
        let written = writer.rows(name.len(), move |conn| tombstones::add(conn, &wanted)).await?;
        write(&self.deleted).insert(name.to_owned());
        self.let_go(name).await;
        tracing::info!(db = name, "deleted: its files stay in place");
        Ok(written)
    }

    /// Serves a deleted database again, as it was. Once begun it is finished or undone, also when the caller goes away.
    pub async fn restore(self: &Arc<Self>, name: &str) -> Result<Written<()>, StoreError> {
        let (this, name) = (Arc::clone(self), name.to_owned());
        finished(async move { this.restore_now(&name).await }).await
    }

    async fn restore_now(self: &Arc<Self>, name: &str) -> Result<Written<()>, StoreError> {
        let _alone = self.changing.lock().await;
        if !read(&self.deleted).contains(name) {
            return Err(StoreError::NotFound(format!("there is no deleted database {name:?}")));
        }
        let (this, db) = (Arc::clone(self), name.to_owned());
        let opened = tokio::task::spawn_blocking(move || {
            look(&this.dir, &db, Some(true))?;
            this.insert(&db, &Before { made: true, left: None })
        });
        opened.await.map_err(|_| StoreError::ShuttingDown)??;
        let writer = self.database(names::DEFAULT_DATABASE)?.writer;
        let wanted = name.to_owned();
        let written = match writer.rows(name.len(), move |conn| tombstones::remove(conn, &wanted)).await {
            Ok(written) => written,
            Err(error) => {
                // It is still deleted: what is written to it now would be gone with the next start.
                self.let_go(name).await;
                return Err(error);
            }
        };
        write(&self.deleted).remove(name);
        self.changed.send_replace(());
        tracing::info!(db = name, "restored");
        Ok(written)
    }

    /// Serves a database no longer. What is queued is finished; then nobody has its file open for writing.
    async fn let_go(&self, name: &str) {
        write(&self.databases).remove(name);
        self.changed.send_replace(());
        let thread = self.threads.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(thread) = thread {
            let ended = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!(db = name, "a writer thread panicked; its last transaction was rolled back");
            }
        }
    }

    /// Takes no more writes, because a replica is taking over. Once this has returned no head moves any more, so that
    /// the replica can have everything that was ever acknowledged.
    pub async fn hand_over(&self) -> Result<(), StoreError> {
        self.handed_over.store(true, Ordering::Release);
        for database in self.all() {
            if let Err(error) = database.writer.close().await {
                self.take_writes();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes writes again.
    pub fn take_writes(&self) {
        self.handed_over.store(false, Ordering::Release);
        self.all().iter().for_each(|database| database.writer.reopen());
    }

    /// Lets the writer threads finish what is queued, waits for them, and records what the closed files look like.
    pub fn close(&self) {
        let names: Vec<String> = self.all().into_iter().map(|database| database.name).collect();
        self.databases.write().unwrap_or_else(PoisonError::into_inner).clear();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, thread) in threads {
            if thread.join().is_err() {
                tracing::error!("a writer thread panicked; its last transaction was rolled back");
                return;
            }
        }
        let prints = names.into_iter().filter_map(|name| Some((fingerprint::of(&self.dir.database(&name))?, name)));
        let prints = prints.map(|(print, name)| (name, print)).collect();
        if let Err(error) = NodeDb::open(&self.dir).and_then(|mut node| node.set_fingerprints(&prints)) {
            tracing::warn!(%error, "could not record what the databases look like: edits until the next start will not show");
        }
    }

    /// Remembers a database whose file is of no use.
    fn put_aside(&mut self, name: String, error: &StoreError) -> Result<(), StoreError> {
        let reason = error.describe();
        let remedy = match unwritable(&self.dir.database(&name)) {
            Some(user) => format!("give all of DATA_DIR to that user (chown -R {user}); then restart"),
            None => format!(
                "restore it from a replica's file or a backup, repair it, or give it up (move what is left of it away, \
                 and: vski-server forget {name}); then restart"
            ),
        };
        if name == names::DEFAULT_DATABASE {
            return Err(StoreError::Invalid(format!("{reason}; {remedy}")));
        }
        tracing::error!(db = name, error = reason, remedy, "a database cannot be used; the others are served");
        // Where the directory lies is no client's business.
        let reason = reason.replace(&format!("{}/", self.dir.root().display()), "");
        self.unusable.insert(name, format!("{reason}; {remedy}"));
        Ok(())
    }

    /// Opens a database, or makes it, and sees to it that it is missed from then on.
    fn remembered(&self, node: &NodeDb, name: &str, before: &Before) -> Result<(), StoreError> {
        if !before.made {
            node.remember_making(name)?;
        }
        self.insert(name, before)?;
        if !before.made {
            node.remember_made(name)?;
        }
        Ok(())
    }

    fn insert(&self, name: &str, before: &Before) -> Result<(), StoreError> {
        // Held while opening: two requests for one name must not open its file twice.
        let mut databases = self.databases.write().unwrap_or_else(PoisonError::into_inner);
        if databases.contains_key(name) {
            return Ok(());
        }
        if self.handed_over.load(Ordering::Acquire) {
            return Err(StoreError::HandedOver);
        }
        let (database, thread) = database::open(&self.dir, name, &self.metrics, before, self.write_queue)?;
        databases.insert(name.to_owned(), database);
        drop(databases);
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), thread);
        self.changed.send_replace(());
        Ok(())
    }
}

/// Does something to its end, whether or not it is waited for.
async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(work.in_current_span()).await.map_err(|_| StoreError::ShuttingDown)?
}

/// What is behind these locks is whole after each statement, so a panic elsewhere does not make it unusable.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// What a look at a database's file says before it is opened.
enum Found {
    /// It can be opened, or made.
    Usable,
    /// Its maker was killed before there was a file: nobody was told of it.
    NeverMade,
}

/// Looks for the file of a database. Where it was made before (`known`), or where it is no `default` that has yet to be
/// made, a file that is gone or has no bytes is an error: to open it would put a new database in its place.
fn look(dir: &DataDir, name: &str, known: Option<bool>) -> Result<Found, StoreError> {
    let path = dir.database(name);
    let shown = path.display();
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => match known {
            Some(true) => Err(StoreError::Invalid(format!("{shown} is gone, and this master had that database"))),
            _ if name == names::DEFAULT_DATABASE => Ok(Found::Usable),
            _ => Ok(Found::NeverMade),
        },
        Ok(file) if file.len() == 0 && known != Some(false) && (known.is_some() || name != names::DEFAULT_DATABASE) => {
            Err(StoreError::Invalid(format!("{shown} is an empty file")))
        }
        // As a backup is that another user put back. SQLite would open it, and refuse the first write.
        Ok(_) => unwritable(&path).map_or(Ok(Found::Usable), |user| {
            Err(StoreError::Invalid(format!("user {user}, who runs this, may not write {shown}")))
        }),
        // What cannot be looked at is told when it is opened.
        Err(_) => Ok(Found::Usable),
    }
}

/// The user of this process, if the system does not let it read and write a file.
fn unwritable(file: &Path) -> Option<u32> {
    let refused = rustix::fs::access(file, Access::READ_OK | Access::WRITE_OK) == Err(Errno::ACCESS);
    refused.then(|| rustix::process::geteuid().as_raw())
}

/// Whether trying again cannot help: unlike a lock that is held or a disk that is full.
fn is_the_files_fault(error: &StoreError) -> bool {
    matches!(error, StoreError::Invalid(_) | StoreError::Damaged(_) | StoreError::Sqlite(_) | StoreError::Log(_))
}

/// The error for a database that does not exist.
pub fn unknown(name: &str) -> StoreError {
    StoreError::NotFound(format!("there is no database {name:?}"))
}

fn check_name(name: &str) -> Result<(), StoreError> {
    if !names::is_database_name(name) {
        return Err(StoreError::field(
            "name",
            "validation_invalid_name",
            format!("must be {}", names::DATABASE_NAME_RULE),
        ));
    }
    if names::NODE_LOCAL_DATABASES.iter().any(|local| local.eq_ignore_ascii_case(name)) {
        let message = format!("{name} is kept by each node for itself: choose another name");
        return Err(StoreError::field("name", "validation_reserved_name", message));
    }
    Ok(())
}
