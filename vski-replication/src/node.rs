//! `.vski/node.db`: what is true of this node only. Never replicated.
//!
//! The lock holder writes it, at most once a second per database but at once when a state changes; the server beside
//! a separate agent reads it. That is how a replica's server knows its role, lag and readiness without asking.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use crate::datadir::{DataDir, DataDirError, DirLock, Holder};
use crate::position::Position;
use crate::{connection, fault};

mod promotion;

pub use promotion::{Promotion, was_promoted};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS node (one INTEGER PRIMARY KEY CHECK (one = 1), role TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS databases (
        name TEXT PRIMARY KEY NOT NULL,
        state TEXT NOT NULL,
        detail TEXT,
        position TEXT,
        head TEXT,
        last_contact_ms INTEGER,
        at_head_ms INTEGER,
        bootstrapped INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        head_ms INTEGER,
        files_waiting INTEGER
    );
    -- Tables of their own, so that programs of before and after them can use each other's files.
    CREATE TABLE IF NOT EXISTS errors (
        db TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL,
        text TEXT NOT NULL,
        remedy TEXT NOT NULL,
        at_ms INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS replicas (
        replica TEXT NOT NULL,
        db TEXT NOT NULL,
        position TEXT NOT NULL,
        last_contact_ms INTEGER NOT NULL,
        public_url TEXT,
        boot_id TEXT,
        version TEXT,
        PRIMARY KEY (replica, db)
    );
    CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), skew_ms INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS upstream (one INTEGER PRIMARY KEY CHECK (one = 1), path TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS fingerprints (name TEXT PRIMARY KEY NOT NULL, fingerprint TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS deleted (name TEXT PRIMARY KEY NOT NULL);
    CREATE TABLE IF NOT EXISTS known (name TEXT PRIMARY KEY NOT NULL, made INTEGER NOT NULL);";

/// What a node does with its databases. Recorded at the first start; only promote and demote change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes writes.
    Master,
    /// Follows a master.
    Replica,
}

impl Role {
    /// The word in REPLICA_MODE, headers and node.db.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "replica",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Master, Self::Replica].into_iter().find(|role| role.name() == name)
    }
}

/// A directory that this process may not write.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It cannot be used or locked.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// It belongs to a node of the other role.
    #[error("{path} is a {recorded}'s directory: {repair}")]
    WrongRole {
        /// The directory.
        path: PathBuf,
        /// The role in node.db.
        recorded: &'static str,
        /// What to do.
        repair: &'static str,
    },
    /// node.db cannot be used.
    #[error("cannot use node.db in {path}: {source}; {remedy}", remedy = remedy(source))]
    NodeDb {
        /// The directory.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
}

fn remedy(source: &rusqlite::Error) -> &'static str {
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "make room on its file system",
        _ => "if the file is damaged, move it away: it holds no user data",
    }
}

/// Takes a directory's lock for a process of `role` and records the role at the first start. Later it writes nothing, which
/// a full volume would not let it.
pub fn claim(dir: &DataDir, role: Role, holder: Holder) -> Result<(DirLock, NodeDb), ClaimError> {
    let lock = dir.lock(holder)?;
    let failed = |source| ClaimError::NodeDb { path: dir.private(), source };
    let node = NodeDb::open(dir).map_err(failed)?;
    let recorded = node.role().map_err(failed)?;
    check_role(dir, recorded, role)?;
    if recorded.is_none() {
        node.set_role(role).map_err(failed)?;
    }
    Ok((lock, node))
}

/// Refuses a directory whose recorded role is not the one it is started in: a replica must not fork history.
pub fn check_role(dir: &DataDir, recorded: Option<Role>, wanted: Role) -> Result<(), ClaimError> {
    match recorded {
        Some(recorded) if recorded != wanted => Err(ClaimError::WrongRole {
            path: dir.root().to_owned(),
            recorded: recorded.name(),
            repair: match recorded {
                Role::Master => {
                    "start it with REPLICA_MODE=master and no sync agent, set DATA_DIR to another directory, or make it \
                     a replica's by: vski-server demote"
                }
                Role::Replica => {
                    "start it with REPLICA_MODE=replica and MASTER_URL, set DATA_DIR to another directory, or make it \
                     a master's by: vski-server promote"
                }
            },
        }),
        _ => Ok(()),
    }
}

