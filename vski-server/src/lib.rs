//! VSKI's server: a REST API over SQLite databases, as a master that takes writes or as a replica that does not.
//!
//! Reading order: [`cli`] is what can be typed, [`config`] what can be set; [`serve`] builds [`app::App`] and runs it;
//! [`http`] is the wire, [`store`] the databases, [`replication`] the master's side of replication. The replica's side
//! is the crate `vski-sync-agent`. DESIGN.md beside this crate has the invariants.

use mimalloc::MiMalloc;

/// Threads free what others have allocated here (an answer of the writer's, a connection that moved), which glibc's allocator
/// takes a lock for; and what logins leave behind it never gives back. See docs/PERFORMANCE.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Commands.
pub mod cli;

/// Flags and variables of `serve`.
pub mod config;

/// Building, running and draining a node.
pub mod serve;

/// The threads that requests are answered on.
pub mod workers;

/// What a serving process owns.
pub mod app;

/// The REST API.
pub mod http;

/// Filters and rules, from text to SQL.
pub mod filter;

/// Databases, collections, records.
pub mod store;

/// The master's side of replication.
pub mod replication;

/// The trace that a request belongs to.
pub mod trace;

/// What this process counts.
pub mod metrics;
