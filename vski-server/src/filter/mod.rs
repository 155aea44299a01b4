//! Filters and rules: PocketBase's language of conditions.
//!
//! A text becomes a tree (`parse`), and a tree becomes SQL for one collection's records (`compile`). No text of a
//! filter ever gets into the SQL: every value is a bound parameter, and every name is one that the catalogue has. What a
//! filter cannot say is an error that tells the column.
//!
//! A `Condition` speaks of the main record by an alias and of all others in subqueries, so that conditions compose in
//! any `WHERE`.
//!
//! How much one may ask for is said by [`FilterLimits`](crate::config::FilterLimits): the settings' for what a request
//! sends, fixed ones for rules.

/// The tree, and how it is printed.
pub mod ast;

/// Text to tree.
mod parse;

/// Dates: `@now` and its like, and the forms in which people write one.
mod macros;

/// SQL with its parameters.
mod sql;

/// What `@request` stands for.
mod request;

/// What a path can mean.
mod way;

/// From a path to columns of tables, by relations.
mod paths;

/// From a path into the request to its values, or on through the database.
mod requested;

/// One comparison.
mod compare;

/// Tree to SQL.
mod compile;

/// What a rule may speak of when it is stored.
mod stored;

/// The order of a list.
mod sort;

#[cfg(test)]
mod tests;

pub use compile::{Scope, compile, rule, shows_email};
pub use parse::{parse, parse_sent};
pub use paths::back_relation;
pub use request::RequestInfo;
pub use sort::order_by;
pub use sql::Condition;
pub use stored::check;

/// Names of a path, keys inside a JSON value included.
pub const MAX_PATH_SEGMENTS: usize = 12;

/// Tables in one subquery: SQLite joins at most 64.
pub const MAX_TABLES: usize = 60;

/// What is wrong with a filter, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct FilterError {
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl FilterError {
    /// An error at a byte of the text.
    fn at(text: &str, byte: usize, message: String) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        Self { column: before.chars().count() + 1, message }
    }
}
