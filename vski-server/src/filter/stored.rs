//! Whether a rule makes sense when it is stored, and nothing is known of the request yet: what it says of the caller must be a
//! field of some auth collection, and what it says of the body a field of its own collection.

use axum::http::Method;

use super::ast::{Expr, Operand, Path, Root, Value};
use super::compile::{Scope, compile, segment_offset};
use super::paths::{Lost, follow};
use super::request::RequestInfo;
use super::{FilterError, parse};
use crate::config::FilterLimits;
use crate::store::collections::{Catalogue, Collection, auth};
use crate::store::requester::Requester;

/// What every record has, of whatever auth collection.
const COMMON: [&str; 5] = ["id", "created", "updated", "collectionId", "collectionName"];

/// Whether a rule makes sense for a collection. `changes`: it is about what a request makes of a record of this collection,
/// so that the body is such a record's.
pub fn check(text: &str, catalogue: &Catalogue, collection: &Collection, changes: bool) -> Result<(), FilterError> {
    let request = RequestInfo::new(Requester::Guest, Method::GET);
    let scope =
        Scope { catalogue, collection, request: &request, trusted: true, alias: "r", limits: FilterLimits::RULES };
    let expr = parse(text)?;
    compile(&expr, text, &scope)?;
    each_operand(&expr, &mut |operand| {
        let Value::Path(path) = &operand.value else { return Ok(()) };
        let known = match (&path.root, path.segments.first().map(String::as_str)) {
            (Root::Request, Some("auth")) => auth_path(&scope, path),
            (Root::Request, Some("body" | "data")) if changes => body_path(collection, path),
            _ => Ok(()),
        };
        known.map_err(|lost| FilterError::at(text, operand.place.0 + segment_offset(path, lost.segment), lost.message))
    })
}

fn each_operand(expr: &Expr, visit: &mut impl FnMut(&Operand) -> Result<(), FilterError>) -> Result<(), FilterError> {
    match expr {
        Expr::And(items) | Expr::Or(items) => items.iter().try_for_each(|item| each_operand(item, visit)),
        Expr::Compare(comparison) => {
            visit(&comparison.left)?;
            visit(&comparison.right)
        }
    }
}

/// Some auth collection must have it.
fn auth_path(scope: &Scope<'_>, path: &Path) -> Result<(), Lost> {
    let Some(name) = path.segments.get(1) else { return Ok(()) };
    let mut furthest: Option<Lost> = None;
    for collection in scope.catalogue.iter().filter(|collection| collection.is_auth()) {
        match follow(scope, collection, &path.segments, 1, None, Vec::new()) {
            Ok(_) => return Ok(()),
            Err(lost) if furthest.as_ref().is_none_or(|known| known.segment < lost.segment) => furthest = Some(lost),
            Err(_) => {}
        }
    }
    let system = || auth::system_fields().iter().any(|field| field.name == *name && !field.is_secret());
    match furthest {
        Some(lost) if lost.segment > 1 => Err(lost),
        None if path.segments.len() == 2 && (COMMON.contains(&name.as_str()) || system()) => Ok(()),
        _ => Err(Lost { segment: 1, message: format!("no auth collection has a field {name:?} for rules") }),
    }
}

/// The collection must have it.
fn body_path(collection: &Collection, path: &Path) -> Result<(), Lost> {
    let Some(name) = path.segments.get(1) else { return Ok(()) };
    if collection.field(name).is_some() || collection.is_password_key(name) {
        return Ok(());
    }
    Err(Lost { segment: 1, message: format!("collection {} has no field {name:?}", collection.name) })
}
