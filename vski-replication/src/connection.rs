//! Connections by intent: a `writer` for the lock holder, a `reader` for everybody else.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, access};

/// Two processes share each file, and SQLite before 3.51.3 can corrupt a WAL that two connections reset at once.
pub const MIN_SQLITE: i32 = 3_051_003;

/// How long a connection waits for another's lock.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Statements a connection keeps compiled.
const STATEMENT_CACHE: usize = 128;

/// Pages that a connection keeps that applies entries, KiB: those that a batch of them changes are written once then.
const APPLIER_CACHE_KIB: i64 = 8192;

/// Pages of the WAL from which on a commit moves them into the database file. A page that many commits change is moved once; the
/// commit that moves them takes the longer for it.
const CHECKPOINT_PAGES: u32 = 2000;

/// SQLite need not lock a connection at every call: the type that holds it cannot be shared between threads.
const ONE_THREAD: OpenFlags = OpenFlags::SQLITE_OPEN_NO_MUTEX;

/// Whether the linked SQLite is new enough; the error is for the operator.
pub fn check_version() -> Result<(), String> {
    let found = rusqlite::version_number();
    if found >= MIN_SQLITE {
        return Ok(());
    }
    Err(format!("SQLite {} is linked, but two processes on one database need 3.51.3 or newer", rusqlite::version()))
}

/// A connection that writes, as the master's writer does: WAL, and a commit survives a power cut.
pub fn writer(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | ONE_THREAD,
    )?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    conn.pragma_update(None, "temp_store", temp_store())?;
    strict(&conn)?;
    Ok(conn)
}

/// A writer that applies entries: what triggers and foreign keys did on the master is in the changeset already.
pub fn applier(path: &Path) -> rusqlite::Result<Connection> {
    let mut conn = writer(path)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    conn.authorizer(Some(without_deferring))?;
    conn.pragma_update(None, "cache_size", -APPLIER_CACHE_KIB)?;
    Ok(conn)
}

/// SQLite switches the deferring of foreign keys on and off around each changeset, and compiles all statements anew after
/// either. Where foreign keys are off it means nothing, and is left out.
fn without_deferring(asked: AuthContext<'_>) -> Authorization {
    match asked.action {
        AuthAction::Pragma { pragma_name: "defer_foreign_keys", .. } => Authorization::Ignore,
        _ => Authorization::Allow,
    }
}

/// A connection that can only read and never creates the file.
pub fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | ONE_THREAD)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    conn.pragma_update(None, "temp_store", temp_store())?;
    strict(&conn)?;
    Ok(conn)
}

/// A finished copy that nobody writes and nobody has open: read without `-wal` and `-shm` beside it.
/// Never for a database that lives: its WAL would be ignored.
pub fn finished_copy(path: &Path) -> rusqlite::Result<Connection> {
    let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | ONE_THREAD;
    Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
}

/// A database to look at, whoever may have it: without a `-wal` that holds anything no file is made beside it.
pub fn observer(path: &Path) -> rusqlite::Result<Connection> {
    // Nobody has it open, or nobody has written since: what is read is in the file itself.
    if wal_bytes(path) == 0 { finished_copy(path) } else { reader(path) }
}

/// Size of the write-ahead log beside a database, 0 where there is none. By its metadata: opening and closing it would
/// drop SQLite's locks.
#[must_use]
pub fn wal_bytes(database: &Path) -> u64 {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    std::fs::metadata(wal).map_or(0, |wal| wal.len())
}

/// Where SQLite sorts what does not fit into its cache, as for a new index on a large table: in a file, so that memory
/// does not grow with the table, or in memory where there is no directory for such files, as in an image without any.
fn temp_store() -> &'static str {
    static STORE: LazyLock<&str> = LazyLock::new(|| {
        // The places in which SQLite looks for one.
        let named = ["SQLITE_TMPDIR", "TMPDIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
        let known = ["/var/tmp", "/usr/tmp", "/tmp", "."].into_iter().map(PathBuf::from);
        let usable = |path: &PathBuf| path.is_dir() && access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok();
        if named.chain(known).any(|path| usable(&path)) { "FILE" } else { "MEMORY" }
    });
    *STORE
}

/// A misspelt name in double quotes is an error, not a string.
fn strict(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::session::{self, Session};

    #[test]
    fn the_linked_sqlite_is_new_enough_for_two_processes() {
        check_version().unwrap();
    }

    #[test]
    fn a_reader_never_creates_and_never_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        assert!(reader(&path).is_err());
        assert!(!path.exists());
        writer(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        assert!(reader(&path).unwrap().execute_batch("INSERT INTO t VALUES (1)").is_err());
    }

    #[test]
    fn an_observer_reads_what_is_committed_and_leaves_no_file_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let writer = writer(&path).unwrap();
        writer.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)").unwrap();
        let count = || observer(&path).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        assert_eq!(count(), Ok(1), "it is in the -wal alone");
        drop(writer);
        assert_eq!(count(), Ok(1));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_does_not_fit_into_the_cache_is_sorted_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let conn = writer(&dir.path().join("a.db")).unwrap();
        let store: i64 = conn.pragma_query_value(None, "temp_store", |row| row.get(0)).unwrap();
        assert_eq!(store, 1, "the machine that runs this has a directory for temporary files");
    }

    #[test]
    fn a_changeset_leaves_an_appliers_statements_compiled() {
        let dir = tempfile::tempdir().unwrap();
        let table = "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, parent TEXT REFERENCES t (id))";
        let (from, to) = (writer(&dir.path().join("a.db")).unwrap(), applier(&dir.path().join("b.db")).unwrap());
        [&from, &to].iter().for_each(|conn| conn.execute_batch(table).unwrap());
        let mut count = to.prepare("SELECT count(*) FROM t").unwrap();
        for (sql, rows) in [("INSERT INTO t VALUES ('a', NULL)", 1), ("INSERT INTO t VALUES ('b', 'a')", 2)] {
            let session = Session::start(&from).unwrap();
            from.execute_batch(sql).unwrap();
            session::apply(&to, &session.changeset().unwrap()).unwrap();
            assert_eq!(count.query_row([], |row| row.get(0)), Ok(rows));
        }
        assert_eq!(count.get_status(StatementStatus::RePrepare), 0);
    }

    #[test]
    fn a_writer_is_in_wal_mode_and_fully_synchronous() {
        let dir = tempfile::tempdir().unwrap();
        let conn = writer(&dir.path().join("a.db")).unwrap();
        let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        let synchronous: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        assert_eq!((mode.as_str(), synchronous), ("wal", 2));
    }
}
