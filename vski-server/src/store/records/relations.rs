use rusqlite::Connection;

use super::check::NewRecord;
use super::on_table;
use crate::store::collections::{Catalogue, Collection};
use crate::store::error::{FieldError, StoreError};
use crate::store::fields::{FieldKind, lists};

/// Whether all records exist that the relations of a record to be stored name. It may name itself by `id`.
pub fn check(
    conn: &Connection,
    catalogue: &Catalogue,
    collection: &Collection,
    record: &NewRecord,
    id: &str,
) -> Result<(), StoreError> {
    let mut errors = Vec::new();
    for field in collection.visible().filter(|field| matches!(field.kind, FieldKind::Relation { .. })) {
        let Some(value) = record.value(field.column_name()) else { continue };
        let named = lists::from_sql(&field.kind, value);
        if named.is_empty() {
            continue;
        }
        let Some(target) = catalogue.target(field) else {
            return Err(StoreError::Catalogue(format!(
                "the relation {} of collection {} points to a collection that is not there: leave the field out",
                field.name, collection.name
            )));
        };
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {} AS r WHERE r.id = ?1)", target.source());
        for wanted in named {
            let itself = target.id == collection.id && wanted == id;
            if !itself && !on_table(conn, target, &sql, |found| found.query_row([&wanted], |row| row.get(0)))? {
                let shown: String = wanted.chars().take(40).collect();
                errors.push(FieldError {
                    field: field.name.clone(),
                    code: "validation_missing_rel_records",
                    message: format!("names the record {shown:?}, which collection {} does not have", target.name),
                });
                break;
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(StoreError::Fields(errors)) }
}
