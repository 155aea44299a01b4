//! Records as a caller asked for them: rules and filter, order, pages, expanded relations, chosen fields.
//!
//! A rule and a filter become one condition of one statement. Relations are expanded level by level: one statement for
//! all records of a level, however many they are. Whatever is shown of a record was let through by a rule of its own
//! collection, or is what the caller has just written.

/// One record, and pages of them.
pub mod list;

/// `expand`: records that others refer to, inside these.
pub mod expand;

/// `fields`: which parts of a record are sent.
pub mod project;

/// Rules: who gets through, and what they are told otherwise.
pub mod rules;

/// Lists of the server's own tables.
pub mod own;

/// Records made, changed and removed by who may.
pub mod write;

use serde_json::Value;

use self::expand::Expansion;
use self::project::Projection;
use super::collections::{Catalogue, Collection};
use super::error::StoreError;
use crate::config::FilterLimits;
use crate::filter::{RequestInfo, Scope};

/// The main record's alias in every statement.
pub const ALIAS: &str = "r";

/// Who asks, of which catalogue.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// All collections.
    pub catalogue: &'a Catalogue,
    /// The request.
    pub request: &'a RequestInfo,
}

impl<'a> Asking<'a> {
    /// The scope of what the caller wrote, a filter or an order; limits of its own are the list's.
    #[must_use]
    pub fn scope(&self, collection: &'a Collection) -> Scope<'a> {
        let Self { catalogue, request } = *self;
        let limits = FilterLimits::RULES;
        Scope { catalogue, collection, request, trusted: self.is_admin(), alias: ALIAS, limits }
    }

    /// Whether rules do not apply.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.request.requester.is_admin()
    }
}

/// What a caller wants to see of each record.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Relations to expand.
    pub expand: Expansion,
    /// Fields to send; all if there is none.
    pub fields: Option<Projection>,
}

impl Shape {
    /// Reads `expand` and `fields`, as they stand in a URL.
    pub fn parse(expand: Option<&str>, fields: Option<&str>, limits: FilterLimits) -> Result<Self, StoreError> {
        let expand = Expansion::parse(expand.unwrap_or_default(), limits.relation_depth)?;
        Ok(Self { expand, ..Self::fields(fields)? })
    }

    /// Reads `fields`, where there is nothing to expand.
    pub fn fields(fields: Option<&str>) -> Result<Self, StoreError> {
        let fields = fields.filter(|text| !text.trim().is_empty()).map(Projection::parse).transpose()?;
        Ok(Self { expand: Expansion::default(), fields })
    }

    /// Whether more records than the one are needed.
    #[must_use]
    pub fn expands(&self) -> bool {
        self.expand != Expansion::default()
    }

    /// Whether a record is sent as it is read.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.fields.is_none() && !self.expands()
    }

    /// Keeps the wanted fields of records that were expanded.
    #[must_use]
    pub fn project(&self, record: Value) -> Value {
        match &self.fields {
            Some(fields) => fields.apply(&record),
            None => record,
        }
    }
}
