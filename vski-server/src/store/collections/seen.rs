//! The catalogue as a connection last saw it, so that not every request reads all of its rows.
//!
//! It holds until somebody else commits to the file, which SQLite counts (`PRAGMA data_version`), or until this connection
//! itself may have changed it, which whoever owns it has to say: [`Seen::forget`]. [`Catalogue::load`] finds it while
//! [`Seen::during`] runs on its thread.

use std::cell::RefCell;
use std::ptr;
use std::sync::Arc;

use rusqlite::Connection;

use super::Catalogue;

thread_local! {
    /// What `during` lends to this thread, with the address of the connection that it is about.
    static LENT: RefCell<Option<(usize, Option<Arc<Catalogue>>)>> = const { RefCell::new(None) };
}

/// What one connection knows.
#[derive(Default)]
pub struct Seen {
    catalogue: Option<Arc<Catalogue>>,
    /// SQLite's counter of foreign commits at that time.
    data_version: i64,
}

impl Seen {
    /// Looks, inside a transaction, whether others have committed since.
    pub fn refresh(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let found = conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if found != self.data_version {
            *self = Self { catalogue: None, data_version: found };
        }
        Ok(())
    }

    /// This connection has changed the catalogue, or may have.
    pub fn forget(&mut self) {
        self.catalogue = None;
    }

    /// Runs `work`, in which [`Catalogue::load`] of this connection finds what is known, and leaves what it found.
    pub fn during<T>(&mut self, conn: &Connection, work: impl FnOnce() -> T) -> T {
        LENT.set(Some((address(conn), self.catalogue.take())));
        // Also after a panic: the next work of this thread is about another connection.
        let taken = TakeBack;
        let done = work();
        self.catalogue = LENT.take().and_then(|(_, catalogue)| catalogue);
        drop(taken);
        done
    }
}

struct TakeBack;

impl Drop for TakeBack {
    fn drop(&mut self) {
        LENT.set(None);
    }
}

/// What is known of this connection's catalogue.
pub(super) fn known(conn: &Connection) -> Option<Arc<Catalogue>> {
    LENT.with_borrow(|lent| lent.as_ref().filter(|(of, _)| *of == address(conn))?.1.clone())
}

/// Keeps what was found, where it is asked for.
pub(super) fn keep(conn: &Connection, catalogue: &Arc<Catalogue>) {
    LENT.with_borrow_mut(|lent| {
        if let Some((_, kept)) = lent.as_mut().filter(|(of, _)| *of == address(conn)) {
            *kept = Some(Arc::clone(catalogue));
        }
    });
}

fn address(conn: &Connection) -> usize {
    ptr::from_ref(conn).addr()
}

#[cfg(test)]
mod tests {
    use vski_replication::connection;

    use super::*;
    use crate::store::collections::tables;

    #[test]
    fn what_was_seen_holds_until_another_connection_commits_or_this_one_says_that_it_changed_it() {
        let dir = tempfile::tempdir().unwrap();
        let writer = connection::writer(&dir.path().join("a.db")).unwrap();
        tables::TABLES.iter().for_each(|table| writer.execute_batch(table).unwrap());
        let reader = connection::reader(&dir.path().join("a.db")).unwrap();
        let mut seen = Seen::default();
        let load = |seen: &mut Seen| {
            seen.refresh(&reader).unwrap();
            seen.during(&reader, || {
                let first = Catalogue::load(&reader).unwrap();
                assert!(Arc::ptr_eq(&first, &Catalogue::load(&reader).unwrap()));
                first
            })
        };
        let first = load(&mut seen);
        assert!(known(&reader).is_none(), "outside it is asked anew");
        assert!(Arc::ptr_eq(&first, &load(&mut seen)));
        let row = "INSERT INTO _collections (id, name, type, fields, created, updated) VALUES ('c', 'c', 'base', '[]', '', '')";
        writer.execute_batch(row).unwrap();
        assert!(load(&mut seen).find("c").is_some());
        seen.forget();
        assert!(load(&mut seen).find("c").is_some());
    }

    #[test]
    fn another_connections_catalogue_is_not_taken_for_this_ones() {
        let (one, other) = (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
        let mut seen = Seen { catalogue: Some(Arc::new(Catalogue::default())), data_version: 0 };
        seen.during(&one, || {
            assert!(known(&one).is_some() && known(&other).is_none());
            keep(&other, &Arc::new(Catalogue::default()));
        });
        let fails = || seen.during(&one, || assert!(known(&one).is_none(), "on purpose"));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(fails));
        assert!(result.is_err() && known(&one).is_none());
    }
}
