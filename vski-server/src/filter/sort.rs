//! `sort=-created,author.name,@random`: keys with commas; `-` is descending, `+` or nothing ascending.
//!
//! Ties are broken by the id, so that pages of one state of the data neither overlap nor leave anything out.

use super::ast::{MODIFIERS, Modifier, Operand, Path, Place, Root, Value};
use super::compile::{Compiler, Scope};
use super::paths::Resolved;
use super::sql::{Condition, sql};
use super::{FilterError, MAX_PATH_SEGMENTS};

/// What follows `ORDER BY`.
pub fn order_by(text: &str, scope: &Scope<'_>) -> Result<Condition, FilterError> {
    let compiler = Compiler::new(scope, text);
    let id = format!("{}.id", scope.alias);
    let mut order: Vec<Condition> = Vec::new();
    let mut at = 0;
    let mut is_total = false;
    for part in text.split(',') {
        let begin = at + part.len() - part.trim_start().len();
        at += part.len() + 1;
        if part.trim().is_empty() {
            continue;
        }
        if order.len() == scope.limits.sort_keys {
            let message = format!("a list is sorted by at most {} keys", scope.limits.sort_keys);
            return Err(FilterError::at(text, begin, message));
        }
        let (name, direction) = match part.trim() {
            name if name.starts_with('-') => (&name[1..], " DESC"),
            name => (name.strip_prefix('+').unwrap_or(name), ""),
        };
        let name_at = begin + part.trim().len() - name.len();
        let key = key(&compiler, scope, text, name, name_at)?;
        is_total |= key.sql == id;
        order.push(sql![&key, direction]);
    }
    if !is_total {
        order.push(Condition::new(id));
    }
    let mut whole = Condition::default();
    for (at, key) in order.iter().enumerate() {
        whole.append(&Condition::new(if at == 0 { "" } else { ", " }));
        whole.append(key);
    }
    Ok(whole)
}

fn key(
    compiler: &Compiler<'_, '_>,
    scope: &Scope<'_>,
    text: &str,
    name: &str,
    at: usize,
) -> Result<Condition, FilterError> {
    let wrong = |message: String| Err(FilterError::at(text, at, message));
    match name {
        "@random" => return Ok(Condition::new("random()")),
        "@rowid" if scope.collection.is_view() => return wrong("a view has no @rowid: sort by a field".to_owned()),
        "@rowid" => return Ok(Condition::new(format!("{}.rowid", scope.alias))),
        _ => {}
    }
    let (names, modifier) = match name.split_once(':') {
        None => (name, None),
        Some((names, modifier)) => match MODIFIERS.iter().find(|(known, _)| *known == modifier) {
            Some((_, known @ (Modifier::Lower | Modifier::Length))) => (names, Some(*known)),
            _ => return wrong(format!("{modifier:?} cannot be sorted by: there are :lower and :length")),
        },
    };
    let segments: Vec<String> = names.split('.').map(str::to_owned).collect();
    let is_name = |name: &String| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !segments.iter().all(is_name) || segments.len() > MAX_PATH_SEGMENTS {
        return wrong(format!("{name:?} is no field: write sort=-created,id or @random"));
    }
    let value = Value::Path(Path { root: Root::Record, segments, modifier });
    match compiler.resolve(&Operand { value, place: Place(at) })? {
        Resolved::Way(way) => {
            let way = way.stored();
            if way.is_many() {
                return wrong(format!("{name} leads to several values, which have no one order"));
            }
            compiler.scalar(&way)
        }
        _ => wrong(format!("{name} is the same for all records")),
    }
}
