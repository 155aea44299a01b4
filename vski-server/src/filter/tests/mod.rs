//! Filters on a small database in memory.

/// Collections, records and requests.
mod world;

/// Filters and the records that they find.
mod found;

/// Filters that are refused, and where they say it.
mod refused;

/// What users may not look at.
mod hidden;

/// Random filters on random rows, against an evaluator over JSON.
mod model;

/// Indexes are used.
mod plans;
