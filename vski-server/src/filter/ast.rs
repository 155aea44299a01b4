//! A filter as a tree. Printing a tree and parsing the text gives the tree again.

use std::fmt;

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// Two values compared.
    Compare(Comparison),
    /// All must hold; two or more.
    And(Vec<Expr>),
    /// One must hold; two or more.
    Or(Vec<Expr>),
}

impl Expr {
    /// Adds where each comparison begins, in their order.
    pub fn places(&self, into: &mut Vec<Place>) {
        match self {
            Self::Compare(comparison) => into.push(comparison.left.place),
            Self::And(items) | Self::Or(items) => items.iter().for_each(|item| item.places(into)),
        }
    }
}

/// `left operator right`.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What stands on the left.
    pub left: Operand,
    /// How the two are compared.
    pub operator: Operator,
    /// Written with `?`: one of several values is enough.
    pub any: bool,
    /// What stands on the right.
    pub right: Operand,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `~`: the left text contains the right one.
    Like,
    /// `!~`
    NotLike,
}

/// One side of a comparison, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// What it is.
    pub value: Value,
    /// Where it begins.
    pub place: Place,
}

/// A byte offset in the filter's text. Any two are equal: trees are the same when they say the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place(pub usize);

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// What may stand on a side.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A quoted text.
    Text(String),
    /// A whole number of 64 bits.
    Integer(i64),
    /// Any other number; finite.
    Real(f64),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// `@now` and its like.
    Macro(DateMacro),
    /// A field, or something that the request brought.
    Path(Path),
}

/// Times that are computed when the filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "their names are the grammar's")]
pub enum DateMacro {
    Now,
    Second,
    Minute,
    Hour,
    Weekday,
    Day,
    Month,
    Year,
    Yesterday,
    Tomorrow,
    TodayStart,
    TodayEnd,
    MonthStart,
    MonthEnd,
    YearStart,
    YearEnd,
}

/// A way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where it begins.
    pub root: Root,
    /// The names after the root; one or more.
    pub segments: Vec<String>,
    /// What is done with the value.
    pub modifier: Option<Modifier>,
}

/// Where a path begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// The record that is looked at.
    Record,
    /// `@request`.
    Request,
    /// `@collection.name`: any record of that collection, the same one for the same alias.
    Collection {
        /// The collection's name.
        name: String,
        /// Told after a colon, to speak of two records of one collection.
        alias: Option<String>,
    },
}

/// `:name` after a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modifier {
    /// Whether the request has this value at all.
    IsSet,
    /// Whether the request has it, and another than the record.
    Changed,
    /// How many values there are.
    Length,
    /// Each of several values.
    Each,
    /// In lower case.
    Lower,
}

/// Operators as they are written, longer ones before their beginnings.
pub const OPERATORS: [(&str, Operator); 8] = [
    ("!=", Operator::NotEqual),
    (">=", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("!~", Operator::NotLike),
    ("=", Operator::Equal),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("~", Operator::Like),
];

/// Modifiers as they are written.
pub const MODIFIERS: [(&str, Modifier); 5] = [
    ("isset", Modifier::IsSet),
    ("changed", Modifier::Changed),
    ("length", Modifier::Length),
    ("each", Modifier::Each),
    ("lower", Modifier::Lower),
];

/// Date macros as they are written, after the `@`.
pub const DATE_MACROS: [(&str, DateMacro); 16] = [
    ("now", DateMacro::Now),
    ("second", DateMacro::Second),
    ("minute", DateMacro::Minute),
    ("hour", DateMacro::Hour),
    ("weekday", DateMacro::Weekday),
    ("day", DateMacro::Day),
    ("month", DateMacro::Month),
    ("year", DateMacro::Year),
    ("yesterday", DateMacro::Yesterday),
    ("tomorrow", DateMacro::Tomorrow),
    ("todayStart", DateMacro::TodayStart),
    ("todayEnd", DateMacro::TodayEnd),
    ("monthStart", DateMacro::MonthStart),
    ("monthEnd", DateMacro::MonthEnd),
    ("yearStart", DateMacro::YearStart),
    ("yearEnd", DateMacro::YearEnd),
];

/// The name that a table above gives a value.
fn name_of<T: Copy + PartialEq>(table: &[(&'static str, T)], value: T) -> &'static str {
    table.iter().find(|(_, known)| *known == value).map_or("", |(name, _)| name)
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (items, joint) = match self {
            Self::Compare(comparison) => return comparison.fmt(f),
            Self::And(items) => (items, " && "),
            Self::Or(items) => (items, " || "),
        };
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                f.write_str(joint)?;
            }
            match item {
                Self::Compare(comparison) => comparison.fmt(f)?,
                group => write!(f, "({group})")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = if self.any { "?" } else { "" };
        write!(f, "{} {any}{} {}", self.left.value, self.operator, self.right.value)
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&OPERATORS, *self))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
            Self::Integer(number) => number.fmt(f),
            Self::Real(number) => write!(f, "{number:?}"),
            Self::Bool(flag) => flag.fmt(f),
            Self::Null => f.write_str("null"),
            Self::Macro(name) => write!(f, "@{}", name_of(&DATE_MACROS, *name)),
            Self::Path(path) => path.fmt(f),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Root::Record => {}
            Root::Request => f.write_str("@request.")?,
            Root::Collection { name, alias: None } => write!(f, "@collection.{name}.")?,
            Root::Collection { name, alias: Some(alias) } => write!(f, "@collection.{name}:{alias}.")?,
        }
        f.write_str(&self.segments.join("."))?;
        match self.modifier {
            Some(modifier) => write!(f, ":{}", name_of(&MODIFIERS, modifier)),
            None => Ok(()),
        }
    }
}
