//! From a path to columns of tables: `author.team.name` goes through two relations, `comments_via_post` goes one backwards.

use rusqlite::types::Value as Sql;

use super::ast::{Modifier, Path, Root};
use super::compile::Scope;
use super::requested;
pub(super) use super::way::constant;
pub use super::way::{Join, Kind, Leaf, Resolved, Step, Way};
use crate::store::collections::Collection;
use crate::store::fields::{Field, FieldKind};

/// A path that cannot be followed: at which of its names, and why not.
pub struct Lost {
    /// Counted from 0.
    pub segment: usize,
    /// What is wrong.
    pub message: String,
}

/// Follows a path.
pub fn resolve<'a>(scope: &Scope<'a>, path: &Path) -> Result<Resolved<'a>, Lost> {
    match &path.root {
        Root::Record => follow(scope, scope.collection, &path.segments, 0, path.modifier, Vec::new()),
        Root::Request => requested::resolve(scope, path),
        Root::Collection { name, alias } => {
            if !scope.trusted {
                return Err(Lost { segment: 0, message: "@collection is for rules and admins only".to_owned() });
            }
            let target = scope.catalogue.find(name);
            let target =
                target.ok_or_else(|| Lost { segment: 0, message: format!("there is no collection {name:?}") })?;
            let key = format!("@{}:{}", target.id, alias.as_deref().unwrap_or_default());
            follow(scope, target, &path.segments, 0, path.modifier, vec![Step { key, join: Join::Any(target) }])
        }
    }
}

/// What makes a name a way backwards.
pub(super) const VIA: &str = "_via_";

/// Follows names from `at` on, beginning at a collection's record.
pub(super) fn follow<'a>(
    scope: &Scope<'a>,
    mut collection: &'a Collection,
    segments: &[String],
    mut at: usize,
    modifier: Option<Modifier>,
    mut steps: Vec<Step<'a>>,
) -> Result<Resolved<'a>, Lost> {
    loop {
        let lost = |message| Lost { segment: at, message };
        let name = segments[at].as_str();
        let rest = &segments[at + 1..];
        let field = field(scope, collection, name);
        if let (None, [], "collectionId" | "collectionName") = (field, rest, name) {
            let value = if name == "collectionId" { &collection.id } else { &collection.name };
            return Ok(constant(Sql::Text(value.clone()), Kind::Text));
        }
        let join = match field.map(|field| (field, &field.kind)) {
            Some((field, FieldKind::Relation { collection_id, .. })) if !is_end(rest) => {
                let target = scope.catalogue.find(collection_id);
                let target = target.ok_or_else(|| lost(format!("the collection that {name} leads to is gone")))?;
                let many = field.kind.is_multiple();
                if many { Join::Many(target, field.column_name()) } else { Join::One(target, field.column_name()) }
            }
            Some((field, _)) => {
                return leaf(scope, collection, field, rest, modifier, steps).map_err(lost);
            }
            None => back(scope, collection, name, rest).map_err(lost)?,
        };
        let most = scope.limits.relation_depth;
        if steps.len() >= most {
            return Err(lost(format!("a path follows at most {most} relations")));
        }
        let key = format!("{}/{name}", steps.last().map_or("", |step| &step.key));
        collection = match &join {
            Join::One(target, _) | Join::Many(target, _) | Join::Back(target, _) | Join::BackMany(target, _) => target,
            _ => collection,
        };
        steps.push(Step { key, join });
        at += 1;
    }
}

/// Whether a relation's own ids are meant.
fn is_end(rest: &[String]) -> bool {
    rest.is_empty() || rest == ["id"]
}

/// The field, if this filter may know of it.
pub(super) fn field<'a>(scope: &Scope<'a>, collection: &'a Collection, name: &str) -> Option<&'a Field> {
    collection.field(name).filter(|field| !field.is_secret() && (scope.trusted || !field.hidden))
}

