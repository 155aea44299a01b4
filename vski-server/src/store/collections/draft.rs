//! A catalogue in the making: collections as they shall be, and the DDL that gets them there.

/// Whether what is wanted may be.
mod checks;

/// Fields: added, hidden, brought back.
mod fields;

/// The table and its indexes.
mod tables;

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, Row};

use self::checks::{check_rules, check_same};
use self::fields::merge_fields;
use super::auth::{self, AuthOptions};
use super::{Collection, CollectionKind, Wanted, check, rows};
use crate::store::error::{NOT_UNIQUE, StoreError};
use crate::store::fields::{Field, FieldKind};
use crate::store::ids;

/// All columns of all tables, in small letters.
const COLUMNS: &str = "SELECT lower(t.name), lower(c.name) FROM sqlite_master t JOIN pragma_table_info(t.name) c
    WHERE t.type = 'table'";

/// The columns that an index over all rows begins with, and that index, in small letters.
const LEADING: &str = "SELECT lower(t.name), lower(i.name), lower(l.name)
    FROM sqlite_master t JOIN pragma_index_list(t.name) l JOIN pragma_index_xinfo(l.name) i
    WHERE t.type = 'table' AND l.partial = 0 AND i.seqno = 0 AND i.coll = 'BINARY' AND i.name IS NOT NULL";

/// A table and one of its columns, in small letters.
type Place = (String, String);

/// The catalogue as it was, and as it shall be.
pub struct Draft {
    /// All rows as they were, those of deleted collections too, by id.
    pub before: BTreeMap<String, Collection>,
    /// All rows as they shall be.
    pub after: BTreeMap<String, Collection>,
    /// Ids of rows that differ.
    pub changed: BTreeSet<String>,
    /// Statements that drop, before all others: their names are free again.
    drops: Vec<String>,
    /// Statements that make.
    makes: Vec<String>,
    /// Names of all objects in the database, in small letters, with those to come and without those to go.
    objects: BTreeSet<String>,
    /// Columns that are there before the change.
    columns: BTreeSet<Place>,
    /// Indexes that are there before the change and stay, by the column that they begin with.
    leading: BTreeSet<(Place, String)>,
    /// Ids that an import gives to collections that have another one here.
    pub aliases: BTreeMap<String, String>,
    now: String,
}

