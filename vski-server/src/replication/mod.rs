//! The server's part in replication: what a node tells replicas of itself, the copies it offers, whom it has seen, and
//! whether a write has arrived. A replica does all of this too, for replicas that follow it.

/// Databases and their positions, as replicas see them.
pub mod status;

/// What a replica passes on of its master.
pub mod relay;

/// Copies of databases for replicas that have none.
pub mod snapshot;

/// Pruning of a master's logs.
pub mod retention;

/// How each replica is doing.
pub mod verdict;

/// The replicas that were heard of.
pub mod replicas;

/// Entries as they are sent, made once for many.
pub mod frames;

/// When each of many long polls is answered.
pub mod turns;

/// What a snapshot holds, table by table and range by range: for replicas that compare.
pub mod compare;

/// Read-your-writes: waiting for an entry.
pub mod arrival;
