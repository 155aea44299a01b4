//! `expand=author,comments_via_post.author`: records that others refer to, under the key `expand` of each.
//!
//! An expanded record must be shown by the view rule of its own collection; one that is not is left out, as is a reference
//! to a record that is gone.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::{Map, Value};
use vski_replication::schema::sql::quote_name;

use super::{ALIAS, Asking, list};
use crate::filter::{self, Condition};
use crate::store::collections::Collection;
use crate::store::error::StoreError;
use crate::store::fields::{Field, FieldKind};

/// Relations that one request names.
pub const MAX_PATHS: usize = 64;

/// Records that one level may bring, so that an answer stays one that can be sent.
pub const MAX_RECORDS: usize = 20_000;

/// Which relations to expand, and which of the records behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion(BTreeMap<String, Self>);

impl Expansion {
    /// Reads a list of paths with commas, each with at most so many relations after each other.
    pub fn parse(text: &str, most_levels: usize) -> Result<Self, StoreError> {
        let paths: Vec<&str> = text.split(',').map(str::trim).filter(|path| !path.is_empty()).collect();
        if paths.len() > MAX_PATHS {
            return Err(StoreError::Invalid(format!("expand names at most {MAX_PATHS} relations")));
        }
        let mut whole = Self::default();
        for path in paths {
            if path.split('.').count() > most_levels {
                let message = format!("expand follows at most {most_levels} relations, and {path} has more");
                return Err(StoreError::Invalid(message));
            }
            let mut level = &mut whole;
            for name in path.split('.') {
                level = level.0.entry(name.to_owned()).or_default();
            }
        }
        Ok(whole)
    }
}

/// The records with the wanted ones inside.
pub fn expand(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    mut records: Vec<Value>,
    wanted: &Expansion,
) -> Result<Vec<Value>, StoreError> {
    if records.is_empty() {
        check(asking, collection, wanted)?;
        return Ok(records);
    }
    // Also where nothing is found: clients look into it without asking.
    for record in records.iter_mut().filter_map(Value::as_object_mut).filter(|_| !wanted.0.is_empty()) {
        record.insert("expand".to_owned(), Value::Object(Map::new()));
    }
    for (name, deeper) in &wanted.0 {
        let relation = Relation::find(asking, collection, name)?;
        let found = relation.read(conn, asking, &records)?;
        let found = expand(conn, asking, relation.target, found, deeper)?;
        let inside = relation.by_record(&records, &found)?;
        for (record, inside) in records.iter_mut().zip(inside) {
            if let Some(value) = inside {
                record["expand"][name] = value;
            }
        }
    }
    Ok(records)
}

/// Whether all wanted relations exist: before something is written whose answer shall have them.
pub fn check(asking: Asking<'_>, collection: &Collection, wanted: &Expansion) -> Result<(), StoreError> {
    wanted.0.iter().try_for_each(|(name, deeper)| {
        let relation = Relation::find(asking, collection, name)?;
        check(asking, relation.target, deeper)
    })
}

/// One relation, seen from a collection.
struct Relation<'a> {
    name: &'a str,
    /// The collection on its other end.
    target: &'a Collection,
    field: &'a Field,
    /// It is the other end's field that refers to this one.
    is_back: bool,
    /// There is one record at most.
    is_single: bool,
}

impl<'a> Relation<'a> {
    fn find(asking: Asking<'a>, collection: &'a Collection, name: &'a str) -> Result<Self, StoreError> {
        let scope = asking.scope(collection);
        let known = collection.field(name).filter(|field| asking.is_admin() || !field.hidden);
        if let Some(field) = known
            && let FieldKind::Relation { collection_id, .. } = &field.kind
            && let Some(target) = asking.catalogue.find(collection_id)
        {
            return Ok(Self { name, target, field, is_back: false, is_single: !field.kind.is_multiple() });
        }
        if let Some((target, field)) = filter::back_relation(&scope, collection, name) {
            let is_unique = |index: &crate::store::collections::Index| {
                index.unique && index.columns.len() == 1 && index.columns[0].eq_ignore_ascii_case(&field.name)
            };
            let is_single = !field.kind.is_multiple() && target.indexes.iter().any(is_unique);
            return Ok(Self { name, target, field, is_back: true, is_single });
        }
        let message = format!(
            "expand: collection {} has no relation {name:?}; one that leads here is written collection_via_field",
            collection.name
        );
        Err(StoreError::Invalid(message))
    }

