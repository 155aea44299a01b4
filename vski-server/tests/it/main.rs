//! The server's integration tests: the store in this process, the programs as child processes.
#![allow(clippy::unwrap_used, reason = "tests say what they expect by failing")]

/// A master's store in a temporary directory.
mod store;

/// Random writes and schema changes, captured here and applied by the agent's code, give equal tables.
mod capture;

/// Group commit: one bad request never hurts its neighbours, whatever it does.
mod batch;

/// Pruning of the log, and what leases keep.
mod retention;

/// Manual migrations.
mod migration;

/// What SQLite's session extension gets wrong if it is let.
mod pitfalls;

/// Collections and records of every kind.
mod collections;

/// Limits of the write path.
mod limits;

/// Spans reach an OTLP receiver.
mod tracing;

/// The configuration table of the README is the program's.
mod configuration;

/// Databases from before there were API keys.
mod keys;

/// Databases that are deleted and restored.
mod databases;
