use rusqlite::Connection;
use vski_replication::files::{self, FileRow};

/// Rows that are read at once.
const STEP: usize = 1_000;

/// Walks through the rows in the order in which they came, so that each look costs what is new.
///
/// The last row that was seen is the anchor: while it is where it was, only rows behind it are new. Otherwise it was
/// deleted, its number may stand for another row, and everything is looked at again.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    anchor: Option<(i64, String)>,
    began_anew: bool,
}

impl Scan {
    /// The next rows whose file is not `here`, at most `limit`.
    pub(super) fn next(
        &mut self,
        conn: &Connection,
        limit: usize,
        here: impl Fn(&FileRow) -> bool,
    ) -> rusqlite::Result<Vec<FileRow>> {
        self.began_anew = false;
        let mut missing = Vec::new();
        while missing.len() < limit {
            let first = self.anchor.as_ref().map_or(i64::MIN, |(number, _)| *number);
            let mut rows = files::numbered(conn, first, STEP.min(limit - missing.len()) + 1)?;
            if let Some((number, name)) = &self.anchor {
                if rows.first().is_none_or(|(found, row)| found != number || row.name != *name) {
                    (self.anchor, self.began_anew) = (None, true);
                    missing.clear();
                    continue;
                }
                rows.remove(0);
            }
            let Some((number, last)) = rows.last() else { break };
            self.anchor = Some((*number, last.name.clone()));
            missing.extend(rows.into_iter().map(|(_, row)| row).filter(|row| !here(row)));
        }
        Ok(missing)
    }

    /// The number of the last row that was seen.
    pub(super) fn last(&self) -> i64 {
        self.anchor.as_ref().map_or(i64::MIN, |(number, _)| *number)
    }

    /// Whether the last look began from the first row again.
    pub(super) fn began_anew(&self) -> bool {
        self.began_anew
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        files::TABLES.iter().for_each(|sql| conn.execute_batch(sql).unwrap());
        conn
    }

    fn insert(conn: &Connection, name: &str) {
        let text = |text: &str| text.to_owned();
        let (collection, record, field, blake3) = (text("c"), text("r"), text("f"), text(""));
        let row = FileRow { name: text(name), collection, record, field, size: 0, blake3 };
        files::insert(conn, &row, "").unwrap();
    }

    fn next(scan: &mut Scan, conn: &Connection, limit: usize) -> Vec<String> {
        scan.next(conn, limit, |row| row.name.starts_with("here")).unwrap().into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn each_look_finds_what_came_after_the_last_one() {
        let (conn, mut scan) = (database(), Scan::default());
        assert!(next(&mut scan, &conn, 10).is_empty());
        for name in ["a", "here-1", "b", "here-2", "c"] {
            insert(&conn, name);
        }
        assert_eq!(next(&mut scan, &conn, 2), ["a", "b"]);
        assert_eq!(files::count_after(&conn, scan.last()).unwrap(), 2);
        assert_eq!(next(&mut scan, &conn, 2), ["c"]);
        assert!(next(&mut scan, &conn, 2).is_empty());
        insert(&conn, "d");
        assert_eq!(next(&mut scan, &conn, 2), ["d"]);
        assert!(!scan.began_anew());
    }

    #[test]
    fn a_number_that_stands_for_another_row_begins_anew() {
        let (conn, mut scan) = (database(), Scan::default());
        for name in ["a", "b"] {
            insert(&conn, name);
        }
        assert_eq!(next(&mut scan, &conn, 9), ["a", "b"]);
        conn.execute("DELETE FROM _files WHERE name = 'b'", []).unwrap();
        insert(&conn, "new");
        assert_eq!(next(&mut scan, &conn, 9), ["a", "new"]);
        assert!(scan.began_anew());
        conn.execute("DELETE FROM _files", []).unwrap();
        insert(&conn, "other");
        assert_eq!(next(&mut scan, &conn, 9), ["other"]);
    }

    #[test]
    fn many_rows_are_read_in_steps() {
        let (conn, mut scan) = (database(), Scan::default());
        (0..2_500).for_each(|n| insert(&conn, &format!("{n:05}")));
        assert_eq!(next(&mut scan, &conn, 10_000).len(), 2_500);
        assert!(next(&mut scan, &conn, 10_000).is_empty());
    }
}
