//! One file for each work.

/// New records.
pub mod create;

/// Records by id.
pub mod get;

/// The first page of many records.
pub mod list;

/// Changes of records.
pub mod update;

/// Reads, and a few writes between them.
pub mod mix;

/// Small and large tables.
pub mod growth;

/// What the log costs.
pub mod capture;

/// From commit to visible on a replica.
pub mod lag;

/// The same under the most writes that the master takes.
pub mod full_speed;

/// A replica that was away.
pub mod catch_up;

/// A replica that has nothing yet.
pub mod bootstrap;

/// Many replicas.
pub mod agents;
