//! The master's side of replication: what it tells replicas of itself, the copies it offers, whom it has seen.

/// Databases and their positions, as replicas see them.
pub mod status;

/// Copies of databases for replicas that have none.
pub mod snapshot;

/// The replicas that were heard of.
pub mod replicas;

/// What a snapshot holds, table by table and range by range: for replicas that compare.
pub mod compare;