fn back<'a>(scope: &Scope<'a>, collection: &'a Collection, name: &str, rest: &[String]) -> Result<Join<'a>, String> {
    let unknown = || format!("collection {} has no field {name:?}", collection.name);
    if !name.contains(VIA) {
        return Err(unknown());
    }
    let (source, field) = back_relation(scope, collection, name)
        .ok_or_else(|| format!("{}, and no collection has a relation to it by that name", unknown()))?;
    if rest.is_empty() {
        return Err(format!("{name} leads to records: say which of their fields, as in {name}.id"));
    }
    let many = field.kind.is_multiple();
    Ok(if many { Join::BackMany(source, field.column_name()) } else { Join::Back(source, field.column_name()) })
}

/// `comments_via_post`: the collection and its relation to this one.
pub fn back_relation<'a>(
    scope: &Scope<'a>,
    collection: &Collection,
    name: &str,
) -> Option<(&'a Collection, &'a Field)> {
    name.match_indices(VIA).find_map(|(at, _)| {
        let source = scope.catalogue.find(&name[..at])?;
        let field = field(scope, source, &name[at + VIA.len()..])?;
        let leads_here =
            matches!(&field.kind, FieldKind::Relation { collection_id, .. } if *collection_id == collection.id);
        leads_here.then_some((source, field))
    })
}

/// The end of a path at a field.
fn leaf<'a>(
    scope: &Scope<'a>,
    collection: &'a Collection,
    field: &'a Field,
    rest: &[String],
    modifier: Option<Modifier>,
    mut steps: Vec<Step<'a>>,
) -> Result<Resolved<'a>, String> {
    let name = &field.name;
    let column = field.column_name();
    let is_json = matches!(field.kind, FieldKind::Json { .. });
    let several = field.kind.is_multiple();
    let is_relation = matches!(field.kind, FieldKind::Relation { .. });
    if !(is_json || rest.is_empty() || is_relation && rest == ["id"]) {
        let kind = field.kind.name();
        return Err(format!("{name} is a {kind} field, and nothing can follow it: only relations and json lead on"));
    }
    let kind = kind_of(&field.kind);
    let way = |steps, leaf, kind, lower| Ok(Resolved::Way(Way { steps, leaf, kind, lower }));
    match modifier {
        Some(Modifier::IsSet | Modifier::Changed) => {
            Err(":isset and :changed are for @request: as in @request.body.field:isset".to_owned())
        }
        Some(Modifier::Length | Modifier::Each) if !several && !is_json => {
            Err(format!("{name} has one value: :length and :each are for fields with several"))
        }
        Some(Modifier::Length | Modifier::Each) if !rest.is_empty() => {
            Err(format!(":length and :each are for the whole of {name}"))
        }
        Some(Modifier::Length) => way(steps, Leaf::Length(column), Kind::Number, false),
        Some(Modifier::Lower) if matches!(kind, Kind::Number | Kind::Bool) => {
            Err(format!("{name} is no text: :lower is for texts"))
        }
        modifier => {
            let lower = modifier == Some(Modifier::Lower);
            let each = modifier == Some(Modifier::Each);
            if several || each {
                let key = format!("{}/{name}", steps.last().map_or("", |step| &step.key));
                steps.push(Step { key, join: Join::Items { column, each } });
                return way(steps, Leaf::Item, kind, lower);
            }
            let leaf = if is_json {
                Leaf::Json(column, json_path(rest))
            } else if collection.is_auth() && name == "email" && !scope.trusted {
                Leaf::Email(collection)
            } else {
                Leaf::Column(column)
            };
            way(steps, leaf, kind, lower)
        }
    }
}

fn kind_of(kind: &FieldKind) -> Kind {
    match kind {
        FieldKind::Number { .. } => Kind::Number,
        FieldKind::Bool {} => Kind::Bool,
        FieldKind::Date { .. } | FieldKind::Autodate { .. } => Kind::Date,
        FieldKind::Json { .. } => Kind::Loose,
        _ => Kind::Text,
    }
}

/// SQLite's notation of a place in a JSON value. Names have letters, digits and `_` only.
fn json_path(names: &[String]) -> String {
    names.iter().fold("$".to_owned(), |path, name| match name.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("{path}[{name}]"),
        false => format!("{path}.\"{name}\""),
    })
}
