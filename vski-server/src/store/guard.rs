//! What keeps a migration out of the tables that the server keeps for itself: SQLite asks about each statement as it is
//! prepared, whatever quotes its names stand in, and about the triggers that it would fire.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use vski_replication::names;

use super::error::StoreError;

/// Tables of the server's own whose rows are changed by its routes and commands only, and by which.
pub const OWN_TABLES: [(&str, &str); 4] = [
    ("_superusers", "change admins by /api/admins or vski-server admin"),
    ("_api_keys", "change API keys by /api/keys"),
    ("_databases", "change databases by /api/databases"),
    ("_files", "change files with their records"),
];

/// The guard of one connection. It lets everything pass but what runs in [`Self::over`].
pub struct Guard(Arc<Mutex<Watch>>);

#[derive(Default)]
struct Watch {
    is_on: bool,
    /// Why a statement was not let through.
    refused: Option<String>,
}

impl Guard {
    /// Puts a guard on a connection.
    pub fn set(conn: &mut Connection) -> rusqlite::Result<Self> {
        let watch = Arc::new(Mutex::new(Watch::default()));
        let seen = Arc::clone(&watch);
        conn.authorizer(Some(move |context: AuthContext<'_>| {
            let mut watch = lock(&seen);
            let reason = if watch.is_on { changed(&context.action).and_then(reason) } else { None };
            match reason {
                None => Authorization::Allow,
                Some(reason) => {
                    watch.refused.get_or_insert(reason);
                    Authorization::Deny
                }
            }
        }))?;
        Ok(Self(watch))
    }

    /// Takes the guard off.
    pub fn unset(conn: &mut Connection) -> rusqlite::Result<()> {
        conn.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)
    }

    /// Runs `work`; an error if it wanted to change what is the server's own.
    pub fn over<T>(&self, work: impl FnOnce() -> T) -> Result<T, StoreError> {
        *lock(&self.0) = Watch { is_on: true, refused: None };
        let done = work();
        match std::mem::take(&mut *lock(&self.0)).refused {
            None => Ok(done),
            Some(reason) => Err(StoreError::Invalid(format!("nothing was changed: {reason}"))),
        }
    }
}

fn lock(watch: &Mutex<Watch>) -> MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The table that is to be changed, or whose schema is.
fn changed<'a>(action: &AuthAction<'a>) -> Option<&'a str> {
    match action {
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name }
        | AuthAction::CreateTable { table_name }
        | AuthAction::CreateIndex { table_name, .. }
        | AuthAction::CreateTrigger { table_name, .. }
        | AuthAction::DropTable { table_name }
        | AuthAction::DropIndex { table_name, .. }
        | AuthAction::AlterTable { table_name, .. } => Some(table_name),
        _ => None,
    }
}

/// Why a table may not be changed.
fn reason(table: &str) -> Option<String> {
    if starts_reserved(table) {
        return Some(format!("{table}: tables that begin with {} are the log's own", names::RESERVED_PREFIX));
    }
    let (name, instead) = OWN_TABLES.iter().find(|(name, _)| name.eq_ignore_ascii_case(table))?;
    Some(format!("{name} is the server's own: {instead}"))
}

/// Whether a name is one of those that the log has for itself.
#[must_use]
pub fn starts_reserved(name: &str) -> bool {
    let start = name.get(..names::RESERVED_PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(names::RESERVED_PREFIX))
}
