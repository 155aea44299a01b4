//! What a connection last saw: the catalogue, so that not every request reads all of its rows, and how many records lists
//! had, so that not every page of a list counts them again.
//!
//! It holds until somebody else commits to the file, which SQLite counts (`PRAGMA data_version`), or until this connection
//! itself may have changed it, which whoever owns it has to say: [`Seen::forget`]. Totals are kept by connections alone that
//! never write. `Catalogue::load` and `counted` find it while `Seen::during` runs on its thread.

use std::cell::RefCell;
use std::ptr;
use std::sync::Arc;

use rusqlite::Connection;

use super::Catalogue;
use crate::filter::Condition;

/// Totals that a connection keeps, and the longest statement of one, bytes.
const MAX_TOTALS: usize = 64;
const MAX_TOTAL_BYTES: usize = 4096;

thread_local! {
    /// What `during` lends to this thread, with the address of the connection that it is about.
    static LENT: RefCell<Option<(usize, Known)>> = const { RefCell::new(None) };
}

/// What one connection knows.
#[derive(Default)]
pub struct Seen {
    known: Known,
    /// SQLite's counter of foreign commits at that time.
    data_version: i64,
}

#[derive(Default)]
struct Known {
    catalogue: Option<Arc<Catalogue>>,
    /// By the statement that counted. `None` on a connection that writes.
    totals: Option<Vec<(Condition, u64)>>,
}

impl Seen {
    /// Of a connection that never writes.
    #[must_use]
    pub fn of_reader() -> Self {
        Self { known: Known { catalogue: None, totals: Some(Vec::new()) }, data_version: 0 }
    }

    /// Looks, inside a transaction, whether others have committed since.
    pub fn refresh(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let found = conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if found != self.data_version {
            self.data_version = found;
            self.forget();
        }
        Ok(())
    }

    /// This connection has changed the catalogue, or may have.
    pub fn forget(&mut self) {
        self.known.catalogue = None;
        self.known.totals.iter_mut().for_each(Vec::clear);
    }

    /// Runs `work`, in which [`Catalogue::load`] of this connection finds what is known, and leaves what it found.
    pub fn during<T>(&mut self, conn: &Connection, work: impl FnOnce() -> T) -> T {
        LENT.set(Some((address(conn), std::mem::take(&mut self.known))));
        // Also after a panic: the next work of this thread is about another connection.
        let taken = TakeBack;
        let done = work();
        self.known = LENT.take().map(|(_, known)| known).unwrap_or_default();
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
pub(super) fn catalogue(conn: &Connection) -> Option<Arc<Catalogue>> {
    LENT.with_borrow(|lent| lent.as_ref().filter(|(of, _)| *of == address(conn))?.1.catalogue.clone())
}

/// Keeps what was found, where it is asked for.
pub(super) fn keep(conn: &Connection, catalogue: &Arc<Catalogue>) {
    LENT.with_borrow_mut(|lent| {
        if let Some((_, kept)) = lent.as_mut().filter(|(of, _)| *of == address(conn)) {
            kept.catalogue = Some(Arc::clone(catalogue));
        }
    });
}

/// What `count` gives for this statement, or gave since somebody last committed.
pub fn counted<E>(
    conn: &Connection,
    statement: Condition,
    count: impl FnOnce(&Condition) -> Result<u64, E>,
) -> Result<u64, E> {
    let found = with_totals(conn, |totals| totals.iter().find(|(of, _)| *of == statement).map(|(_, total)| *total));
    if let Some(total) = found.flatten() {
        return Ok(total);
    }
    let total = count(&statement)?;
    if statement.sql.len() <= MAX_TOTAL_BYTES {
        with_totals(conn, |totals| {
            if totals.len() == MAX_TOTALS {
                totals.clear();
            }
            totals.push((statement, total));
        });
    }
    Ok(total)
}

fn with_totals<T>(conn: &Connection, work: impl FnOnce(&mut Vec<(Condition, u64)>) -> T) -> Option<T> {
    LENT.with_borrow_mut(|lent| {
        let (_, known) = lent.as_mut().filter(|(of, _)| *of == address(conn))?;
        known.totals.as_mut().map(work)
    })
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
        assert!(catalogue(&reader).is_none(), "outside it is asked anew");
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
        let known = Known { catalogue: Some(Arc::new(Catalogue::default())), totals: None };
        let mut seen = Seen { known, data_version: 0 };
        seen.during(&one, || {
            assert!(catalogue(&one).is_some() && catalogue(&other).is_none());
            keep(&other, &Arc::new(Catalogue::default()));
        });
        let fails = || seen.during(&one, || assert!(catalogue(&one).is_none(), "on purpose"));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(fails));
        assert!(result.is_err() && catalogue(&one).is_none());
    }

    #[test]
    fn a_total_is_counted_again_when_another_connection_has_committed_and_never_kept_by_one_that_writes() {
        let dir = tempfile::tempdir().unwrap();
        let writer = connection::writer(&dir.path().join("a.db")).unwrap();
        writer.execute_batch("CREATE TABLE t (a)").unwrap();
        let reader = connection::reader(&dir.path().join("a.db")).unwrap();
        let statement = |above: i64| Condition {
            sql: "SELECT count(*) FROM t WHERE a > ?".into(),
            params: vec![rusqlite::types::Value::Integer(above)],
        };
        let total = |seen: &mut Seen, conn: &Connection, above: i64| {
            let mut ran = false;
            seen.refresh(conn).unwrap();
            let total = seen.during(conn, || {
                counted(conn, statement(above), |Condition { sql, params }| {
                    ran = true;
                    conn.query_row(sql, rusqlite::params_from_iter(params), |row| row.get::<_, i64>(0))
                        .map(|total| u64::try_from(total).unwrap())
                })
            });
            (total.unwrap(), ran)
        };
        let (mut seen, mut writers) = (Seen::of_reader(), Seen::default());
        assert_eq!(total(&mut seen, &reader, 0), (0, true));
        assert_eq!(total(&mut seen, &reader, 0), (0, false));
        writer.execute_batch("INSERT INTO t VALUES (1), (2)").unwrap();
        assert_eq!(total(&mut seen, &reader, 0), (2, true));
        assert_eq!(total(&mut seen, &reader, 1), (1, true), "other values are another statement");
        assert_eq!((total(&mut seen, &reader, 0), total(&mut seen, &reader, 1)), ((2, false), (1, false)));
        assert_eq!(total(&mut writers, &writer, 0), (2, true));
        writer.execute_batch("INSERT INTO t VALUES (3)").unwrap();
        assert_eq!(total(&mut writers, &writer, 0), (3, true));
        (0..200).for_each(|above| _ = total(&mut seen, &reader, above));
        assert!(seen.known.totals.is_some_and(|totals| totals.len() <= MAX_TOTALS));
    }
}
