//! The traces of entries: `_vski_trace`, beside the log and not in it.
//!
//! A table of its own, because programs from before there were traces insert into the log by position: with one column
//! more they could no longer follow in a copy that a newer master made. They leave this table alone, so a row counts
//! only together with its entry's chain: one that stayed behind when its version was pruned and written anew is no
//! longer anybody's.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use super::LogError;
use super::rows::signed;
use crate::entry::Entry;
use crate::trace::Trace;

/// Makes the table where it is missing.
pub(super) fn create(conn: &Connection) -> Result<(), LogError> {
    Ok(conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS _vski_trace (version INTEGER PRIMARY KEY, chain BLOB NOT NULL, trace TEXT NOT NULL)",
    )?)
}

/// Notes the trace of an entry that is being appended. A log whose holder has not made the table yet goes without.
pub(super) fn append(conn: &Connection, entry: &Entry) -> Result<(), LogError> {
    let Some(trace) = entry.trace else { return Ok(()) };
    if exists(conn)? {
        conn.prepare_cached("INSERT OR REPLACE INTO _vski_trace (version, chain, trace) VALUES (?1, ?2, ?3)")?
            .execute(params![signed(entry.version), entry.chain.0, trace.to_string()])?;
    }
    Ok(())
}

/// What to select as the trace of an entry of `_vski_changelog`.
pub(super) fn column(conn: &Connection) -> Result<&'static str, LogError> {
    Ok(if exists(conn)? {
        "(SELECT trace FROM _vski_trace WHERE _vski_trace.version = _vski_changelog.version
            AND _vski_trace.chain = _vski_changelog.chain)"
    } else {
        "NULL"
    })
}

/// The value of that column: whatever is no trace is none.
pub(super) fn read(value: ValueRef<'_>) -> Option<Trace> {
    Trace::parse(value.as_bytes().ok()?)
}

/// Forgets the traces up to a version.
pub(super) fn delete(conn: &Connection, upto: u64) -> Result<(), LogError> {
    conn.prepare_cached("DELETE FROM _vski_trace WHERE version <= ?1")?.execute([signed(upto)])?;
    Ok(())
}

fn exists(conn: &Connection) -> Result<bool, LogError> {
    let mut statement =
        conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = '_vski_trace')")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::types::Value;

    use super::*;
    use crate::changelog::{self, Cut, Head};
    use crate::entry::Kind;
    use crate::position::DatabaseId;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn log() -> (Connection, Head) {
        let conn = Connection::open_in_memory().unwrap();
        let head = changelog::create(&conn, DatabaseId([1; 16])).unwrap();
        (conn, head)
    }

    fn traced(head: &Head, payload: &str) -> Entry {
        let entry = head.next(Kind::Changes, head.position.epoch, head.schema_hash, payload.into());
        Entry { trace: Trace::parse(TEXT.as_bytes()), ..entry }
    }

    fn rows(conn: &Connection) -> i64 {
        conn.query_row("SELECT count(*) FROM _vski_trace", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_trace_is_kept_with_its_entry_and_goes_with_it() {
        let (conn, head) = log();
        let first = traced(&head, "one");
        let second = Entry { trace: None, ..traced(&Head::after(&first), "two") };
        for entry in [&first, &second] {
            changelog::append(&conn, entry).unwrap();
        }
        assert_eq!(changelog::read_after(&conn, 0, usize::MAX).unwrap(), [first.clone(), second]);
        assert_eq!(changelog::entry(&conn, 1).unwrap(), Some(first));
        assert_eq!(rows(&conn), 1);
        changelog::prune(&conn, Cut { before_ms: i64::MAX, excess_bytes: 0, up_to: u64::MAX }).unwrap();
        assert_eq!(rows(&conn), 0);
    }

    #[test]
    fn a_log_from_before_there_were_traces_is_read_written_and_upgraded() {
        let (conn, head) = log();
        conn.execute_batch("DROP TABLE _vski_trace").unwrap();
        let first = traced(&head, "one");
        changelog::append(&conn, &first).unwrap();
        let untraced = Entry { trace: None, ..first.clone() };
        assert_eq!(changelog::entry(&conn, 1).unwrap(), Some(untraced.clone()));
        changelog::upgrade(&conn).unwrap();
        changelog::upgrade(&conn).unwrap();
        let second = traced(&Head::after(&first), "two");
        changelog::append(&conn, &second).unwrap();
        assert_eq!(changelog::read_after(&conn, 0, usize::MAX).unwrap(), [untraced, second]);
    }

    #[test]
    fn an_older_program_appends_to_this_log_and_a_trace_it_left_behind_is_nobodys() {
        let (conn, head) = log();
        let lost = traced(&head, "lost");
        changelog::append(&conn, &lost).unwrap();
        // Another history takes its place: written, as before there were traces, by position.
        conn.execute_batch("DELETE FROM _vski_changelog").unwrap();
        let other = Entry { trace: None, ..traced(&head, "other") };
        conn.execute(
            "INSERT INTO _vski_changelog VALUES (1, 'changes', ?1, ?2, ?3, ?4, ?5, ?6)",
            params![1, other.epoch.id.0, other.schema_hash.0, other.committed_ms, other.chain.0, other.payload],
        )
        .unwrap();
        assert_eq!(rows(&conn), 1);
        assert_eq!(changelog::entry(&conn, 1).unwrap(), Some(other));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_stands_where_a_trace_belongs_the_entry_is_read(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            number in any::<i64>(),
            form in 0..4,
        ) {
            let (conn, head) = log();
            let entry = traced(&head, "one");
            changelog::append(&conn, &entry).unwrap();
            let value = match form {
                0 => Value::Integer(number),
                1 => Value::Real(number as f64),
                2 => Value::Blob(bytes),
                _ => Value::Text(String::from_utf8_lossy(&bytes).into_owned()),
            };
            conn.execute("UPDATE _vski_trace SET trace = ?1", [value]).unwrap();
            let found = changelog::entry(&conn, 1).unwrap().unwrap();
            prop_assert_eq!(found, Entry { trace: None, ..entry });
        }
    }
}
