//! `doctor`: looks for what keeps a node from working, or soon will, and says how to repair it.
//!
//! It changes nothing: databases are opened for reading, the lock is only asked for its holder, and the master hears
//! of an id that is no replica's. One check after another, none depends on an earlier one having gone well. Whoever
//! embeds the agent adds findings of its own.

/// Findings as a table or JSON, and the exit code.
mod report;

/// Secrets and addresses.
mod settings;

/// The data directory and its files.
mod directory;

/// What is in the databases.
mod databases;

/// The master at MASTER_URL.
mod master;

use anyhow::Result;
use clap::Args;
use rusqlite::Connection;
use serde::Serialize;
use vski_replication::connection;
use vski_replication::datadir::DataDir;
use vski_replication::node::Role;

use crate::config::{NodeArgs, SyncArgs};

pub use report::report;
pub use settings::refused;

/// How to look, and how to tell.
#[derive(Args)]
pub struct Look {
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
    /// Have SQLite check every page of every database, and compare the bytes of all uploaded files: reads all of them
    #[arg(long)]
    pub deep: bool,
}

/// The node that is looked at.
pub struct Subject<'a> {
    /// Its settings.
    pub node: &'a NodeArgs,
    /// Its master, if it has one.
    pub sync: &'a SyncArgs,
    /// The role it is to be started in.
    pub role: Role,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Good to know.
    Info,
    /// It works, but not well or not for long.
    Warning,
    /// It does not work.
    Error,
}

impl Level {
    /// The word in tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What is so.
    pub what: String,
    /// What to do about it; `None` where nothing has to be done.
    pub repair: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(what: impl Into<String>) -> Self {
        Self { level: Level::Ok, what: what.into(), repair: None }
    }

    /// Good to know.
    pub fn info(what: impl Into<String>, repair: &str) -> Self {
        Self { level: Level::Info, what: what.into(), repair: Some(repair.to_owned()) }
    }

    /// It works, but not well or not for long.
    pub fn warning(what: impl Into<String>, repair: impl Into<String>) -> Self {
        Self { level: Level::Warning, what: what.into(), repair: Some(repair.into()) }
    }

    /// It does not work.
    pub fn error(what: impl Into<String>, repair: impl Into<String>) -> Self {
        Self { level: Level::Error, what: what.into(), repair: Some(repair.into()) }
    }
}

/// All that both programs check. Call outside any tokio runtime.
pub fn examine(subject: &Subject<'_>, look: &Look) -> Result<Vec<Finding>> {
    let mut found = vec![sqlite()];
    found.extend(settings::examine(subject));
    let dir = DataDir::untouched(&subject.node.data_dir);
    found.extend(directory::examine(&dir, subject.role));
    found.extend(directory::node_id(&dir, subject.node.replica_id.as_deref()));
    found.extend(databases::examine(&dir, subject.role, look.deep));
    found.extend(master::examine(subject)?);
    Ok(found)
}

/// Opens a database to look at it; leaves nothing behind.
pub fn open(dir: &DataDir, db: &str) -> rusqlite::Result<Connection> {
    connection::observer(&dir.database(db))
}

fn sqlite() -> Finding {
    match connection::check_version() {
        Ok(()) => Finding::ok(format!("SQLite {}", rusqlite::version())),
        Err(message) => Finding::error(message, "install a program that was built with the SQLite it brings along"),
    }
}

#[cfg(test)]
mod tests;