    /// All records on the other end that the caller may see, in the order of their ids.
    fn read(&self, conn: &Connection, asking: Asking<'_>, records: &[Value]) -> Result<Vec<Value>, StoreError> {
        let key = if self.is_back { "id" } else { self.name };
        let ids: HashSet<&str> = records.iter().flat_map(|record| ids(&record[key])).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let given = Sql::Text(serde_json::json!(ids).to_string());
        let column = format!("{ALIAS}.{}", quote_name(self.field.column_name()));
        let sql = match (self.is_back, self.field.kind.is_multiple()) {
            (false, _) => format!("{ALIAS}.id IN (SELECT value FROM json_each(?))"),
            (true, false) => format!("{column} IN (SELECT value FROM json_each(?))"),
            (true, true) => format!(
                "EXISTS (SELECT 1 FROM json_each(iif(json_valid({column}), {column}, '[]')) AS named
                 WHERE named.value IN (SELECT value FROM json_each(?)))"
            ),
        };
        let refers = Condition { sql, params: vec![given] };
        let scope = asking.scope(self.target);
        let rule = filter::rule(&scope, self.target, self.target.rules.view_rule.as_deref(), ALIAS);
        let mut wanted = Condition::all(std::iter::once(refers).chain(rule).collect());
        wanted.append(&Condition::new(format!(" ORDER BY {ALIAS}.id LIMIT {}", MAX_RECORDS + 1)));
        let found = list::read(conn, asking, self.target, &wanted)?;
        if found.len() > MAX_RECORDS {
            return Err(self.too_many());
        }
        Ok(found)
    }

    /// What stands under this relation's name in each of `records`. One that several refer to stands in each of them, with
    /// all that is inside it, so that it is the copies that are counted.
    fn by_record(&self, records: &[Value], found: &[Value]) -> Result<Vec<Option<Value>>, StoreError> {
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        let back = self.is_back;
        for (at, other) in found.iter().enumerate() {
            for key in if back { ids(&other[&self.field.name]) } else { ids(&other["id"]) } {
                places.entry(key).or_default().push(at);
            }
        }
        let inside = |record: &Value| -> Vec<usize> {
            let keys = ids(&record[if back { "id" } else { self.name }]);
            let all = keys.iter().filter_map(|key| places.get(key)).flatten().copied();
            if self.is_single { all.take(1).collect() } else { all.collect() }
        };
        let inside: Vec<Vec<usize>> = records.iter().map(inside).collect();
        let weights: Vec<usize> = found.iter().map(weight).collect();
        if inside.iter().flatten().map(|at| weights[*at]).sum::<usize>() > MAX_RECORDS {
            return Err(self.too_many());
        }
        let value = |places: Vec<usize>| match places.as_slice() {
            [] => None,
            [only] if self.is_single => Some(found[*only].clone()),
            many => Some(many.iter().map(|at| found[*at].clone()).collect()),
        };
        Ok(inside.into_iter().map(value).collect())
    }

    fn too_many(&self) -> StoreError {
        let name = self.name;
        StoreError::Invalid(format!(
            "expand: {name} brings more than {MAX_RECORDS} records: ask for smaller pages or expand less"
        ))
    }
}

/// A record and all that is expanded inside it.
fn weight(record: &Value) -> usize {
    let inside = record.get("expand").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let weigh = |value: &Value| match value {
        Value::Array(records) => records.iter().map(weight).sum(),
        one => weight(one),
    };
    1 + inside.map(weigh).sum::<usize>()
}

/// The ids in a relation's value: one or several.
fn ids(value: &Value) -> Vec<&str> {
    match value {
        Value::String(id) if !id.is_empty() => vec![id],
        Value::Array(ids) => ids.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_a_common_beginning_are_read_once() {
        let parsed = Expansion::parse("a.b, a.c,d,", 6).unwrap();
        assert_eq!(parsed.0.keys().collect::<Vec<_>>(), ["a", "d"]);
        assert_eq!(parsed.0["a"].0.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(Expansion::parse("", 6).unwrap(), Expansion::default());
        assert!(Expansion::parse("a.b.c.d.e.f", 6).is_ok());
        assert!(Expansion::parse("a.b.c.d.e.f.g", 6).is_err());
        assert!(Expansion::parse(&vec!["a"; MAX_PATHS + 1].join(","), 6).is_err());
    }
}
