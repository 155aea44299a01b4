use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use vski_replication::schema::sql::quote_name;

use super::check::check;
use super::create::not_unique;
use super::{Body, Secrets, missing, on_table, relations};
use crate::store::collections::{Catalogue, Collection};
use crate::store::error::StoreError;
use crate::store::ids;

/// Checks and changes some fields of a record.
pub fn update(
    conn: &Connection,
    catalogue: &Catalogue,
    collection: &Collection,
    id: &str,
    body: &Body,
    secrets: &Secrets,
) -> Result<(), StoreError> {
    collection.check_writable()?;
    body.check_resolved()?;
    let record = check(collection, body.sender, &body.values, true, secrets)?;
    if record.id.as_ref().is_some_and(|wanted| wanted != id) {
        return Err(StoreError::field("id", "validation_pk_change", "a record's id cannot change"));
    }
    record.check_hashed()?;
    relations::check(conn, catalogue, collection, &record, id)?;
    let sets: String = record.values.iter().map(|(name, _)| format!(", {} = ?", quote_name(name))).collect();
    let sql = format!("UPDATE {} SET updated = ?{sets} WHERE id = ?", quote_name(&collection.table));
    let values = std::iter::once(Sql::Text(ids::now()))
        .chain(record.values.iter().map(|(_, value)| value.clone()))
        .chain(std::iter::once(Sql::Text(id.to_owned())));
    let changed = on_table(conn, collection, &sql, |statement| statement.execute(params_from_iter(values)));
    if changed.map_err(|error| not_unique(collection, error))? == 0 {
        return Err(missing(collection, id));
    }
    Ok(())
}
