//! What a path means: a value that is known, or a way through tables to one.

use rusqlite::types::Value as Sql;

use crate::store::collections::Collection;

/// What is known of a value before a row is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A number; a column without one has 0.
    Number,
    /// 0 or 1.
    Bool,
    /// Text in the form of stored times.
    Date,
    /// Anything: from JSON or from the request.
    Loose,
}

/// A path, understood.
#[derive(Clone, Debug)]
pub enum Resolved<'a> {
    /// A value that is known already; `literal` if it stands in the filter itself.
    Constant {
        /// The value.
        value: Sql,
        /// What it is.
        kind: Kind,
        /// Whether it stands in the filter.
        literal: bool,
    },
    /// Columns.
    Way(Way<'a>),
    /// Whether the body has a value, and another than the record's column.
    Changed {
        /// The body's value.
        body: Sql,
        /// The column.
        way: Way<'a>,
    },
}

/// A way through tables to a value.
#[derive(Clone, Debug)]
pub struct Way<'a> {
    /// From the main record on.
    pub steps: Vec<Step<'a>>,
    /// What is read of the last step's row.
    pub leaf: Leaf<'a>,
    /// What the value is.
    pub kind: Kind,
    /// In lower case.
    pub lower: bool,
}

/// One more table.
#[derive(Clone, Debug)]
pub struct Step<'a> {
    /// Two steps with one key are about the same row.
    pub key: String,
    /// How it is found.
    pub join: Join<'a>,
}

/// How the next row is found.
#[derive(Clone, Debug)]
pub enum Join<'a> {
    /// The record that a column names.
    One(&'a Collection, &'a str),
    /// The records that a column names.
    Many(&'a Collection, &'a str),
    /// The records whose column names this one.
    Back(&'a Collection, &'a str),
    /// The records whose column names this one among others.
    BackMany(&'a Collection, &'a str),
    /// Any record.
    Any(&'a Collection),
    /// The records with these ids, a JSON array.
    Ids(&'a Collection, String),
    /// The values of a column; `each` if it was asked for by name.
    Items {
        /// The column.
        column: &'a str,
        /// `:each`.
        each: bool,
    },
    /// Values that are known.
    Values {
        /// A JSON array.
        json: String,
        /// `:each`.
        each: bool,
    },
}

impl Join<'_> {
    /// Whether there may be several rows.
    pub fn is_many(&self) -> bool {
        !matches!(self, Self::One(..))
    }

    /// Whether the rows are records, which several comparisons may be about.
    pub fn is_record(&self) -> bool {
        !matches!(self, Self::Items { .. } | Self::Values { .. })
    }
}

/// What is read of a row.
#[derive(Clone, Debug)]
pub enum Leaf<'a> {
    /// A column.
    Column(&'a str),
    /// An auth record's address, which others see only if it lets them.
    Email(&'a Collection),
    /// A place inside a JSON column.
    Json(&'a str, String),
    /// How many values a column has.
    Length(&'a str),
    /// One value of several.
    Item,
}

impl<'a> Way<'a> {
    /// Whether it leads to several values.
    pub fn is_many(&self) -> bool {
        self.steps.iter().any(|step| step.join.is_many())
    }

    /// The key of the first step to several records, which other comparisons may share.
    pub fn shared_root(&self) -> Option<&str> {
        self.steps.iter().find(|step| step.join.is_many() && step.join.is_record()).map(|step| step.key.as_str())
    }

    /// The steps to records, without the one to a record's values.
    pub fn record_steps(&self) -> &[Step<'a>] {
        match self.steps.last() {
            Some(step) if !step.join.is_record() => &self.steps[..self.steps.len() - 1],
            _ => &self.steps,
        }
    }

    /// Several values as the one text that is stored, unless each of them was asked for.
    pub fn stored(mut self) -> Self {
        if let Some(Step { join: Join::Items { column, each: false }, .. }) = self.steps.last() {
            self.leaf = Leaf::Column(column);
            self.steps.pop();
        }
        self
    }
}

impl Resolved<'_> {
    /// Several values as one text, unless each of them was asked for.
    pub fn stored(self) -> Self {
        match self {
            Self::Way(way) => match way.steps.as_slice() {
                [Step { join: Join::Values { json, each: false }, .. }] => {
                    constant(Sql::Text(json.clone()), Kind::Loose)
                }
                _ => Self::Way(way.stored()),
            },
            other => other,
        }
    }
}

/// A value that is known, and not because the filter's author wrote it.
pub(super) fn constant<'a>(value: Sql, kind: Kind) -> Resolved<'a> {
    Resolved::Constant { value, kind, literal: false }
}
