//! What a caller does to one record: the collection's rule, the values, the files, in the savepoint of the request. A
//! batch does several of them in one.

use std::sync::Arc;

use rusqlite::Connection;
use serde_json::{Map, Value};
use vski_replication::files;

use super::collections::{Catalogue, Collection, Rules};
use super::error::StoreError;
use super::files::{Upload, values};
use super::records::{self, Deleted, Secrets};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make a record.
    Create,
    /// Change this one.
    Update(String),
    /// Change the one that the body names, or make it.
    Upsert,
    /// Remove this one.
    Delete(String),
}

/// A change of one record, as a request asks for it.
pub struct Action {
    /// What is to be done.
    pub verb: Verb,
    /// Name or id of the collection.
    pub collection: String,
    /// The values.
    pub body: Map<String, Value>,
    /// The files.
    pub uploads: Arc<Vec<Upload>>,
    /// Hashes of the passwords in the values.
    pub secrets: Secrets,
}

impl Action {
    /// A change without files and passwords.
    #[must_use]
    pub fn new(verb: Verb, collection: &str, body: Map<String, Value>) -> Self {
        let collection = collection.to_owned();
        Self { verb, collection, body, uploads: Arc::default(), secrets: Secrets::default() }
    }

    /// Does it for a caller. The record as that caller sees it; `None` of one that is gone.
    pub fn run(&self, conn: &Connection, admin: bool) -> Result<Option<Value>, StoreError> {
        let catalogue = Catalogue::load(conn)?;
        let collection = catalogue.get(&self.collection)?;
        let record = match &self.verb {
            Verb::Create => self.create(conn, &catalogue, collection, admin)?,
            Verb::Update(id) => self.update(conn, &catalogue, collection, id, admin)?,
            Verb::Upsert => match self.body.get("id").and_then(Value::as_str) {
                Some(id) if exists(conn, collection, id)? => self.update(conn, &catalogue, collection, id, admin)?,
                _ => self.create(conn, &catalogue, collection, admin)?,
            },
            Verb::Delete(id) => {
                allowed(collection, admin, |rules| &rules.delete_rule)?;
                forget_files(conn, &records::delete(conn, &catalogue, collection, id)?)?;
                return Ok(None);
            }
        };
        Ok(Some(shown(collection, record, admin)))
    }

    fn create(
        &self,
        conn: &Connection,
        catalogue: &Catalogue,
        collection: &Collection,
        admin: bool,
    ) -> Result<Value, StoreError> {
        allowed(collection, admin, |rules| &rules.create_rule)?;
        let resolved = values::resolve(collection, None, &self.body, &self.uploads)?;
        let record = records::create(conn, catalogue, collection, &resolved.body, &self.secrets)?;
        resolved.store(conn, collection, record["id"].as_str().unwrap_or_default(), &self.uploads)?;
        Ok(record)
    }

    fn update(
        &self,
        conn: &Connection,
        catalogue: &Catalogue,
        collection: &Collection,
        id: &str,
        admin: bool,
    ) -> Result<Value, StoreError> {
        allowed(collection, admin, |rules| &rules.update_rule)?;
        let old = records::view(conn, collection, id)?;
        let resolved = values::resolve(collection, Some(&old), &self.body, &self.uploads)?;
        let record = records::update(conn, catalogue, collection, id, &resolved.body, &self.secrets)?;
        resolved.store(conn, collection, id, &self.uploads)?;
        Ok(record)
    }
}

/// Takes away the rows of the files that deleted records had.
pub fn forget_files(conn: &Connection, deleted: &[Deleted]) -> Result<(), StoreError> {
    for record in deleted.iter().filter(|record| !record.files.is_empty()) {
        files::remove_all(conn, &record.collection_id, &record.id)?;
    }
    Ok(())
}

fn exists(conn: &Connection, collection: &Collection, id: &str) -> Result<bool, StoreError> {
    match records::view(conn, collection, id) {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The collection, if its rule lets the caller through: admins always, everyone where the rule is empty.
pub fn allowed(
    collection: &Collection,
    admin: bool,
    rule: fn(&Rules) -> &Option<String>,
) -> Result<&Collection, StoreError> {
    if admin || rule(&collection.rules).as_deref() == Some("") {
        return Ok(collection);
    }
    let message =
        format!("only admins may do this in collection {}: log in, or let an admin open its rule", collection.name);
    Err(StoreError::Forbidden(message))
}

/// A record without what only admins see, unless one asks.
pub fn shown(collection: &Collection, mut record: Value, admin: bool) -> Value {
    if let Some(record) = record.as_object_mut().filter(|_| !admin) {
        collection.hide(record);
    }
    record
}
