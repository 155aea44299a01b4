//! What a caller does to one record, for requests that come one by one and for batches of them.

use std::sync::Arc;

use rusqlite::Connection;
use serde_json::Value;

use super::collections::{Catalogue, Rules};
use super::error::StoreError;
use super::files::Upload;
use super::query::write::Made;
use super::query::{Shape, rules, write};
use super::reader::Reader;
use super::records::{self, Secrets};
use crate::filter::RequestInfo;

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

impl Verb {
    /// Whether others than admins may do it at all.
    fn is_open(&self, rules: &Rules) -> bool {
        match self {
            Self::Create => rules.create_rule.is_some(),
            Self::Update(_) => rules.update_rule.is_some(),
            Self::Upsert => rules.create_rule.is_some() || rules.update_rule.is_some(),
            Self::Delete(_) => rules.delete_rule.is_some(),
        }
    }
}

/// A change of one record, as a request asks for it.
pub struct Action {
    /// What is to be done.
    pub verb: Verb,
    /// Name or id of the collection.
    pub collection: String,
    /// Who asks, and with which values.
    pub request: RequestInfo,
    /// The files.
    pub uploads: Arc<Vec<Upload>>,
    /// Hashes of the passwords in the values.
    pub secrets: Secrets,
    /// What of the record is answered.
    pub shape: Shape,
}

impl Action {
    /// A change without files and passwords.
    #[must_use]
    pub fn new(verb: Verb, collection: &str, request: RequestInfo, shape: Shape) -> Self {
        let (uploads, secrets) = (Arc::default(), Secrets::default());
        Self { verb, collection: collection.to_owned(), request, uploads, secrets, shape }
    }

    /// The record that it changes, if there is one.
    #[must_use]
    pub fn changes(&self) -> Option<&str> {
        match &self.verb {
            Verb::Update(id) => Some(id),
            Verb::Upsert => self.request.body.get("id").and_then(Value::as_str),
            Verb::Create | Verb::Delete(_) => None,
        }
    }

    /// Whether its values may have a password in them, which others than the writer's thread look at.
    #[must_use]
    pub fn names_password(&self) -> bool {
        self.request.body.keys().any(|key| key == "oldPassword" || Catalogue::knows_password(key))
    }

    /// Refuses, before anything is worked out for it, a request with a password that no rule lets anybody but admins send:
    /// a hash takes long. All other requests are judged when they are run.
    pub async fn check_open(&self, reader: &Reader) -> Result<(), StoreError> {
        let RequestInfo { requester, body, .. } = &self.request;
        if requester.is_admin() || !body.keys().any(|key| Catalogue::knows_password(key)) {
            return Ok(());
        }
        let (name, verb) = (self.collection.clone(), self.verb.clone());
        let read = reader.read(move |conn| match Catalogue::load(conn)?.find(&name) {
            Some(collection) if !verb.is_open(&collection.rules) => Err(rules::closed(collection)),
            _ => Ok(()),
        });
        // Boxed: most writes have no password.
        Box::pin(read).await
    }

    /// Refuses what cannot be allowed whatever the records are: where there is no such collection, or no rule for others than
    /// admins.
    pub fn check_possible(&self, catalogue: &Catalogue) -> Result<(), StoreError> {
        let collection = catalogue.get(&self.collection)?;
        let is_open = self.request.requester.is_admin() || self.verb.is_open(&collection.rules);
        if is_open { Ok(()) } else { Err(rules::closed(collection)) }
    }

    /// Does it. The record as the caller sees it; `None` of one that is gone.
    pub fn run(&self, conn: &Connection) -> Result<Option<Made>, StoreError> {
        let Self { request, collection, secrets, uploads, shape, .. } = self;
        let create = || write::create(conn, request, collection, secrets, uploads, shape);
        let update = |id: &str| write::update(conn, request, collection, id, secrets, uploads, shape);
        match &self.verb {
            Verb::Create => create().map(Some),
            Verb::Update(id) => update(id).map(Some),
            Verb::Upsert => match request.body.get("id").and_then(Value::as_str) {
                Some(id) if exists(conn, collection, id)? => update(id).map(Some),
                _ => create().map(Some),
            },
            Verb::Delete(id) => write::delete(conn, request, collection, id).map(|_| None),
        }
    }
}

fn exists(conn: &Connection, collection: &str, id: &str) -> Result<bool, StoreError> {
    match records::view(conn, Catalogue::load(conn)?.get(collection)?, id) {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
