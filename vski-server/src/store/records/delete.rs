//! Deleting, with what refers to the record: a reference is taken out of the field that has it; where it was the last one,
//! `cascadeDelete` deletes the referrer, too, and a required field refuses the whole.

use std::collections::{BTreeSet, VecDeque};

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use vski_replication::schema::sql::quote_name;

use super::{missing, on_table};
use crate::store::collections::{Catalogue, Collection};
use crate::store::error::StoreError;
use crate::store::fields::{Field, FieldKind, lists};
use crate::store::ids;

/// A record that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The id of its collection.
    pub collection_id: String,
    /// Its id.
    pub id: String,
    /// The names of the files that it had.
    pub files: Vec<String>,
}

/// Removes a record and whatever goes with it; returns all that is gone, itself first.
pub fn delete(
    conn: &Connection,
    catalogue: &Catalogue,
    collection: &Collection,
    id: &str,
) -> Result<Vec<Deleted>, StoreError> {
    collection.check_writable()?;
    let mut cascade = Cascade { conn, catalogue, gone: Vec::new(), queue: VecDeque::new(), refused: Vec::new() };
    if !cascade.remove(collection, id)? {
        return Err(missing(collection, id));
    }
    cascade.finish()
}

/// Removes all records of a collection, one after another where others refer to them.
pub fn truncate(conn: &Connection, catalogue: &Catalogue, collection: &Collection) -> Result<Vec<Deleted>, StoreError> {
    collection.check_writable()?;
    let sql = format!("SELECT id FROM {}", quote_name(&collection.table));
    let all = on_table(conn, collection, &sql, |statement| {
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
    })?;
    let mut cascade = Cascade { conn, catalogue, gone: Vec::new(), queue: VecDeque::new(), refused: Vec::new() };
    for id in all {
        cascade.remove(collection, &id)?;
    }
    cascade.finish()
}

struct Cascade<'a> {
    conn: &'a Connection,
    catalogue: &'a Catalogue,
    gone: Vec<Deleted>,
    /// Records that are gone and whose referrers are still to be looked for.
    queue: VecDeque<(&'a Collection, String)>,
    /// Records that require one that is gone: an error unless they go, too.
    refused: Vec<(&'a Collection, &'a Field, String)>,
}

impl<'a> Cascade<'a> {
    /// Deletes one row. False if it is not there.
    fn remove(&mut self, collection: &'a Collection, id: &str) -> Result<bool, StoreError> {
        let files: Vec<&Field> =
            collection.fields.iter().filter(|field| matches!(field.kind, FieldKind::File { .. })).collect();
        let columns: String = files.iter().map(|field| format!(", {}", quote_name(&field.name))).collect();
        let sql = format!("DELETE FROM {} WHERE id = ?1 RETURNING id{columns}", quote_name(&collection.table));
        let found = on_table(self.conn, collection, &sql, |statement| {
            let names = |row: &rusqlite::Row<'_>| {
                let mut names = Vec::new();
                for (at, field) in files.iter().enumerate() {
                    names.extend(lists::from_sql(&field.kind, &row.get::<_, Sql>(at + 1)?));
                }
                Ok(names)
            };
            statement.query_row([id], names).optional()
        })?;
        let Some(files) = found else { return Ok(false) };
        self.gone.push(Deleted { collection_id: collection.id.clone(), id: id.to_owned(), files });
        self.queue.push_back((collection, id.to_owned()));
        Ok(true)
    }

    /// Follows references backwards until nothing refers to what is gone.
    fn finish(mut self) -> Result<Vec<Deleted>, StoreError> {
        while let Some((collection, id)) = self.queue.pop_front() {
            let (catalogue, mut referrers) = (self.catalogue, Vec::new());
            referrers.extend(catalogue.referrers(collection).filter(|(from, _)| !from.is_view()));
            for (from, field) in referrers {
                self.release(from, field, &id)?;
            }
        }
        let gone: BTreeSet<(&str, &str)> =
            self.gone.iter().map(|gone| (gone.collection_id.as_str(), gone.id.as_str())).collect();
        let kept = self.refused.iter().find(|(from, _, id)| !gone.contains(&(from.id.as_str(), id.as_str())));
        if let Some((from, field, id)) = kept {
            return Err(StoreError::Invalid(format!(
                "the record cannot be deleted: the field {} of record {id} in collection {} requires it; change or delete \
                 that one first",
                field.name, from.name
            )));
        }
        Ok(self.gone)
    }

    /// Takes `id` out of a field wherever it stands.
    fn release(&mut self, from: &'a Collection, field: &'a Field, id: &str) -> Result<(), StoreError> {
        let (table, column) = (quote_name(&from.table), quote_name(field.column_name()));
        let names_it = if field.kind.is_multiple() {
            // The first condition rules most rows out without parsing.
            let list = format!("CASE WHEN json_valid({column}) THEN {column} ELSE '[]' END");
            format!("instr({column}, ?1) AND EXISTS (SELECT 1 FROM json_each({list}) WHERE value = ?1)")
        } else {
            format!("{column} = ?1")
        };
        let sql = format!("SELECT id, {column} FROM {table} WHERE {names_it}");
        let found = on_table(self.conn, from, &sql, |statement| {
            let rows = statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, Sql)>>>()
        })?;
        let cascades = matches!(field.kind, FieldKind::Relation { cascade_delete: true, .. });
        for (referrer, value) in found {
            let mut left = lists::from_sql(&field.kind, &value);
            left.retain(|other| other != id);
            if left.is_empty() && cascades {
                self.remove(from, &referrer)?;
            } else if left.is_empty() && field.required {
                self.refused.push((from, field, referrer));
            } else {
                let sql = format!("UPDATE {table} SET {column} = ?, updated = ? WHERE id = ?");
                let values = [lists::to_sql(&field.kind, left), Sql::Text(ids::now()), Sql::Text(referrer)];
                on_table(self.conn, from, &sql, |statement| statement.execute(params_from_iter(values)))?;
            }
        }
        Ok(())
    }
}
