//! What a connection last saw: the catalogue, so that not every request reads all of its rows; how many records lists had, so
//! that not every page of a list counts them again; and pages of lists, which many callers ask for with the same words.
//!
//! It holds until somebody else commits to the file, which SQLite counts (`PRAGMA data_version`), or until this connection
//! itself may have changed it, which whoever owns it has to say: [`Seen::forget`]. Totals and pages are kept by connections
//! alone that never write. `Catalogue::load`, `counted` and `page` find it while `Seen::during` runs on its thread.

use std::cell::RefCell;
use std::ptr;
use std::sync::Arc;

use rusqlite::Connection;

use super::Catalogue;
use crate::filter::Condition;

/// Totals and pages that a connection keeps, the longest statement of one, and the longest page, bytes.
const MAX_TOTALS: usize = 64;
const MAX_PAGES: usize = 16;
const MAX_STATEMENT_BYTES: usize = 4096;
const MAX_PAGE_BYTES: usize = 64 << 10;

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
    /// `None` on a connection that writes.
    given: Option<Given>,
}

/// What statements gave.
#[derive(Default)]
struct Given {
    totals: Vec<(Condition, u64)>,
    /// And whether hidden fields are in it.
    pages: Vec<((Condition, bool), Vec<u8>)>,
}

impl Seen {
    /// Of a connection that never writes.
    #[must_use]
    pub fn of_reader() -> Self {
        Self { known: Known { catalogue: None, given: Some(Given::default()) }, data_version: 0 }
    }

    /// Hears SQLite's counter of foreign commits, as it is in the transaction under way.
    pub fn refresh(&mut self, data_version: i64) {
        if data_version != self.data_version {
            self.data_version = data_version;
            self.forget();
        }
    }

    /// This connection has changed the catalogue, or may have.
    pub fn forget(&mut self) {
        self.known.catalogue = None;
        self.known.given.iter_mut().for_each(|given| *given = Given::default());
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
    if let Some(total) = with_given(conn, |given| find(&given.totals, &statement)).flatten() {
        return Ok(total);
    }
    let total = count(&statement)?;
    if statement.sql.len() <= MAX_STATEMENT_BYTES {
        with_given(conn, |given| keep_at_most(&mut given.totals, MAX_TOTALS, (statement, total)));
    }
    Ok(total)
}

/// The records that `read` gives for this statement, as the text of a JSON array, or gave since somebody last committed; with
/// hidden fields or without.
pub fn page<E>(
    conn: &Connection,
    statement: Condition,
    hidden: bool,
    read: impl FnOnce(&Condition) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    let asked = (statement, hidden);
    if let Some(page) = with_given(conn, |given| find(&given.pages, &asked)).flatten() {
        return Ok(page);
    }
    let page = read(&asked.0)?;
    if asked.0.sql.len() <= MAX_STATEMENT_BYTES && page.len() <= MAX_PAGE_BYTES {
        with_given(conn, |given| keep_at_most(&mut given.pages, MAX_PAGES, (asked, page.clone())));
    }
    Ok(page)
}

fn find<K: PartialEq, V: Clone>(kept: &[(K, V)], key: &K) -> Option<V> {
    kept.iter().find(|(of, _)| of == key).map(|(_, value)| value.clone())
}

fn keep_at_most<T>(kept: &mut Vec<T>, most: usize, new: T) {
    if kept.len() == most {
        kept.clear();
    }
    kept.push(new);
}

fn with_given<T>(conn: &Connection, work: impl FnOnce(&mut Given) -> T) -> Option<T> {
    LENT.with_borrow_mut(|lent| {
        let (_, known) = lent.as_mut().filter(|(of, _)| *of == address(conn))?;
        known.given.as_mut().map(work)
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

    fn data_version(conn: &Connection) -> i64 {
        conn.query_row("PRAGMA data_version", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn what_was_seen_holds_until_another_connection_commits_or_this_one_says_that_it_changed_it() {
        let dir = tempfile::tempdir().unwrap();
        let writer = connection::writer(&dir.path().join("a.db")).unwrap();
        tables::TABLES.iter().for_each(|table| writer.execute_batch(table).unwrap());
        let reader = connection::reader(&dir.path().join("a.db")).unwrap();
        let mut seen = Seen::default();
        let load = |seen: &mut Seen| {
            seen.refresh(data_version(&reader));
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
        let known = Known { catalogue: Some(Arc::new(Catalogue::default())), given: None };
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
            seen.refresh(data_version(conn));
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
        assert!(seen.known.given.is_some_and(|given| given.totals.len() <= MAX_TOTALS));
    }

    #[test]
    fn a_page_is_read_again_when_another_connection_has_committed_and_is_not_shown_to_who_may_see_less() {
        let dir = tempfile::tempdir().unwrap();
        let writer = connection::writer(&dir.path().join("a.db")).unwrap();
        writer.execute_batch("CREATE TABLE t (a)").unwrap();
        let reader = connection::reader(&dir.path().join("a.db")).unwrap();
        let mut seen = Seen::of_reader();
        let mut read = |above: i64, hidden: bool, page: &str| {
            let statement = Condition { sql: "above ?".into(), params: vec![rusqlite::types::Value::Integer(above)] };
            seen.refresh(data_version(&reader));
            let read = |_: &Condition| Ok::<_, rusqlite::Error>(page.as_bytes().to_vec());
            let text = seen.during(&reader, || super::page(&reader, statement, hidden, read));
            String::from_utf8(text.unwrap()).unwrap()
        };
        assert_eq!(read(0, true, "all"), "all");
        assert_eq!(read(0, false, "less"), "less");
        assert_eq!((read(0, true, "new"), read(0, false, "new")), ("all".to_owned(), "less".to_owned()));
        assert_eq!(read(1, false, "other"), "other");
        writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(read(0, true, "new"), "new");
        let long = "x".repeat(MAX_PAGE_BYTES + 1);
        assert_eq!((read(2, true, &long), read(2, true, "short")), (long, "short".to_owned()));
        (0..100).for_each(|above| _ = read(above, true, "page"));
        assert!(seen.known.given.is_some_and(|given| given.pages.len() <= MAX_PAGES));
    }
}