/// The state of a database that the master does not list.
pub const MISSING_ON_MASTER: &str = "missing_on_master";

/// The state in which a server lets go of a database's file, because the agent is going to set it aside.
pub const SET_ASIDE: &str = "set_aside";

/// How one database of a replica is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseState {
    /// Its name.
    pub name: String,
    /// The agent's state: `bootstrap`, `catch_up`, `follow`, `retrying`, `diverged`, `foreign_master` …
    pub state: String,
    /// Why, where the state is not a good one.
    pub detail: Option<String>,
    /// Where the local copy stands.
    pub position: Option<Position>,
    /// Where the master stood when that was last heard of, maybe through a replica in between.
    pub head: Option<Position>,
    /// When it stood there, ms since 1970 by this node's clock; not later than that.
    pub head_ms: Option<i64>,
    /// When the master last answered, ms since 1970 by this node's clock.
    pub last_contact_ms: Option<i64>,
    /// The last moment at which this node was known to hold the master's head.
    pub at_head_ms: Option<i64>,
    /// Whether a whole copy was ever there. Latched.
    pub bootstrapped: bool,
    /// Uploaded files that its rows name and that are not here; `None` before that was looked at.
    #[serde(default)]
    pub files_waiting: Option<u64>,
    /// What went wrong last, also after it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

/// An error of a database's agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// Its name: one of the table "Errors" in docs/OPERATIONS.md.
    pub name: String,
    /// What happened, with all causes, in one line.
    pub text: String,
    /// What an operator can do.
    pub remedy: String,
    /// When, ms since 1970.
    pub at_ms: i64,
}

impl DatabaseState {
    /// A database that was just heard of.
    #[must_use]
    pub fn new(name: &str, state: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: state.to_owned(),
            detail: None,
            position: None,
            head: None,
            head_ms: None,
            last_contact_ms: None,
            at_head_ms: None,
            bootstrapped: false,
            files_waiting: None,
            last_error: None,
        }
    }

    /// Whether the node is not ready before this database is there: not so for a file that the master never listed.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !self.bootstrapped && self.state != MISSING_ON_MASTER
    }

    /// An upper bound of how old the local copy is, seconds: it grows while nothing is heard.
    #[must_use]
    pub fn lag_seconds(&self, now_ms: i64) -> Option<f64> {
        self.at_head_ms.map(|at| (now_ms - at).max(0) as f64 / 1000.0)
    }

    /// Entries the local copy was behind at the last contact.
    #[must_use]
    pub fn entries_behind(&self) -> Option<u64> {
        Some(self.head?.version.saturating_sub(self.position?.version))
    }
}

/// What a master knows of a replica's copy of one database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSeen {
    /// The replica's id.
    pub replica: String,
    /// The database.
    pub db: String,
    /// The position it said it had.
    pub position: Position,
    /// When, ms since 1970.
    pub last_contact_ms: i64,
    /// Its public address, if it has one.
    pub public_url: Option<String>,
    /// Its process.
    pub boot_id: Option<String>,
    /// The version of its program.
    pub version: Option<String>,
}

/// node.db, opened for reading or writing.
pub struct NodeDb {
    conn: Connection,
}

/// Pages of node.db's write-ahead log after which it is used again from its beginning. Few, so that this was done long
/// before the volume is full: what is written in place needs no room, and so node.db can tell that there is none, and a
/// node can be started again.
const LOG_PAGES: i64 = 32;

impl NodeDb {
    /// Opens it for writing, which only the lock holder does.
    pub fn open(dir: &DataDir) -> rusqlite::Result<Self> {
        let conn = connection::writer(&path(dir))?;
        conn.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        conn.execute_batch(TABLES)?;
        conn.execute_batch(promotion::TABLES)?;
        if !has_column(&conn, "replicas", "version")? {
            // A file from before replicas told their version.
            conn.execute_batch("ALTER TABLE replicas ADD COLUMN version TEXT")?;
        }
        if !has_column(&conn, "databases", "head_ms")? {
            // A file from before replicas served others.
            conn.execute_batch("ALTER TABLE databases ADD COLUMN head_ms INTEGER")?;
        }
        if !has_column(&conn, "databases", "files_waiting")? {
            // A file from before uploaded files were told of.
            conn.execute_batch("ALTER TABLE databases ADD COLUMN files_waiting INTEGER")?;
        }
        // The file has all its pages from now on. Where there is no room for them, the log keeps them.
        let _ = conn.query_row("PRAGMA wal_checkpoint", [], |_| Ok(()));
        Ok(Self { conn })
    }

