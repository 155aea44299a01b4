use rusqlite::{Connection, ToSql, params_from_iter};
use vski_replication::schema::sql::push_name;

use super::check::check;
use super::create::not_unique;
use super::{Body, COLUMNS_BYTES, Secrets, missing, on_table, relations};
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
    let mut sql = String::with_capacity(COLUMNS_BYTES);
    sql.push_str("UPDATE ");
    push_name(&mut sql, &collection.table);
    sql.push_str(" SET updated = ?");
    for (name, _) in &record.values {
        sql.push_str(", ");
        push_name(&mut sql, name);
        sql.push_str(" = ?");
    }
    sql.push_str(" WHERE id = ?");
    let now = ids::now();
    let sets = record.values.iter().map(|(_, value)| value as &dyn ToSql);
    let values = std::iter::once(&now as &dyn ToSql).chain(sets).chain(std::iter::once(&id as &dyn ToSql));
    let changed = on_table(conn, collection, &sql, |statement| statement.execute(params_from_iter(values)));
    if changed.map_err(|error| not_unique(collection, error))? == 0 {
        return Err(missing(collection, id));
    }
    Ok(())
}
