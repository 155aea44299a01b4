use rusqlite::Connection;
use serde_json::Value;

use super::{Asking, Shape, expand, list, rules};
use crate::filter::RequestInfo;
use crate::store::auth;
use crate::store::collections::Catalogue;
use crate::store::error::StoreError;
use crate::store::files::{Upload, values};
use crate::store::records::{self, Secrets};

/// Makes a record of the request's body, if the create rule lets the new row be; an error undoes it with the savepoint that
/// every request runs in. What is answered is brought into its shape later: see [`shaped`].
pub fn create(
    conn: &Connection,
    request: &RequestInfo,
    collection: &str,
    secrets: &Secrets,
    uploads: &[Upload],
    shape: &Shape,
) -> Result<Value, StoreError> {
    let catalogue = Catalogue::load(conn)?;
    let asking = Asking { catalogue: &catalogue, request };
    let collection = catalogue.get(collection)?;
    let rule = rules::may_create(asking, collection)?;
    expand::check(asking, collection, &shape.expand)?;
    let resolved = values::resolve(collection, None, &request.body, uploads)?;
    let made = records::create(conn, &catalogue, collection, &resolved.body, secrets)?;
    let id = made["id"].as_str().unwrap_or_default();
    resolved.store(conn, collection, id, uploads)?;
    rules::check_created(conn, collection, id, rule.as_ref())?;
    auth::records::check_created(conn, asking, collection, id, &request.body)?;
    list::written(conn, asking, collection, id, &Shape::default())
}

/// Changes a record by the request's body, if the update rule lets the caller, judged by the row as it was.
pub fn update(
    conn: &Connection,
    request: &RequestInfo,
    collection: &str,
    id: &str,
    secrets: &Secrets,
    uploads: &[Upload],
    shape: &Shape,
) -> Result<Value, StoreError> {
    let catalogue = Catalogue::load(conn)?;
    let asking = Asking { catalogue: &catalogue, request };
    let collection = catalogue.get(collection)?;
    rules::check_before(conn, asking, collection, id, |rules| &rules.update_rule)?;
    expand::check(asking, collection, &shape.expand)?;
    auth::records::before_update(conn, asking, collection, id, &request.body, &secrets.proof)?;
    let old = records::view(conn, collection, id)?;
    let resolved = values::resolve(collection, Some(&old), &request.body, uploads)?;
    records::update(conn, &catalogue, collection, id, &resolved.body, secrets)?;
    resolved.store(conn, collection, id, uploads)?;
    list::written(conn, asking, collection, id, &Shape::default())
}

/// Removes a record and what goes with it, if the delete rule lets the caller.
pub fn delete(
    conn: &Connection,
    request: &RequestInfo,
    collection: &str,
    id: &str,
) -> Result<Vec<records::Deleted>, StoreError> {
    let catalogue = Catalogue::load(conn)?;
    let asking = Asking { catalogue: &catalogue, request };
    let collection = catalogue.get(collection)?;
    rules::check_before(conn, asking, collection, id, |rules| &rules.delete_rule)?;
    let deleted = records::delete(conn, &catalogue, collection, id)?;
    values::forget(conn, &deleted)?;
    Ok(deleted)
}

/// A written record as the caller wants to see it. Not for the writer's thread: others wait for that one.
pub fn shaped(
    conn: &Connection,
    request: &RequestInfo,
    collection: &str,
    record: Value,
    shape: &Shape,
) -> Result<Value, StoreError> {
    let catalogue = Catalogue::load(conn)?;
    let asking = Asking { catalogue: &catalogue, request };
    list::shaped(conn, asking, catalogue.get(collection)?, record, shape)
}