    /// Opens it for reading; `None` before any lock holder made it.
    pub fn read(dir: &DataDir) -> rusqlite::Result<Option<Self>> {
        let path = path(dir);
        if !path.exists() {
            return Ok(None);
        }
        let conn = connection::reader(&path)?;
        // A maker that was killed in between leaves an empty file; the next one fills it.
        let tables: i64 =
            conn.query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table'", [], |row| row.get(0))?;
        Ok((tables >= 3).then_some(Self { conn }))
    }

    /// Opens it to look at, leaving nothing behind; `None` before any lock holder made it.
    pub fn observe(dir: &DataDir) -> rusqlite::Result<Option<Self>> {
        let path = path(dir);
        // A path that may not be looked at is not one that is missing.
        if path.try_exists().is_ok_and(|there| !there) {
            return Ok(None);
        }
        Ok(Some(Self { conn: connection::observer(&path)? }))
    }

    /// The recorded role.
    pub fn role(&self) -> rusqlite::Result<Option<Role>> {
        let name: Option<String> = self.conn.query_row("SELECT role FROM node", [], |row| row.get(0)).optional()?;
        Ok(name.as_deref().and_then(Role::from_name))
    }

    /// Records the role.
    pub fn set_role(&self, role: Role) -> rusqlite::Result<()> {
        fault::sql("node:role")?;
        self.conn.execute("INSERT OR REPLACE INTO node VALUES (1, ?1)", [role.name()])?;
        Ok(())
    }

    /// How far this node's clock was ahead of its master's when last compared, ms; `None` before that.
    pub fn clock_skew_ms(&self) -> rusqlite::Result<Option<i64>> {
        if !self.has_table("clock")? {
            return Ok(None);
        }
        self.conn.prepare_cached("SELECT skew_ms FROM clock")?.query_row([], |row| row.get(0)).optional()
    }

    /// Records how far this node's clock is ahead of its master's.
    pub fn set_clock_skew_ms(&self, skew_ms: i64) -> rusqlite::Result<()> {
        self.conn.prepare_cached("INSERT OR REPLACE INTO clock VALUES (1, ?1)")?.execute([skew_ms])?;
        Ok(())
    }

    /// The databases that this replica's master has deleted.
    pub fn deleted(&self) -> rusqlite::Result<BTreeSet<String>> {
        if !self.has_table("deleted")? {
            return Ok(BTreeSet::new());
        }
        self.conn.prepare_cached("SELECT name FROM deleted")?.query_map([], |row| row.get(0))?.collect()
    }

    /// Records them, in the place of those before.
    pub fn set_deleted(&mut self, names: &BTreeSet<String>) -> rusqlite::Result<()> {
        let transaction = self.conn.transaction()?;
        transaction.execute("DELETE FROM deleted", [])?;
        for name in names {
            transaction.execute("INSERT INTO deleted VALUES (?1)", [name])?;
        }
        transaction.commit()
    }

    /// The nodes between this one and its master, the nearest first, with commas; empty where there are none.
    pub fn upstream(&self) -> rusqlite::Result<String> {
        if !has_column(&self.conn, "upstream", "path")? {
            return Ok(String::new());
        }
        let path = self.conn.prepare_cached("SELECT path FROM upstream")?.query_row([], |row| row.get(0)).optional()?;
        Ok(path.unwrap_or_default())
    }

    /// Records the nodes between this one and its master.
    pub fn set_upstream(&self, path: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached("INSERT OR REPLACE INTO upstream VALUES (1, ?1)")?.execute([path])?;
        Ok(())
    }

