//! What a VSKI server and its sync agent must agree on.
//!
//! Two processes share a data directory and two nodes share a history; everything that either pair has to see
//! in the same way lives here, and nothing else: no HTTP client, no web framework, no async runtime.
//!
//! Reading order: [`position`] names a point of history, [`entry`] is one step of it, [`chain`] ties the steps
//! together. [`schema`] compares table layouts, [`session`] captures and applies rows, [`changelog`] stores the
//! entries beside the rows. [`snapshot`] describes a copied file, [`token`] says who may fetch it, [`files`] names what was uploaded, [`datadir`] and
//! [`node`] say who may write where, [`names`] fixes the words on the wire.

/// Databases, epochs, chains and positions: who a history belongs to and how far it has got.
pub mod position;

/// One step of a history, and its frame on the wire.
pub mod entry;

/// The digest that ties each entry to everything before it.
pub mod chain;

/// The trace that a write belongs to, carried with its entry.
pub mod trace;

/// Tables, indexes, triggers and views: read, hashed, compared, migrated, and checked for safe replication.
pub mod schema;

/// SQLite's session extension: capture the rows a transaction changes, apply them elsewhere.
pub mod session;

/// The log of entries inside each database.
pub mod changelog;

/// Connections by intent, and the SQLite version both processes insist on.
pub mod connection;

/// A table's rows in ranges that two nodes cut alike: for comparing and mending.
pub mod ranges;

/// What a downloaded database file must look like before it is used.
pub mod snapshot;

/// The digest of a JSON answer.
pub mod digest;

/// Which entries a replica's log has to keep for snapshots that its server gave out.
pub mod lease;

/// The tokens that nodes mint for each other from the shared secret.
pub mod token;

/// The data directory: files, locks, this node's id.
pub mod datadir;

/// Uploaded files: the table that names them, and where their bytes lie.
pub mod files;

/// What is true of this node only: its role, its progress, the replicas it has seen.
pub mod node;

/// Route, header and reserved names.
pub mod names;

/// The time of this node's clock.
pub mod clock;

/// Labelled places at which a test can make this process die.
pub mod fault;

/// For tests of this crate and of those that use it.
#[doc(hidden)]
pub mod damage;
