//! Paths that begin at `@request`: values of the request, and from ids in it on through the database.

use rusqlite::types::Value as Sql;

use super::ast::{Modifier, Path};
use super::compile::Scope;
use super::paths::{Join, Kind, Leaf, Lost, Resolved, Step, VIA, Way, constant, field, follow};
use super::request::Found;
use crate::store::fields::FieldKind;

/// Follows a path that begins at `@request`.
pub fn resolve<'a>(scope: &Scope<'a>, path: &Path) -> Result<Resolved<'a>, Lost> {
    let lost = |message| Lost { segment: 0, message };
    may_know(scope, path)?;
    if let Some(way) = through_request(scope, path)? {
        return Ok(way);
    }
    let found = scope.request.value(&path.segments).map_err(lost)?;
    match path.modifier {
        Some(Modifier::Changed) => changed(scope, path, &found),
        Some(Modifier::IsSet) => Ok(constant(found.single(path.modifier), Kind::Bool)),
        Some(Modifier::Length) => Ok(constant(found.single(path.modifier), Kind::Number)),
        modifier => match found.several() {
            None => Ok(constant(found.single(modifier), Kind::Loose)),
            Some(values) => {
                let json = serde_json::Value::from(values.clone()).to_string();
                let each = modifier == Some(Modifier::Each);
                let steps = vec![Step { key: String::new(), join: Join::Values { json, each } }];
                let lower = modifier == Some(Modifier::Lower);
                Ok(Resolved::Way(Way { steps, leaf: Leaf::Item, kind: Kind::Loose, lower }))
            }
        },
    }
}

/// A client's filter knows as much of the record that asks as its answers show.
fn may_know(scope: &Scope<'_>, path: &Path) -> Result<(), Lost> {
    let [first, name, ..] = path.segments.as_slice() else { return Ok(()) };
    let Some(record) = scope.request.requester.record().filter(|_| !scope.trusted && first == "auth") else {
        return Ok(());
    };
    let shown = ["collectionId", "collectionName"].contains(&name.as_str()) || name.contains(VIA);
    match scope.catalogue.find(&record.collection_id) {
        Some(collection) if !shown && field(scope, collection, name).is_none() => {
            Err(Lost { segment: 1, message: format!("collection {} has no field {name:?}", collection.name) })
        }
        _ => Ok(()),
    }
}

/// `@request.auth.team.name` and `@request.body.author.name`: from ids in the request on through the database.
fn through_request<'a>(scope: &Scope<'a>, path: &Path) -> Result<Option<Resolved<'a>>, Lost> {
    let [first, name, _, ..] = path.segments.as_slice() else { return Ok(None) };
    let (collection, ids, from) = match first.as_str() {
        "auth" => match scope.request.requester.record() {
            Some(record) => {
                let Some(collection) = scope.catalogue.find(&record.collection_id) else { return Ok(None) };
                if matches!(collection.field(name).map(|field| &field.kind), Some(FieldKind::Json { .. }) | None)
                    && !name.contains(VIA)
                {
                    return Ok(None);
                }
                (collection, serde_json::json!([record.id()]), 1)
            }
            None => return Ok(Some(constant(Sql::Null, Kind::Loose))),
        },
        "body" | "data" => {
            let Some(FieldKind::Relation { collection_id, .. }) = scope.collection.field(name).map(|field| &field.kind)
            else {
                return Ok(None);
            };
            let Some(target) = scope.catalogue.find(collection_id) else { return Ok(None) };
            let ids = match scope.request.body.get(name) {
                Some(serde_json::Value::Array(ids)) => serde_json::Value::from(ids.clone()),
                Some(one) => serde_json::json!([one]),
                None => serde_json::json!([]),
            };
            (target, ids, 2)
        }
        _ => return Ok(None),
    };
    let key = format!("@request.{}", path.segments[..from].join("."));
    let start = vec![Step { key, join: Join::Ids(collection, ids.to_string()) }];
    follow(scope, collection, &path.segments, from, path.modifier, start).map(Some)
}

fn changed<'a>(scope: &Scope<'a>, path: &Path, found: &Found) -> Result<Resolved<'a>, Lost> {
    let lost = |message: &str| Lost { segment: 1, message: message.to_owned() };
    let [first, name] = path.segments.as_slice() else { return Err(lost(":changed is for a field of the body")) };
    if first != "body" && first != "data" {
        return Err(lost(":changed is for a field of @request.body"));
    }
    let resolved = follow(scope, scope.collection, std::slice::from_ref(name), 0, None, Vec::new());
    let Ok(Resolved::Way(way)) = resolved else { return Err(lost(":changed is for a field of the record")) };
    if found.0.is_none() {
        return Ok(constant(Sql::Integer(0), Kind::Bool));
    }
    Ok(Resolved::Changed { body: found.single(None), way: way.stored() })
}
