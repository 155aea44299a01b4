use std::sync::Arc;

use rusqlite::Connection;
use serde_json::Value;

use super::list::{self, Found};
use super::{Asking, Shape, expand, rules};
use crate::filter::RequestInfo;
use crate::store::auth;
use crate::store::collections::{Catalogue, Collection};
use crate::store::error::StoreError;
use crate::store::files::{Upload, values};
use crate::store::records::{self, Body, Secrets, Sender};

/// A record that was written, and the request that wrote it with the body as it is stored: rules of what the answer expands
/// see of it what the collection's own rules saw.
#[derive(Clone, Debug)]
pub struct Made {
    /// As the caller may see it.
    pub record: Found,
    request: RequestInfo,
}

/// Makes a record of the request's body, if the create rule lets the new row be; an error undoes it with the savepoint that
/// every request runs in. What is answered is brought into its shape later: see [`shaped`].
pub fn create(
    conn: &Connection,
    request: &RequestInfo,
    collection: &str,
    secrets: &Secrets,
    uploads: &[Upload],
    shape: &Shape,
) -> Result<Made, StoreError> {
    let catalogue = Catalogue::load(conn)?;
    let collection = catalogue.get(collection)?;
    let Resolved { request, body, files } = resolve(collection, None, request, uploads);
    let asking = Asking { catalogue: &catalogue, request: &request };
    let rule = rules::may_create(asking, collection)?;
    expand::check(asking, collection, &shape.expand)?;
    let id = records::create(conn, &catalogue, collection, &body, secrets)?;
    files.store(conn, collection, &id, uploads)?;
    rules::check_created(conn, collection, &id, rule.as_ref())?;
    auth::records::check_created(conn, asking, collection, &id, &body.values)?;
    let record = list::written(conn, asking, collection, &id, shape)?;
    Ok(Made { record, request })
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
) -> Result<Made, StoreError> {
    let catalogue = Catalogue::load(conn)?;
    let collection = catalogue.get(collection)?;
    rules::check_open(Asking { catalogue: &catalogue, request }, collection, |rules| &rules.update_rule)?;
    let old = records::view(conn, collection, id)?;
    let Resolved { request, body, files } = resolve(collection, Some(&old), request, uploads);
    let asking = Asking { catalogue: &catalogue, request: &request };
    rules::check_before(conn, asking, collection, id, |rules| &rules.update_rule)?;
    expand::check(asking, collection, &shape.expand)?;
    auth::records::before_update(conn, asking, collection, id, &body.values, &secrets.proof)?;
    records::update(conn, &catalogue, collection, id, &body, secrets)?;
    files.store(conn, collection, id, uploads)?;
    let record = list::written(conn, asking, collection, id, shape)?;
    Ok(Made { record, request })
}

/// A request whose body was worked out: what rules see of it is what is stored.
struct Resolved {
    request: RequestInfo,
    body: Body,
    files: values::Resolved,
}

/// Works out what a request makes of the record `old`, or of none. What is wrong with it is told when it is to be stored,
/// after the rules were asked.
fn resolve(collection: &Collection, old: Option<&Value>, request: &RequestInfo, uploads: &[Upload]) -> Resolved {
    let sender = if request.requester.is_admin() { Sender::Admin } else { Sender::Other };
    let mut files = values::resolve(collection, sender, old, &request.body, uploads);
    let mut body = Body::resolve(collection, sender, old, std::mem::take(&mut files.body));
    body.errors.splice(..0, std::mem::take(&mut files.errors));
    Resolved { request: request.with_body(Arc::clone(&body.values)), body, files }
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

/// A written record as the caller wants to see it, as text. Not for the writer's thread: others wait for that one.
pub fn shaped(conn: &Connection, collection: &str, made: Made, shape: &Shape) -> Result<Vec<u8>, StoreError> {
    let catalogue = Catalogue::load(conn)?;
    let asking = Asking { catalogue: &catalogue, request: &made.request };
    list::sent(conn, asking, catalogue.get(collection)?, made.record, shape)
}
