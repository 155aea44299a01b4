//! A constant in the form of what it is compared with.

use rusqlite::types::Value;

use super::{Clash, Side, describe};
use crate::filter::macros;
use crate::filter::paths::Kind;

/// Brings a constant into the form of the other side's values.
pub(super) fn adapt_both(left: Side, right: Side) -> Result<(Side, Side), Clash> {
    let adapted = |side: Side, other: Kind, right: bool| match side {
        Side::Constant { value, kind, literal } => {
            let value = adapt(value, kind, literal, other).map_err(|message| Clash { message, right })?;
            Ok(Side::Constant { value, kind, literal })
        }
        row => Ok(row),
    };
    let (one, other) = (left.kind(), right.kind());
    match (&left, &right) {
        // Of these only dates have to be alike: of the request, as they are stored, and of the rule, as people write them.
        (Side::Constant { .. }, Side::Constant { .. }) => Ok((dated(left, other), dated(right, one))),
        _ => Ok((adapted(left, other, false)?, adapted(right, one, true)?)),
    }
}

fn dated(side: Side, other: Kind) -> Side {
    match side {
        Side::Constant { value: Value::Text(text), kind, literal } if other == Kind::Date => {
            let value = Value::Text(macros::stored_date(&text).unwrap_or(text));
            Side::Constant { value, kind, literal }
        }
        side => side,
    }
}

fn adapt(value: Value, kind: Kind, literal: bool, other: Kind) -> Result<Value, String> {
    let clash = |value: &str| Err(format!("{} cannot be compared with {value}", describe(other)));
    match (other, value) {
        (_, Value::Null) => Ok(Value::Null),
        (Kind::Number | Kind::Bool, Value::Text(text)) if text.is_empty() => Ok(Value::Null),
        (Kind::Number, Value::Text(text)) => match (number(&text), literal) {
            (Some(number), _) => Ok(number),
            (None, true) => clash(&format!("the text {text:?}")),
            (None, false) => Ok(Value::Text(text)),
        },
        (Kind::Number | Kind::Text | Kind::Date, Value::Integer(flag)) if kind == Kind::Bool && literal => {
            clash(if flag == 0 { "false" } else { "true" })
        }
        (Kind::Bool, Value::Text(text)) => match text.as_str() {
            _ if literal => clash(&format!("the text {text:?}: write true or false without quotes")),
            "true" => Ok(Value::Integer(1)),
            "false" => Ok(Value::Integer(0)),
            _ => Ok(Value::Text(text)),
        },
        (Kind::Bool, value) if literal && !matches!(value, Value::Integer(0 | 1)) => clash("that number"),
        (Kind::Text, Value::Integer(number)) => Ok(Value::Text(number.to_string())),
        (Kind::Text, Value::Real(number)) => Ok(Value::Text(number.to_string())),
        (Kind::Date, Value::Text(text)) if !text.is_empty() => match (macros::stored_date(&text), literal) {
            (Some(date), _) => Ok(Value::Text(date)),
            (None, true) => clash(&format!("{text:?}: write it as 2022-01-31 or 2022-01-31 23:59:59.000Z")),
            (None, false) => Ok(Value::Text(text)),
        },
        (Kind::Date, Value::Integer(_) | Value::Real(_)) if literal => clash("a number: write it as '2022-01-31'"),
        (_, value) => Ok(value),
    }
}

fn number(text: &str) -> Option<Value> {
    let text = text.trim();
    text.parse()
        .map(Value::Integer)
        .ok()
        .or_else(|| text.parse::<f64>().ok().filter(|real| real.is_finite()).map(Value::Real))
}
