//! One comparison in SQL.
//!
//! Null and the empty text are equal. A number, a bool or a text whose column was added after the record was written is
//! NULL in the table and reads as its zero value, here as everywhere. Comparisons with a constant leave the column bare, so
//! that an index on it serves.

/// Constants in the form of the other side.
mod adapt;

/// One text in another.
mod like;

use std::cmp::Ordering;

use rusqlite::types::Value;

use self::adapt::adapt_both;
use self::like::like;
use super::ast::Operator;
use super::paths::Kind;
use super::sql::{Condition, sql};

/// One side, in SQL.
#[derive(Clone, Debug)]
pub enum Side {
    /// A value that is known.
    Constant {
        /// The value.
        value: Value,
        /// What it is.
        kind: Kind,
        /// Whether it stands in the filter, so that its type can be a mistake.
        literal: bool,
    },
    /// A value of each row.
    Row {
        /// The column or expression.
        sql: Condition,
        /// What it is.
        kind: Kind,
        /// What NULL means.
        null: Null,
    },
}

/// What it means that a side is NULL.
#[derive(Clone, Debug)]
pub enum Null {
    /// The column was added after the record was written: the zero value.
    Zero,
    /// There is no value.
    Nothing,
    /// No value where this column, the record's id, is NULL too; otherwise the zero value.
    Either(String),
}

/// A type clash: what is wrong, and whether it is the right side's fault.
pub struct Clash {
    /// What is wrong.
    pub message: String,
    /// Which side to point at.
    pub right: bool,
}

/// `left operator right`; NULL means that it does not hold.
pub fn compare(left: Side, operator: Operator, right: Side) -> Result<Condition, Clash> {
    let is_like = matches!(operator, Operator::Like | Operator::NotLike);
    check_kinds(&left, &right, is_like)?;
    let (left, right) = if is_like { (left, right) } else { adapt_both(left, right)? };
    Ok(match operator {
        Operator::Equal => equal(&left, &right),
        Operator::NotEqual => not(&equal(&left, &right)),
        Operator::Like => like(&left, &right),
        Operator::NotLike => not(&like(&left, &right)),
        ordered => order(&left, ordered, &right),
    })
}

/// Not true: also where nothing is known.
pub fn not(condition: &Condition) -> Condition {
    sql!["(", condition, ") IS NOT TRUE"]
}

impl Side {
    fn kind(&self) -> Kind {
        match self {
            Self::Constant { kind, .. } | Self::Row { kind, .. } => *kind,
        }
    }

    /// As an expression that has the zero value where the column has NULL.
    fn full(&self) -> Condition {
        match self {
            Self::Constant { value, .. } => Condition::value(value.clone()),
            Self::Row { sql, kind, null } => match (zero(*kind), null) {
                (None, _) | (_, Null::Nothing) => sql.clone(),
                (Some(zero), Null::Zero) => sql!["ifnull(", sql, ", ", zero, ")"],
                (Some(zero), Null::Either(id)) => {
                    sql!["iif(", id, " IS NULL, NULL, ifnull(", sql, ", ", zero, "))"]
                }
            },
        }
    }
}

/// What NULL stands for in a column, in SQL.
fn zero(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Number | Kind::Bool => Some("0"),
        Kind::Text | Kind::Date => Some("''"),
        Kind::Loose => None,
    }
}

fn check_kinds(left: &Side, right: &Side, is_like: bool) -> Result<(), Clash> {
    let fault = |right| move |message: String| Clash { message, right };
    let (one, other) = (left.kind(), right.kind());
    let on_right = matches!(right, Side::Constant { .. });
    if is_like && (one == Kind::Bool || other == Kind::Bool) {
        let right = other == Kind::Bool;
        return Err(fault(right)("~ looks into texts, and this is true or false: use =".to_owned()));
    }
    if let (Side::Row { .. }, Side::Row { .. }) = (left, right)
        && !is_like
        && one != other
        && one != Kind::Loose
        && other != Kind::Loose
        && [one, other].iter().any(|kind| matches!(kind, Kind::Number | Kind::Bool))
    {
        let message = format!("{} cannot be compared with {}", describe(one), describe(other));
        return Err(fault(on_right)(message));
    }
    Ok(())
}

fn describe(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "a text",
        Kind::Number => "a number",
        Kind::Bool => "true or false",
        Kind::Date => "a date",
        Kind::Loose => "a value",
    }
}

fn is_empty(value: &Value) -> bool {
    matches!(value, Value::Null) || matches!(value, Value::Text(text) if text.is_empty())
}

fn equal(left: &Side, right: &Side) -> Condition {
    match (left, right) {
        (Side::Row { sql, kind, null }, Side::Constant { value, .. })
        | (Side::Constant { value, .. }, Side::Row { sql, kind, null }) => match (is_empty(value), kind, null) {
            // A number is never null, unless there is no record to have it.
            (true, Kind::Number | Kind::Bool, Null::Zero) => Condition::new("0"),
            (true, Kind::Number | Kind::Bool, Null::Either(id)) => sql![id, " IS NULL"],
            (true, Kind::Number | Kind::Bool, Null::Nothing) => sql![sql, " IS NULL"],
            (true, ..) => sql!["(", sql, " IS NULL OR ", sql, " = '')"],
            (false, ..) => with_zero(sql, *kind, null, "=", value),
        },
        _ => sql!["ifnull(", &left.full(), ", '') = ifnull(", &right.full(), ", '')"],
    }
}

fn order(left: &Side, operator: Operator, right: &Side) -> Condition {
    let sign = operator.to_string();
    match (left, right) {
        (Side::Row { sql, kind, null }, Side::Constant { value, .. }) => with_zero(sql, *kind, null, &sign, value),
        (Side::Constant { value, .. }, Side::Row { sql, kind, null }) => {
            let turned = match operator {
                Operator::Greater => "<",
                Operator::GreaterOrEqual => "<=",
                Operator::Less => ">",
                _ => ">=",
            };
            with_zero(sql, *kind, null, turned, value)
        }
        _ => sql![&left.full(), " ", &sign, " ", &right.full()],
    }
}

/// `column sign ?`, and where the zero value would satisfy that, also a column that is NULL.
fn with_zero(column: &Condition, kind: Kind, null: &Null, sign: &str, value: &Value) -> Condition {
    let plain = sql![column, " ", sign, " ", &Condition::value(value.clone())];
    if !zero_satisfies(kind, sign, value) {
        return plain;
    }
    match null {
        Null::Nothing => plain,
        Null::Zero => sql!["(", &plain, " OR ", column, " IS NULL)"],
        Null::Either(id) => sql!["(", &plain, " OR (", column, " IS NULL AND ", id, " IS NOT NULL))"],
    }
}

fn zero_satisfies(kind: Kind, sign: &str, value: &Value) -> bool {
    let ordering = match (kind, value) {
        (Kind::Number | Kind::Bool, Value::Integer(number)) => 0.cmp(number),
        (Kind::Number | Kind::Bool, Value::Real(number)) => 0.0.partial_cmp(number).unwrap_or(Ordering::Less),
        (Kind::Number | Kind::Bool, Value::Text(_)) => Ordering::Less,
        (Kind::Text | Kind::Date, Value::Text(text)) => "".cmp(text.as_str()),
        _ => return false,
    };
    match sign {
        "=" => ordering.is_eq(),
        "<" => ordering.is_lt(),
        "<=" => ordering.is_le(),
        ">" => ordering.is_gt(),
        _ => ordering.is_ge(),
    }
}
