//! Opening a database file on a master: made if it is missing, refused if it is not ours or cannot be replicated.

use std::path::Path;

use rusqlite::Connection;
use vski_replication::changelog::{self, Head, LogError};
use vski_replication::datadir::DataDir;
use vski_replication::entry::{Kind, SchemaChange, schema_payload};
use vski_replication::position::DatabaseId;
use vski_replication::schema;
use vski_replication::{connection, fault, files, names};

use super::auth::{admins, keys};
use super::error::StoreError;
use super::ids;
use super::reader::Reader;
use super::request::Schema;
use super::transaction::WriteConnection;
use super::writer::Writer;
use super::{collections, fingerprint, replicable, tombstones};
use crate::metrics::Metrics;

/// One database of a master.
#[derive(Clone)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// For reads.
    pub reader: Reader,
    /// For writes.
    pub writer: Writer,
}

/// What is known of a file before it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// It had tables once: without any it is refused, not made anew.
    pub made: bool,
    /// What it looked like when it was closed cleanly, if it was.
    pub left: Option<String>,
}

/// Opens the file of `name`, or makes it. The thread ends when the last writer is dropped.
pub fn open(
    dir: &DataDir,
    name: &str,
    metrics: &Metrics,
    before: &Before,
    write_queue: u32,
) -> Result<(Database, std::thread::JoinHandle<()>), StoreError> {
    let path = dir.database(name);
    let open = dir.share_database(name)?.ok_or_else(|| StoreError::NotReady(name.to_owned()))?;
    let edited = before.left.is_some() && fingerprint::of(&path) != before.left;
    let conn = connect(&path, name, before.made).map_err(|error| refused(&path, error))?;
    if let Some(problems) = replicable::problems(&conn)? {
        return Err(StoreError::Invalid(format!("{} cannot be replicated: {problems}", path.display())));
    }
    let writer_metrics = metrics.writer(name);
    let mut conn = WriteConnection::new(name, conn, writer_metrics.clone())?;
    conn.notice_offline_edit(edited)?;
    upgrade(&mut conn, name)?;
    ids::advance_clock(conn.head().committed_ms);
    let reader = Reader::of_own(name, &path, open, conn.commits());
    let (writer, thread) = Writer::start_with(name, conn, writer_metrics, write_queue);
    Ok((Database { name: name.to_owned(), reader, writer }, thread))
}

/// Brings the tables of an older database up to date, as a schema change that its replicas follow.
fn upgrade(conn: &mut WriteConnection, name: &str) -> Result<(), StoreError> {
    let is_default = name == names::DEFAULT_DATABASE;
    if !missing_tables(conn.conn(), is_default)?.is_empty() {
        let (mut request, _answer) = Schema::new(move |conn| missing_tables(conn, is_default), |_| Ok(()));
        conn.commit_schema(&mut request)?;
    }
    // Password fields are known from here on, too.
    collections::Catalogue::load(conn.conn()).map(drop)
}

/// The statements that make what the database of an older version lacks.
fn missing_tables(conn: &Connection, is_default: bool) -> Result<Vec<String>, StoreError> {
    let mut missing = collections::tables::upgrade(conn)?;
    if !files::has_table(conn)? {
        missing.extend(files::TABLES.map(str::to_owned));
    }
    if is_default {
        missing.extend(keys::upgrade(conn)?);
        if !tombstones::has_table(conn)? {
            missing.push(tombstones::TABLE.to_owned());
        }
    }
    Ok(missing)
}

fn connect(path: &Path, name: &str, made: bool) -> Result<Connection, StoreError> {
    // Only reading at first: a writer would switch a stranger's file to WAL before it is refused.
    if std::fs::metadata(path).is_ok_and(|file| file.len() > 0) {
        let conn = connection::reader(path)?;
        if !is_empty(&conn)? {
            changelog::database_id(&conn)?;
        } else if made {
            return Err(StoreError::Invalid(format!("{} has lost all its tables", path.display())));
        }
    }
    let conn = connection::writer(path)?;
    if is_empty(&conn)? {
        create(&conn, name)?;
    }
    changelog::database_id(&conn)?;
    changelog::upgrade(&conn)?;
    Ok(conn)
}

/// Whether this file has no tables at all: new, or its maker was killed before it committed.
fn is_empty(conn: &Connection) -> Result<bool, StoreError> {
    Ok(conn.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_master)", [], |row| row.get(0))?)
}

/// The log, the catalogue and the first entry, in one transaction: a file has all of them or none.
fn create(conn: &Connection, name: &str) -> Result<(), StoreError> {
    let transaction = conn.unchecked_transaction()?;
    let head = changelog::create(&transaction, DatabaseId::random())?;
    let mut statements: Vec<String> = collections::tables::TABLES.map(str::to_owned).to_vec();
    statements.extend(files::TABLES.map(str::to_owned));
    if name == names::DEFAULT_DATABASE {
        statements.extend(admins::TABLES.iter().chain(&keys::TABLES).map(|statement| (*statement).to_owned()));
        statements.push(tombstones::TABLE.to_owned());
    }
    for statement in &statements {
        transaction.execute_batch(statement)?;
    }
    append_first(&transaction, &head, statements)?;
    fault::sql("create:before-commit")?;
    transaction.commit()?;
    Ok(fault::sql("create:after-commit")?)
}

fn append_first(conn: &Connection, head: &Head, statements: Vec<String>) -> Result<(), StoreError> {
    let objects = schema::objects(conn)?;
    let after = schema::hash_objects(&objects);
    let change = SchemaChange { before: head.schema_hash, statements, objects };
    let entry = head.next(Kind::Schema, head.position.epoch, after, schema_payload(&change, &[]));
    Ok(changelog::append(conn, &entry)?)
}

/// Names the file that stands in the way, and says what to do with it.
fn refused(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Log(LogError::NotOurs(_)) | StoreError::Sqlite(_) | StoreError::Damaged(_) => {
            let (path, reason) = (path.display(), error.describe());
            StoreError::Invalid(format!("cannot open {path}: {reason}"))
        }
        other => other,
    }
}
