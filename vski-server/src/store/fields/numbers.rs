use rusqlite::types::Value as Sql;
use serde_json::{Number, Value};

use super::Field;
use crate::store::error::FieldError;

/// A number, or a text that is one, as forms send it. 0 stands for no value, which no bound concerns.
pub fn number(
    field: &Field,
    value: &Value,
    (min, max): (&Option<Number>, &Option<Number>),
    only_int: bool,
) -> Result<Sql, FieldError> {
    let sql = match value {
        Value::Number(number) => of_number(number),
        Value::String(text) => of_text(text.trim()),
        _ => None,
    };
    let sql = sql.ok_or_else(|| match value {
        Value::String(text) => {
            let shown: String = text.chars().take(40).collect();
            field.error("validation_invalid_type", format!("must be a number, not the text {shown:?}"))
        }
        other => field.mistyped(other),
    })?;
    let double = as_f64(&sql);
    if double == 0.0 {
        return Ok(sql);
    }
    if only_int && double.fract() != 0.0 {
        return Err(field.error("validation_only_int_constraint", "must be a whole number".to_owned()));
    }
    let bound = |bound: &Option<Number>| bound.as_ref().and_then(Number::as_f64);
    if let Some(least) = bound(min).filter(|least| double < *least) {
        return Err(field.error("validation_min_number_constraint", format!("must be {least} or more")));
    }
    if let Some(greatest) = bound(max).filter(|greatest| double > *greatest) {
        return Err(field.error("validation_max_number_constraint", format!("must be {greatest} or less")));
    }
    Ok(sql)
}

/// True or false, or what forms send for them.
pub fn boolean(value: &Value) -> Option<Sql> {
    let flag = match value {
        Value::Bool(flag) => *flag,
        Value::Number(number) if number.as_f64() == Some(1.0) => true,
        Value::Number(number) if number.as_f64() == Some(0.0) => false,
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => true,
            "false" | "f" | "0" | "" => false,
            _ => return None,
        },
        _ => return None,
    };
    Some(Sql::Integer(flag.into()))
}

fn of_number(number: &Number) -> Option<Sql> {
    match number.as_i64() {
        Some(integer) => Some(Sql::Integer(integer)),
        None => number.as_f64().and_then(real),
    }
}

fn of_text(text: &str) -> Option<Sql> {
    if text.is_empty() {
        return Some(Sql::Integer(0));
    }
    text.parse().map(Sql::Integer).ok().or_else(|| text.parse().ok().and_then(real))
}

/// Adding 0 makes -0.0 0.0: SQLite's sessions take both for the same and would not carry the change.
fn real(double: f64) -> Option<Sql> {
    double.is_finite().then_some(Sql::Real(double + 0.0))
}

#[allow(clippy::cast_precision_loss, reason = "bounds are doubles, too")]
fn as_f64(sql: &Sql) -> f64 {
    match sql {
        Sql::Integer(integer) => *integer as f64,
        Sql::Real(double) => *double,
        _ => 0.0,
    }
}
