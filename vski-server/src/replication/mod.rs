//! The master's side of replication: what it tells replicas of itself, the copies it offers, whom it has seen.

/// Databases and their positions, as replicas see them.
pub mod status;

/// Copies of databases for replicas that have none.
pub mod snapshot;

/// Pruning of the logs.
pub mod retention;

/// How each replica is doing.
pub mod verdict;

/// The replicas that were heard of.
pub mod replicas;
