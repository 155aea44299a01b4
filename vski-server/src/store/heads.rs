//! The heads of databases that another process writes, for those who wait for one: one thread per database reads its
//! head every few milliseconds while somebody waits, however many they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::watch;
use vski_replication::changelog::{self, Head};

use super::error::StoreError;
use super::reader::Reader;

/// Time between two looks at a log.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// `None` while there is no database to look at.
type Sender = watch::Sender<Option<Head>>;

/// The databases whose heads are waited for now.
#[derive(Clone, Default)]
pub struct Heads {
    watched: Arc<Mutex<BTreeMap<String, Sender>>>,
}

impl Heads {
    /// The head of a database, and a wake-up for each new one. `reader` is asked at each look: a file that is to be set
    /// aside is let go of, and one that takes its place is found.
    pub fn watch(
        &self,
        db: &str,
        reader: impl Fn() -> Result<Reader, StoreError> + Send + 'static,
    ) -> watch::Receiver<Option<Head>> {
        let mut watched = self.watched();
        if let Some(sender) = watched.get(db) {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(None);
        watched.insert(db.to_owned(), sender.clone());
        let (heads, name) = (self.clone(), db.to_owned());
        // No thread of the runtime's: it may wait for as long as a replica follows this one.
        let spawned = std::thread::Builder::new().name("heads".to_owned()).spawn(move || {
            let mut open = None;
            while heads.is_waited_for(&name, &sender) {
                let head = look(&mut open, &reader);
                sender.send_if_modified(|known| std::mem::replace(known, head) != head);
                std::thread::sleep(LOOK_EVERY);
            }
        });
        if let Err(error) = spawned {
            // Whoever waits gives up in time; the next one tries again.
            tracing::warn!(db, %error, "cannot start a thread that looks for new entries");
            watched.remove(db);
        }
        receiver
    }

    /// The head at the last look, where somebody waits for the next one.
    #[must_use]
    pub fn known(&self, db: &str) -> Option<Head> {
        self.watched().get(db).and_then(|sender| *sender.borrow())
    }

    /// Decided with the list locked: who comes later finds no entry and starts another thread.
    fn is_waited_for(&self, db: &str, sender: &Sender) -> bool {
        let mut watched = self.watched();
        let waited_for = sender.receiver_count() > 0;
        if !waited_for {
            watched.remove(db);
        }
        waited_for
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<String, Sender>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A database that is looked at.
struct Open {
    reader: Reader,
    conn: Connection,
    /// The head, and SQLite's count of commits by others when it was read.
    seen: Option<(i64, Head)>,
}

impl Open {
    fn head(&mut self) -> Result<Head, StoreError> {
        let commits = self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        match self.seen {
            Some((seen, head)) if seen == commits => Ok(head),
            _ => {
                let head = changelog::head(&self.conn)?;
                self.seen = Some((commits, head));
                Ok(head)
            }
        }
    }
}

/// A failure closes the connection; whoever waits goes on to read, or gives up, and says why.
fn look(open: &mut Option<Open>, reader: impl Fn() -> Result<Reader, StoreError>) -> Option<Head> {
    let reader = reader().ok();
    let is_open = |open: &Open| reader.as_ref().is_some_and(|reader| reader.is(&open.reader));
    if !open.as_ref().is_some_and(is_open) {
        // Closed first: the agent may wait for that.
        *open = None;
        let reader = reader?;
        *open = reader.dedicated().ok().map(|conn| Open { reader, conn, seen: None });
    }
    let head = open.as_mut()?.head().ok();
    if head.is_none() {
        *open = None;
    }
    head
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use vski_replication::connection;
    use vski_replication::datadir::DataDir;
    use vski_replication::entry::Kind;
    use vski_replication::position::DatabaseId;

    #[tokio::test]
    async fn all_who_wait_share_one_look_and_it_ends_with_them() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let path = dir.database("a");
        let reader = Reader::new("a", &path, dir.share_database("a").unwrap().unwrap());
        let (heads, set_aside) = (Heads::default(), Arc::new(AtomicBool::new(false)));
        let (wanted, gone) = (reader.clone(), Arc::clone(&set_aside));
        let mut first = heads
            .watch("a", move || if gone.load(Ordering::Relaxed) { Err(StoreError::Busy) } else { Ok(wanted.clone()) });
        let mut second = heads.watch("a", || unreachable!("the first one opens"));
        assert_eq!(*first.borrow_and_update(), None, "there is no file yet");
        assert_eq!((heads.known("a"), heads.known("b")), (None, None));
        let conn = connection::writer(&path).unwrap();
        let head = changelog::create(&conn, DatabaseId::random()).unwrap();
        first.wait_for(|seen| *seen == Some(head)).await.unwrap();
        assert_eq!(heads.known("a"), Some(head));
        let entry = head.next(Kind::Changes, head.position.epoch, head.schema_hash, Vec::new());
        changelog::append(&conn, &entry).unwrap();
        for receiver in [&mut first, &mut second] {
            receiver.wait_for(|seen| *seen == Some(Head::after(&entry))).await.unwrap();
        }
        set_aside.store(true, Ordering::Relaxed);
        first.wait_for(Option::is_none).await.unwrap();
        drop((first, second));
        let ended = async {
            while !heads.watched().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
    }
}
