//! Deleting, with what refers to the record: a reference is taken out of the field that has it; where it was the last one,
//! `cascadeDelete` deletes the referrer, too, and a required field refuses the whole.

use std::collections::{BTreeSet, HashSet, VecDeque};

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Row, params_from_iter};
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
    let mut cascade = Cascade::new(conn, catalogue);
    cascade.remove(collection, Some(&Ids::new(vec![id.to_owned()])))?;
    if cascade.gone.is_empty() {
        return Err(missing(collection, id));
    }
    cascade.finish()
}

/// Removes all records of a collection.
pub fn truncate(conn: &Connection, catalogue: &Catalogue, collection: &Collection) -> Result<Vec<Deleted>, StoreError> {
    collection.check_writable()?;
    let mut cascade = Cascade::new(conn, catalogue);
    cascade.remove(collection, None)?;
    cascade.finish()
}

/// Ids of records of one collection.
struct Ids {
    set: HashSet<String>,
    /// A JSON array of them: one parameter, however many they are.
    json: String,
}

impl Ids {
    fn new(ids: Vec<String>) -> Self {
        Self { json: serde_json::Value::from(ids.as_slice()).to_string(), set: ids.into_iter().collect() }
    }
}

/// Goes from what is gone to what refers to it, many records at a time: each step looks at a referring field once.
struct Cascade<'a> {
    conn: &'a Connection,
    catalogue: &'a Catalogue,
    gone: Vec<Deleted>,
    /// Records that are gone and whose referrers are still to be looked for.
    queue: VecDeque<(&'a Collection, Ids)>,
    /// Records that require one that is gone: an error unless they go, too.
    refused: Vec<(&'a Collection, &'a Field, String)>,
}

impl<'a> Cascade<'a> {
    fn new(conn: &'a Connection, catalogue: &'a Catalogue) -> Self {
        Self { conn, catalogue, gone: Vec::new(), queue: VecDeque::new(), refused: Vec::new() }
    }

    /// Deletes rows, those of these ids or all; some may not be there.
    fn remove(&mut self, collection: &'a Collection, wanted: Option<&Ids>) -> Result<(), StoreError> {
        let files: Vec<&Field> =
            collection.fields.iter().filter(|field| matches!(field.kind, FieldKind::File { .. })).collect();
        let columns: String = files.iter().map(|field| format!(", {}", quote_name(&field.name))).collect();
        let which = if wanted.is_some() { "WHERE id IN (SELECT value FROM json_each(?1))" } else { "" };
        let sql = format!("DELETE FROM {} {which} RETURNING id{columns}", quote_name(&collection.table));
        let deleted = |row: &Row<'_>| {
            let mut names = Vec::new();
            for (at, field) in files.iter().enumerate() {
                names.extend(lists::from_sql(&field.kind, &row.get::<_, Sql>(at + 1)?));
            }
            Ok(Deleted { collection_id: collection.id.clone(), id: row.get(0)?, files: names })
        };
        let found = on_table(self.conn, collection, &sql, |statement| {
            let params = params_from_iter(wanted.map(|ids| &ids.json));
            statement.query_map(params, deleted)?.collect::<rusqlite::Result<Vec<Deleted>>>()
        })?;
        if !found.is_empty() {
            self.queue.push_back((collection, Ids::new(found.iter().map(|gone| gone.id.clone()).collect())));
            self.gone.extend(found);
        }
        Ok(())
    }

    /// Follows references backwards until nothing refers to what is gone.
    fn finish(mut self) -> Result<Vec<Deleted>, StoreError> {
        while let Some((collection, ids)) = self.queue.pop_front() {
            let (catalogue, mut referrers) = (self.catalogue, Vec::new());
            referrers.extend(catalogue.referrers(collection).filter(|(from, _)| !from.is_view()));
            for (from, field) in referrers {
                if field.kind.is_multiple() {
                    self.release_lists(from, field, &ids)?;
                } else {
                    self.release(from, field, &ids)?;
                }
            }
        }
        if self.refused.is_empty() {
            return Ok(self.gone);
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

    /// Empties a field with one reference wherever it has one of `ids`; an index on it serves.
    fn release(&mut self, from: &'a Collection, field: &'a Field, ids: &Ids) -> Result<(), StoreError> {
        let (table, column) = (quote_name(&from.table), quote_name(field.column_name()));
        let names_one = format!("{column} IN (SELECT value FROM json_each(?1))");
        if !(cascades(field) || field.required) {
            let sql = format!("UPDATE {table} SET {column} = ?2, updated = ?3 WHERE {names_one}");
            let values = [Sql::Text(ids.json.clone()), lists::to_sql(&field.kind, Vec::new()), Sql::Text(ids::now())];
            on_table(self.conn, from, &sql, |statement| statement.execute(params_from_iter(values)))?;
            return Ok(());
        }
        let sql = format!("SELECT id FROM {table} WHERE {names_one}");
        let found = on_table(self.conn, from, &sql, |statement| {
            statement.query_map([&ids.json], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        if cascades(field) {
            return if found.is_empty() { Ok(()) } else { self.remove(from, Some(&Ids::new(found))) };
        }
        self.refused.extend(found.into_iter().map(|referrer| (from, field, referrer)));
        Ok(())
    }

    /// Takes `ids` out of a field with several references wherever they stand. No index looks into lists: all rows are read.
    fn release_lists(&mut self, from: &'a Collection, field: &'a Field, ids: &Ids) -> Result<(), StoreError> {
        let mut orphans = Vec::new();
        for (referrer, value) in self.lists_with(from, field, ids)? {
            let mut left = lists::from_sql(&field.kind, &value);
            left.retain(|other| !ids.set.contains(other));
            if left.is_empty() && cascades(field) {
                orphans.push(referrer);
            } else if left.is_empty() && field.required {
                self.refused.push((from, field, referrer));
            } else {
                let (table, column) = (quote_name(&from.table), quote_name(field.column_name()));
                let sql = format!("UPDATE {table} SET {column} = ?, updated = ? WHERE id = ?");
                let values = [lists::to_sql(&field.kind, left), Sql::Text(ids::now()), Sql::Text(referrer)];
                on_table(self.conn, from, &sql, |statement| statement.execute(params_from_iter(values)))?;
            }
        }
        if orphans.is_empty() { Ok(()) } else { self.remove(from, Some(&Ids::new(orphans))) }
    }

    /// The rows whose list has one of `ids`, with that list.
    fn lists_with(&self, from: &Collection, field: &Field, ids: &Ids) -> Result<Vec<(String, Sql)>, StoreError> {
        let (table, column) = (quote_name(&from.table), quote_name(field.column_name()));
        let list = format!("json_each(CASE WHEN json_valid({column}) THEN {column} ELSE '[]' END)");
        // The first condition rules most rows out without parsing.
        let (names_one, given) = match ids.set.iter().next() {
            Some(only) if ids.set.len() == 1 => {
                (format!("instr({column}, ?1) AND EXISTS (SELECT 1 FROM {list} WHERE value = ?1)"), only)
            }
            _ => {
                let named = format!("SELECT 1 FROM {list} WHERE value IN (SELECT value FROM json_each(?1))");
                (format!("{column} NOT IN ('', '[]') AND EXISTS ({named})"), &ids.json)
            }
        };
        let sql = format!("SELECT id, {column} FROM {table} WHERE {names_one}");
        on_table(self.conn, from, &sql, |statement| {
            statement.query_map([given], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }
}

fn cascades(field: &Field) -> bool {
    matches!(field.kind, FieldKind::Relation { cascade_delete: true, .. })
}
