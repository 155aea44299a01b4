//! The sync agent: keeps a VSKI data directory equal to its master.
//!
//! One state machine per database, one supervisor that follows the set of databases. A separate process runs it
//! through [`cli`]; a replica's server embeds it through [`supervisor`]. `DESIGN.md` beside this crate lists the
//! invariants, the states, and what a restart does at every point where a process can die.

/// Flags and variables that the agent and the server share, checked once into plain values.
pub mod config;

/// Logs to stderr, traces to an OTLP collector.
pub mod telemetry;

/// The trace of a write, from entries to spans and back.
pub mod trace;

/// One supervisor: the set of databases, their tasks, requests to sync now.
pub mod supervisor;

/// One database: the state machine that brings it to the master's head and keeps it there.
mod agent;

/// What can go wrong, and what follows from it.
pub mod error;

/// Which master may be followed, from both positions.
mod lineage;

/// The master, over HTTP.
pub mod source;

/// Entries checked before SQLite sees a byte of them.
mod verify;

/// The local copy of one database: entries are applied here.
pub mod apply;

/// A new database: snapshot, download, install.
mod bootstrap;

/// A copy whose log no longer leads to the master's: made equal in place.
mod converge;

/// Chunks of a snapshot: fetched in parallel, verified, resumable.
mod download;

/// Uploaded files: fetched as rows name them, removed when none does.
mod files;

/// Work for SQLite and the disk, off the asynchronous workers.
mod blocking;

/// Every file operation of a bootstrap, in one place.
mod fs;

/// How long to wait before trying again, and how often to complain.
mod backoff;

/// Requests to sync now, and their answers.
mod round;

/// How every database is doing, for readers in this process, for node.db, for metrics.
mod board;

/// node.db behind a thread, so that its commits never hold up a database.
mod node_writer;

/// Prometheus metrics.
pub mod metrics;

/// The listener of the separate process: probes, metrics, sync now.
pub mod admin;

/// What keeps a node from working, and how to repair it.
pub mod doctor;

/// One question to a listener of this machine.
pub mod healthcheck;

/// The commands run, sync, status and doctor.
pub mod cli;

#[cfg(test)]
mod testing;
