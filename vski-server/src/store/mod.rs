//! Databases on disk: who may write them, how a write becomes an entry of the log, what a collection is.
//!
//! A write travels one way: handler -> `writer::Writer`'s bounded queue -> the database's one writer thread ->
//! one transaction that holds the rows and their log entry -> answer. A read takes a connection from `reader::Reader`.

/// What can go wrong, and what it means to a caller.
pub mod error;

/// Read-only connections, and a bound on how long a read may take.
pub mod reader;

/// What a writer thread is asked to do.
pub mod request;

/// One queue, one thread, one connection per database; group commit.
pub mod writer;

/// One transaction: rows or a schema change, captured, logged, committed.
pub mod transaction;

/// Whether a database can be replicated.
pub mod replicable;

/// The span of a transaction, and the trace of its entry.
mod commit_span;

/// Manual migrations: SQL taken apart.
pub mod migration;

/// Manual migrations: one transaction, one entry.
mod migrate;

/// Manual migrations: tables that they keep out of.
mod guard;

/// What a closed database file looks like.
mod fingerprint;

/// Opening and making a database file on a master.
pub mod database;

/// Databases that were deleted.
pub mod tombstones;

/// All databases of a master.
pub mod master;

/// All databases of a replica, as they arrive.
pub mod replica;

/// A replica's databases on their way to being a master's.
pub mod promotion;

/// Heads of logs that another process extends.
pub mod heads;

/// The catalogue: collections, their fields and rules.
pub mod collections;

/// Field types: names, checks, and how JSON becomes SQL values and back.
pub mod fields;

/// Rows of a collection.
pub mod records;

/// What a caller does to a record.
pub mod actions;

/// Uploaded files.
pub mod files;
/// Reading and writing records as a caller asked, by the rules.
pub mod query;

/// Many records at once.
pub mod import;

/// Password hashing, a few at a time on threads of its own.
pub mod passwords;

/// Who asks, as rules see it.
pub mod requester;

/// Who may log in: admins, records of auth collections, API keys.
pub mod auth;

/// Record ids and times.
pub mod ids;