impl Draft {
    /// Of the catalogue as it is.
    pub fn new(conn: &Connection) -> Result<Self, StoreError> {
        // Rows that cannot be read stay as they are.
        let readable = rows::all(conn)?.into_iter().filter_map(Result::ok);
        let before: BTreeMap<_, _> = readable.map(|collection| (collection.id.clone(), collection)).collect();
        let objects = all(conn, "SELECT lower(name) FROM sqlite_master", |row| row.get(0))?;
        let columns = all(conn, COLUMNS, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let leading = all(conn, LEADING, |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
        let after = before.clone();
        let (changed, drops, makes, aliases) = (BTreeSet::new(), Vec::new(), Vec::new(), BTreeMap::new());
        Ok(Self { before, after, changed, drops, makes, objects, columns, leading, aliases, now: ids::now() })
    }

    /// The id of the collection with this name or id that is in use.
    pub fn find(&self, name_or_id: &str) -> Option<&Collection> {
        let mut live = self.live();
        live.clone()
            .find(|collection| collection.name.eq_ignore_ascii_case(name_or_id))
            .or_else(|| live.find(|c| c.id == name_or_id))
    }

    /// The collections in use.
    pub fn live(&self) -> impl Iterator<Item = &Collection> + Clone {
        self.after.values().filter(|collection| collection.deleted.is_none())
    }

    /// The statements, in the order in which they can run.
    pub fn statements(self) -> Vec<String> {
        let Self { mut drops, makes, .. } = self;
        drops.extend(makes);
        drops
    }

    /// A new collection without fields yet, or a deleted one of that id brought back; returns its id.
    pub fn add(&mut self, wanted: &Wanted) -> Result<String, StoreError> {
        let name = wanted.name.clone().unwrap_or_default();
        check::name(&name)?;
        let taken = |message: String| StoreError::field("name", "validation_collection_name_exists", message);
        if self.live().any(|collection| collection.name.eq_ignore_ascii_case(&name)) {
            return Err(taken(format!("a collection {name} exists already")));
        }
        let kind = wanted.kind.unwrap_or_default();
        let id = wanted.id.clone().unwrap_or_else(ids::record_id);
        check::id(&id)?;
        // Addresses take either: one must never stand for another collection than it did.
        if let Some(other) = self.live().find(|other| other.id != id && other.id.eq_ignore_ascii_case(&name)) {
            return Err(taken(format!("is the id of the collection {}: choose another", other.name)));
        }
        if let Some(other) = self.live().find(|other| other.name.eq_ignore_ascii_case(&id)) {
            let message = format!("is the name of the collection {}: choose another", other.name);
            return Err(StoreError::field("id", NOT_UNIQUE, message));
        }
        match self.after.get_mut(&id) {
            Some(old) if old.deleted.is_some() && old.name == name && old.kind == kind => old.deleted = None,
            Some(old) => {
                let message = format!(
                    "is that of the {} {}",
                    if old.deleted.is_some() { "deleted collection" } else { "collection" },
                    old.name
                );
                return Err(StoreError::field("id", NOT_UNIQUE, message));
            }
            None => {
                let left = self.after.values().any(|collection| collection.table.eq_ignore_ascii_case(&name));
                if self.objects.contains(&name.to_ascii_lowercase()) && !left {
                    return Err(taken(format!("a table or another object {name} exists already")));
                }
                let table = self.free_name(&name);
                let collection = Collection {
                    id: id.clone(),
                    name,
                    kind,
                    table,
                    created: self.now.clone(),
                    auth: (kind == CollectionKind::Auth).then(AuthOptions::default),
                    fields: if kind == CollectionKind::Auth { auth::system_fields() } else { Vec::new() },
                    ..Collection::default()
                };
                self.after.insert(id.clone(), collection);
            }
        }
        self.changed.insert(id.clone());
        Ok(id)
    }

    /// Gives the collection what is wanted of it. `keep` leaves fields as they are that are not mentioned.
    pub fn change(&mut self, id: &str, wanted: &Wanted, keep: bool) -> Result<(), StoreError> {
        let mut new =
            self.after.get(id).cloned().ok_or_else(|| StoreError::NotFound(format!("there is no collection {id}")))?;
        check_same(&new, wanted)?;
        check_rules(new.kind, &wanted.rules)?;
        new.rules.change(&wanted.rules);
        if new.is_auth() && !self.before.contains_key(id) && wanted.rules[5].is_none() {
            new.rules.auth_rule = Some(String::new());
        }
        if let Some(auth) = &mut new.auth {
            auth.password_auth = wanted.password_auth.clone().unwrap_or_else(|| auth.password_auth.clone());
            auth.auth_token = wanted.auth_token.clone().unwrap_or_else(|| auth.auth_token.clone());
        }
        if new.is_view() {
            self.change_view(&mut new, wanted)?;
        } else {
            if let Some(fields) = &wanted.fields {
                new.fields = merge_fields(&new.fields, &self.resolved(fields)?, keep)?;
            }
            self.change_table(&mut new, wanted.indexes.as_deref())?;
        }
        new.updated.clone_from(&self.now);
        self.changed.insert(id.to_owned());
        self.after.insert(id.to_owned(), new);
        Ok(())
    }

    /// Marks the collection; its table stays.
    pub fn delete(&mut self, id: &str) {
        let now = self.now.clone();
        if let Some(collection) = self.after.get_mut(id) {
            collection.deleted = Some(now.clone());
            collection.updated = now;
            self.changed.insert(id.to_owned());
        }
    }

    /// No relation of a collection in use may point to one that is not.
    pub fn check_targets(&self) -> Result<(), StoreError> {
        for from in self.live().filter(|collection| !collection.is_view()) {
            for field in from.visible() {
                let FieldKind::Relation { collection_id, .. } = &field.kind else { continue };
                // One that an edit by hand took away is no reason to refuse other changes.
                let gone = self.changed.contains(collection_id) && !self.live().any(|live| live.id == *collection_id);
                let Some(target) = self.after.get(collection_id).filter(|_| gone).map(|target| &target.name) else {
                    continue;
                };
                return Err(StoreError::Invalid(format!(
                    "collection {target} cannot be deleted while the relation {} of collection {} points to it: leave that \
                     field out first",
                    field.name, from.name
                )));
            }
        }
        Ok(())
    }

    fn change_view(&self, new: &mut Collection, wanted: &Wanted) -> Result<(), StoreError> {
        if let Some(query) = &wanted.view_query {
            new.view_query = Some(query.trim().trim_end_matches(';').trim_end().to_owned());
        }
        if new.view_query.as_ref().is_none_or(String::is_empty) {
            return Err(StoreError::field(
                "viewQuery",
                "validation_required",
                "must be the SELECT that the view shows",
            ));
        }
        if wanted.indexes.as_ref().is_some_and(|indexes| !indexes.is_empty()) {
            let message = "a view has none: declare them on the collections that it reads";
            return Err(StoreError::field("indexes", "validation_invalid_value", message));
        }
        Ok(())
    }

    /// `name`, or with a number behind it if another object is called so. It is taken from then on.
    fn free_name(&mut self, name: &str) -> String {
        let mut free = name.to_owned();
        let mut number = 2;
        while !self.objects.insert(free.to_ascii_lowercase()) {
            free = format!("{name}_{number}");
            number += 1;
        }
        free
    }

    /// Fields whose relations point to ids; a name will do in their place.
    fn resolved(&self, fields: &[Field]) -> Result<Vec<Field>, StoreError> {
        let mut resolved = fields.to_vec();
        for (at, field) in resolved.iter_mut().enumerate() {
            let FieldKind::Relation { collection_id, .. } = &mut field.kind else { continue };
            let place = format!("fields[{at}].collectionId");
            match self.find(self.aliases.get(collection_id).unwrap_or(collection_id)) {
                Some(target) if target.is_view() => {
                    let message = "must not be a view: its records are no records of their own";
                    return Err(StoreError::field(&place, "validation_invalid_value", message));
                }
                Some(target) => collection_id.clone_from(&target.id),
                None => {
                    let message = format!("must be the id or name of a collection, and {collection_id:?} is not");
                    return Err(StoreError::field(&place, "validation_field_relation_missing_collection", message));
                }
            }
        }
        Ok(resolved)
    }
}

/// All rows of a statement without parameters.
fn all<T: Ord>(
    conn: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<BTreeSet<T>, StoreError> {
    Ok(conn.prepare_cached(sql)?.query_map([], read)?.collect::<Result<_, _>>()?)
}
