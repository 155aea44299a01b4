//! How a replica's databases are doing: a row for each, from the agent's task to the server, `status` and the metrics.

use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::{NodeDb, has_column, parsed};
use crate::fault;
use crate::position::Position;

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

impl NodeDb {
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

fn error_row(row: &Row<'_>) -> rusqlite::Result<LastError> {
    Ok(LastError { name: row.get(0)?, text: row.get(1)?, remedy: row.get(2)?, at_ms: row.get(3)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datadir::DataDir;
    use crate::node::Role;

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
}