    /// All databases the agent knows, by name.
    pub fn databases(&self) -> rusqlite::Result<Vec<DatabaseState>> {
        // A program of before may have made the file, and this one may only read it.
        let known = |column: &'static str| {
            has_column(&self.conn, "databases", column).map(|known| if known { column } else { "NULL" })
        };
        let (head_ms, files_waiting) = (known("head_ms")?, known("files_waiting")?);
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT name, state, detail, position, head, last_contact_ms, at_head_ms, bootstrapped, {head_ms},
              {files_waiting} FROM databases ORDER BY name",
        ))?;
        let mut states: Vec<DatabaseState> = statement.query_map([], state_row)?.collect::<Result<_, _>>()?;
        if self.has_table("errors")? {
            let mut errors = self.conn.prepare_cached("SELECT name, text, remedy, at_ms FROM errors WHERE db = ?1")?;
            for state in &mut states {
                state.last_error = errors.query_row([&state.name], error_row).optional()?;
            }
        }
        Ok(states)
    }

    /// Records how a database is doing.
    pub fn set_database(&self, state: &DatabaseState) -> rusqlite::Result<()> {
        fault::sql("node:database")?;
        let transaction = self.conn.unchecked_transaction()?;
        let mut statement = transaction.prepare_cached(
            "INSERT OR REPLACE INTO databases (name, state, detail, position, head, last_contact_ms, at_head_ms,
              bootstrapped, updated_ms, head_ms, files_waiting)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        statement.execute(params![
            state.name,
            state.state,
            state.detail,
            state.position.map(|position| position.to_string()),
            state.head.map(|head| head.to_string()),
            state.last_contact_ms,
            state.at_head_ms,
            state.bootstrapped,
            crate::clock::now_ms(),
            state.head_ms,
            state.files_waiting.map(|files| i64::try_from(files).unwrap_or(i64::MAX)),
        ])?;
        if let Some(LastError { name, text, remedy, at_ms }) = &state.last_error {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO errors VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![state.name, name, text, remedy, at_ms])?;
        }
        drop(statement);
        transaction.commit()
    }

    /// Forgets a database that is omitted from now on.
    pub fn forget_database(&self, name: &str) -> rusqlite::Result<()> {
        let transaction = self.conn.unchecked_transaction()?;
        transaction.execute("DELETE FROM databases WHERE name = ?1", [name])?;
        transaction.execute("DELETE FROM errors WHERE db = ?1", [name])?;
        transaction.commit()
    }

    /// Records what was heard of replicas, in one transaction.
    pub fn set_replicas(&mut self, seen: &[ReplicaSeen]) -> rusqlite::Result<()> {
        let transaction = self.conn.transaction()?;
        for seen in seen {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO replicas VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![
                    seen.replica,
                    seen.db,
                    seen.position.to_string(),
                    seen.last_contact_ms,
                    seen.public_url,
                    seen.boot_id,
                    seen.version,
                ])?;
        }
        fault::sql("node:replicas")?;
        transaction.commit()
    }

    /// The databases that this master has, or had: whether each was made whole. Empty on a replica.
    pub fn known(&self) -> rusqlite::Result<BTreeMap<String, bool>> {
        if !self.has_table("known")? {
            return Ok(BTreeMap::new());
        }
        let mut statement = self.conn.prepare_cached("SELECT name, made FROM known")?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// Remembers a database of this master before its file is made, so that one that was cut short is not missed.
    pub fn remember_making(&self, name: &str) -> rusqlite::Result<()> {
        self.conn.execute("INSERT OR IGNORE INTO known VALUES (?1, 0)", [name])?;
        Ok(())
    }

    /// Remembers a database of this master, whose file is whole: from now on it is missed.
    pub fn remember_made(&self, name: &str) -> rusqlite::Result<()> {
        self.conn.execute("INSERT OR REPLACE INTO known VALUES (?1, 1)", [name])?;
        Ok(())
    }

    /// Misses a database no longer. Whether it would have been.
    pub fn give_up(&mut self, name: &str) -> rusqlite::Result<bool> {
        let transaction = self.conn.transaction()?;
        let known = transaction.execute("DELETE FROM known WHERE name = ?1", [name])? > 0;
        let closed = transaction.execute("DELETE FROM fingerprints WHERE name = ?1", [name])? > 0;
        transaction.commit()?;
        Ok(known || closed)
    }

    /// What the master's database files looked like at the last clean stop. Gone afterwards: from now on they change.
    pub fn take_fingerprints(&mut self) -> rusqlite::Result<BTreeMap<String, String>> {
        let transaction = self.conn.transaction()?;
        // A program from before `known` left these.
        transaction.execute("INSERT OR IGNORE INTO known SELECT name, 1 FROM fingerprints", [])?;
        let found = transaction
            .prepare("SELECT name, fingerprint FROM fingerprints")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        transaction.execute("DELETE FROM fingerprints", [])?;
        fault::sql("node:take-fingerprints")?;
        transaction.commit()?;
        Ok(found)
    }

    /// Records what the master's database files look like, now that they are closed.
    pub fn set_fingerprints(&mut self, fingerprints: &BTreeMap<String, String>) -> rusqlite::Result<()> {
        let transaction = self.conn.transaction()?;
        for (name, fingerprint) in fingerprints {
            transaction.execute("INSERT OR REPLACE INTO fingerprints VALUES (?1, ?2)", [name, fingerprint])?;
        }
        fault::sql("node:set-fingerprints")?;
        transaction.commit()
    }

    /// Whether the file has a table that programs of before it do not make.
    fn has_table(&self, name: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1)";
        self.conn.prepare_cached(sql)?.query_row([name], |row| row.get(0))
    }

    /// Forgets replicas' copies that were not heard of since `before_ms`.
    pub fn forget_replicas(&self, before_ms: i64) -> rusqlite::Result<()> {
        self.conn.execute("DELETE FROM replicas WHERE last_contact_ms < ?1", [before_ms])?;
        Ok(())
    }

    /// All replicas that were seen and not forgotten, by id and database.
    pub fn replicas(&self) -> rusqlite::Result<Vec<ReplicaSeen>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT replica, db, position, last_contact_ms, public_url, boot_id, version FROM replicas ORDER BY replica, db",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(ReplicaSeen {
                replica: row.get(0)?,
                db: row.get(1)?,
                position: parsed(row, 2)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?,
                last_contact_ms: row.get(3)?,
                public_url: row.get(4)?,
                boot_id: row.get(5)?,
                version: row.get(6)?,
            })
        })?;
        rows.collect()
    }
}

