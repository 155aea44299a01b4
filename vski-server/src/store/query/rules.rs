use rusqlite::{Connection, params_from_iter};

use super::{ALIAS, Asking};
use crate::filter::{self, Condition};
use crate::store::collections::{Collection, Rules};
use crate::store::error::StoreError;
use crate::store::records::on_table;

/// What a rule asks of records: nothing of an admin's, and where it is empty. `None` is an error for all others (403, as
/// PocketBase has it).
pub fn condition(
    asking: Asking<'_>,
    collection: &Collection,
    rule: fn(&Rules) -> &Option<String>,
) -> Result<Option<Condition>, StoreError> {
    check_open(asking, collection, rule)?;
    let rule = rule(&collection.rules).as_deref();
    Ok(filter::rule(&asking.scope(collection), collection, rule, ALIAS))
}

/// Whether a rule is there for others than admins at all.
pub fn check_open(
    asking: Asking<'_>,
    collection: &Collection,
    rule: fn(&Rules) -> &Option<String>,
) -> Result<(), StoreError> {
    if asking.is_admin() || rule(&collection.rules).is_some() { Ok(()) } else { Err(closed(collection)) }
}

/// The error for whoever is no admin, where there is no rule.
pub fn closed(collection: &Collection) -> StoreError {
    let name = &collection.name;
    StoreError::Forbidden(format!(
        "only admins may do this in collection {name}: log in, or let an admin open its rule"
    ))
}

/// Whether a record is there and satisfies a condition.
pub fn holds(conn: &Connection, collection: &Collection, id: &str, condition: &Condition) -> Result<bool, StoreError> {
    let source = collection.source();
    let sql = format!("SELECT EXISTS (SELECT 1 FROM {source} AS {ALIAS} WHERE {ALIAS}.id = ? AND ({}))", condition.sql);
    let params = std::iter::once(rusqlite::types::Value::Text(id.to_owned())).chain(condition.params.iter().cloned());
    on_table(conn, collection, &sql, |statement| statement.query_row(params_from_iter(params), |row| row.get(0)))
}

/// Before an update or a delete: the record must be there, and its rule let the caller through; otherwise it is as if it
/// were not there.
pub fn check_before(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    id: &str,
    rule: fn(&Rules) -> &Option<String>,
) -> Result<(), StoreError> {
    match condition(asking, collection, rule)? {
        Some(condition) if !holds(conn, collection, id, &condition)? => {
            Err(StoreError::NotFound(format!("collection {} has no record {id:?}", collection.name)))
        }
        _ => Ok(()),
    }
}

/// Before a record is made: whether the caller may at all. After it was: [`check_created`].
pub fn may_create(asking: Asking<'_>, collection: &Collection) -> Result<Option<Condition>, StoreError> {
    condition(asking, collection, |rules| &rules.create_rule)
}

/// After a record was made, in the transaction that made it: its rule sees the new row, and an error undoes it.
pub fn check_created(
    conn: &Connection,
    collection: &Collection,
    id: &str,
    rule: Option<&Condition>,
) -> Result<(), StoreError> {
    match rule {
        Some(rule) if !holds(conn, collection, id, rule)? => {
            let name = &collection.name;
            Err(StoreError::Invalid(format!("the create rule of collection {name} does not allow this record")))
        }
        _ => Ok(()),
    }
}
