//! Running a manual migration: one transaction, one entry.

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use vski_replication::changelog;
use vski_replication::entry::EpochReason;
use vski_replication::schema::{self, Object, diff};
use vski_replication::session::Session;
use vski_replication::trace::Trace;

use super::collections;
use super::error::StoreError;
use super::guard::Guard;
use super::migration::{Done, Plan};
use super::transaction::{CAPTURE_CAP, WriteConnection};

/// Tables that the server itself cannot do without.
const CATALOGUE: [&str; 5] = ["_collections", "_databases", "_files", "_superusers", "_api_keys"];

/// Runs `plan` and answers what the log says of it. While it changes the schema foreign keys are off, as SQLite's own
/// procedure for such changes has it: dropping a table would delete rows of others, which no entry would tell. They
/// must hold again at the end. `trace` is that of the request.
pub fn run(writer: &mut WriteConnection, plan: &Plan, trace: Option<Trace>) -> Result<Done, StoreError> {
    let guard = Guard::set(writer.conn_mut())?;
    let done = guarded(writer, plan, trace, &guard);
    Guard::unset(writer.conn_mut())?;
    done
}

fn guarded(writer: &mut WriteConnection, plan: &Plan, trace: Option<Trace>, guard: &Guard) -> Result<Done, StoreError> {
    if !plan.changes_schema() {
        return writer.commit_migration(trace, |writer| in_transaction(writer, plan, guard));
    }
    let enforced = writer.conn().db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY)?;
    writer.conn().set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    let done = writer.commit_migration(trace, |writer| in_transaction(writer, plan, guard));
    writer.conn().set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, enforced)?;
    done
}

fn in_transaction(writer: &WriteConnection, plan: &Plan, guard: &Guard) -> Result<(Done, changelog::Head), StoreError> {
    let conn = writer.conn();
    let before = writer.head();
    let (ours, untouched, unreadable) = (catalogue(conn)?, marks(conn)?, collections::unreadable(conn)?);
    execute(conn, guard, &plan.schema)?;
    let changeset = if plan.capturable { captured(conn, guard, &plan.rest)? } else { None };
    if !plan.capturable {
        execute(conn, guard, &plan.rest)?;
    }
    if plan.changes_schema() {
        if catalogue(conn)? != ours {
            let names = CATALOGUE.join(", ");
            return Err(StoreError::Invalid(format!("{names} are the server's own: their schema may not change")));
        }
        writer.check_gate()?;
        check_foreign_keys(conn)?;
    }
    if let Some(reason) = collections::unreadable(conn)?.into_iter().find(|reason| !unreadable.contains(reason)) {
        return Err(StoreError::Invalid(format!("nothing was changed: {reason}")));
    }
    let (entry, head) = match changeset {
        // Such as CREATE TABLE IF NOT EXISTS where there is one.
        _ if marks(conn)? == untouched => ("none", before),
        Some(changeset) if !plan.schema.is_empty() => {
            ("schema", writer.append_schema(plan.schema.clone(), &changeset)?)
        }
        Some(changeset) => {
            let head = writer.append_changes(changeset)?;
            (if head == before { "none" } else { "changes" }, head)
        }
        None => ("epoch", writer.append_epoch(EpochReason::Uncaptured)?),
    };
    Ok((Done { before: before.position.version, version: head.position.version, entry }, head))
}

/// The changeset of `statements`; `None` once it is larger than an entry may carry, with all of them run.
fn captured(conn: &Connection, guard: &Guard, statements: &[String]) -> Result<Option<Vec<u8>>, StoreError> {
    let mut session = Some(Session::start(conn)?);
    for statement in statements {
        execute(conn, guard, std::slice::from_ref(statement))?;
        if session.as_ref().is_some_and(|session| session.changeset_size() > CAPTURE_CAP) {
            session = None;
        }
    }
    Ok(session.map(|session| session.changeset()).transpose()?)
}

/// An error that ended the transaction by itself is an error like any other: nothing after it runs.
fn execute(conn: &Connection, guard: &Guard, statements: &[String]) -> Result<(), StoreError> {
    let run = || diff::run(conn, statements);
    guard.over(run)?.map_err(|error| match error {
        diff::MigrateError::Statement { statement, source } => match StoreError::from(source) {
            StoreError::Sqlite(source) => {
                StoreError::Invalid(format!("nothing was changed: {source}, in: {}", statement.trim()))
            }
            other => other,
        },
        other => StoreError::Invalid(other.to_string()),
    })
}

/// SQLite's counters of schema changes and of changed rows: while both stand still, nothing was changed.
fn marks(conn: &Connection) -> Result<(i64, u64), StoreError> {
    let schema = conn.query_row("PRAGMA schema_version", [], |row| row.get(0))?;
    Ok((schema, conn.total_changes()))
}

fn catalogue(conn: &Connection) -> Result<Vec<Object>, StoreError> {
    let ours = |object: &Object| object.kind == "table" && CATALOGUE.contains(&object.name.as_str());
    Ok(schema::objects(conn)?.into_iter().filter(ours).collect())
}

fn check_foreign_keys(conn: &Connection) -> Result<(), StoreError> {
    let mut statement = conn.prepare("SELECT DISTINCT \"table\", parent FROM pragma_foreign_key_check")?;
    let broken: Vec<String> = statement
        .query_map([], |row| Ok(format!("{} to {}", row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
        .collect::<Result<_, _>>()?;
    if broken.is_empty() {
        return Ok(());
    }
    let broken = broken.join(", ");
    Err(StoreError::Invalid(format!("nothing was changed: foreign keys would be broken afterwards: {broken}")))
}