fn error_row(row: &Row<'_>) -> rusqlite::Result<LastError> {
    Ok(LastError { name: row.get(0)?, text: row.get(1)?, remedy: row.get(2)?, at_ms: row.get(3)? })
}

fn path(dir: &DataDir) -> PathBuf {
    dir.private().join("node.db")
}

fn has_column(conn: &Connection, table: &str, column: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)";
    conn.prepare_cached(sql)?.query_row([table, column], |row| row.get(0))
}

fn state_row(row: &Row<'_>) -> rusqlite::Result<DatabaseState> {
    Ok(DatabaseState {
        name: row.get(0)?,
        state: row.get(1)?,
        detail: row.get(2)?,
        position: parsed(row, 3)?,
        head: parsed(row, 4)?,
        last_contact_ms: row.get(5)?,
        at_head_ms: row.get(6)?,
        bootstrapped: row.get(7)?,
        last_error: None,
        head_ms: row.get(8)?,
        files_waiting: row.get::<_, Option<i64>>(9)?.and_then(|files| u64::try_from(files).ok()),
    })
}

fn parsed(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Position>> {
    let text: Option<String> = row.get(column)?;
    let parse = |text: String| {
        text.parse().map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
        })
    };
    text.map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_lock_holder_writes_the_other_process_reads() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        assert!(NodeDb::read(&dir).unwrap().is_none());
        let writer = NodeDb::open(&dir).unwrap();
        let reader = NodeDb::read(&dir).unwrap().expect("it exists now");
        assert_eq!(reader.role().unwrap(), None);
        writer.set_role(Role::Replica).unwrap();
        let mut state = DatabaseState::new("default", "bootstrap");
        writer.set_database(&state).unwrap();
        state.bootstrapped = true;
        state.at_head_ms = Some(1_000);
        writer.set_database(&state).unwrap();
        assert_eq!(reader.role().unwrap(), Some(Role::Replica));
        assert_eq!(reader.databases().unwrap(), [state.clone()]);
        assert_eq!(state.lag_seconds(3_500), Some(2.5));
    }

    #[test]
    fn a_directory_that_has_its_role_is_claimed_without_a_write_and_a_full_volume_is_told() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let claimed = || claim(&dir, Role::Master, Holder::this_process("master"));
        let (lock, node) = claimed().unwrap();
        let full = "CREATE TRIGGER full BEFORE INSERT ON node BEGIN SELECT RAISE(ABORT, 'full'); END";
        node.conn.execute_batch(full).unwrap();
        assert!(node.set_role(Role::Master).is_err());
        drop((lock, node));
        claimed().unwrap();

        let full = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None);
        let told = ClaimError::NodeDb { path: dir.private(), source: full }.to_string();
        assert!(told.contains("make room") && !told.contains("move it away"), "{told}");
    }

    #[test]
    fn it_has_its_size_from_the_start_and_its_log_is_used_again_before_it_is_large() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let writer = NodeDb::open(&dir).unwrap();
        let log = || connection::wal_bytes(&path(&dir));
        let file = || std::fs::metadata(path(&dir)).unwrap().len();
        let made = file();
        let write = |times: i64| (0..times).for_each(|skew_ms| writer.set_clock_skew_ms(skew_ms).unwrap());
        write(100);
        let settled = log();
        write(1_000);
        assert_eq!((log(), file()), (settled, made));
    }

    #[test]
    fn a_file_of_an_older_program_gets_what_it_lacks_when_it_is_next_written() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let older = NodeDb::open(&dir).unwrap();
        older.conn.execute_batch("DROP TABLE clock; DROP TABLE upstream").unwrap();
        let mut state = DatabaseState::new("default", "follow");
        older.set_database(&state).unwrap();
        for column in ["head_ms", "files_waiting"] {
            older.conn.execute_batch(&format!("ALTER TABLE databases DROP COLUMN {column}")).unwrap();
        }
        let reader = NodeDb::read(&dir).unwrap().expect("it exists");
        assert_eq!(reader.clock_skew_ms().unwrap(), None);
        assert_eq!((reader.databases().unwrap(), reader.upstream().unwrap()), (vec![state.clone()], String::new()));
        let writer = NodeDb::open(&dir).unwrap();
        assert_eq!(reader.clock_skew_ms().unwrap(), None);
        writer.set_clock_skew_ms(5).unwrap();
        writer.set_clock_skew_ms(-7).unwrap();
        assert_eq!(reader.clock_skew_ms().unwrap(), Some(-7));
        (state.head_ms, state.files_waiting) = (Some(3), Some(4));
        writer.set_database(&state).unwrap();
        writer.set_upstream("b,c").unwrap();
        assert_eq!((reader.databases().unwrap(), reader.upstream().unwrap()), (vec![state], "b,c".to_owned()));
    }

    #[test]
    fn a_database_is_missed_once_it_was_made_and_until_it_is_given_up() {
        let temporary = tempfile::tempdir().unwrap();
        let mut node = NodeDb::open(&DataDir::open(temporary.path()).unwrap()).unwrap();
        node.remember_making("shop").unwrap();
        assert_eq!(node.known().unwrap(), BTreeMap::from([("shop".to_owned(), false)]));
        node.remember_made("shop").unwrap();
        node.remember_making("shop").unwrap();
        node.set_fingerprints(&BTreeMap::from([("older".to_owned(), "1".to_owned())])).unwrap();
        node.take_fingerprints().unwrap();
        assert_eq!(node.known().unwrap(), BTreeMap::from([("older".to_owned(), true), ("shop".to_owned(), true)]));
        node.set_fingerprints(&BTreeMap::from([("shop".to_owned(), "2".to_owned())])).unwrap();
        assert!(node.give_up("shop").unwrap() && !node.give_up("shop").unwrap());
        node.take_fingerprints().unwrap();
        assert!(!node.known().unwrap().contains_key("shop"));
        node.demote().unwrap();
        assert!(node.known().unwrap().is_empty(), "a replica's databases are its master's business");
    }

    #[test]
    fn a_directory_keeps_the_role_of_its_first_start() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        drop(claim(&dir, Role::Replica, Holder::this_process("agent")).unwrap());
        let refusal = claim(&dir, Role::Master, Holder::this_process("master")).err().expect("the other role");
        assert!(refusal.to_string().contains("REPLICA_MODE=replica"), "{refusal}");
        claim(&dir, Role::Replica, Holder::this_process("agent")).unwrap();
    }
}
