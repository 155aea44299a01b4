//! Before the first file of a batch's form goes to the disk: whether the batch can be allowed at all. What its records say
//! is judged when it is run.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{actions, place};
use crate::config::Limits;
use crate::filter::RequestInfo;
use crate::http::error::ApiError;
use crate::store::collections::{Catalogue, Collection};
use crate::store::error::StoreError;
use crate::store::fields::FieldKind;

/// What is known before a form is read.
pub struct Gate {
    /// Who sends it.
    pub request: RequestInfo,
    /// The database that it is about.
    pub db: String,
    /// The collections as they are now.
    pub catalogue: Arc<Catalogue>,
    /// How much it may ask for.
    pub limits: Limits,
}

impl Gate {
    /// Refuses the file `key` of a form whose parts before it are `values`. Clients send the requests first; where a file
    /// comes before them, there must be a collection that takes files from this caller.
    pub fn check(&self, values: &Map<String, Value>, key: &str) -> Result<(), ApiError> {
        if !values.contains_key("requests") {
            return self.check_unknown();
        }
        let actions = actions(&self.request, &self.db, Value::Object(values.clone()), &self.limits)?;
        if place(key).is_none_or(|(at, _)| at >= actions.len()) {
            return Err(stray(key));
        }
        for (at, action) in actions.iter().enumerate() {
            let possible = action.check_possible(&self.catalogue);
            possible.map_err(|error| StoreError::Batch { at, error: Box::new(error) })?;
        }
        Ok(())
    }

    fn check_unknown(&self) -> Result<(), ApiError> {
        let takes_files = |collection: &Collection| {
            let rules = &collection.rules;
            (rules.create_rule.is_some() || rules.update_rule.is_some())
                && collection.visible().any(|field| matches!(field.kind, FieldKind::File { .. }))
        };
        if self.request.requester.is_admin() || self.catalogue.iter().any(takes_files) {
            return Ok(());
        }
        Err(ApiError::forbidden("only admins may send files: no collection takes them from others"))
    }
}

/// The error for a file that belongs to no request.
pub fn stray(key: &str) -> ApiError {
    ApiError::bad_request(format!("file {key:?} belongs to no request: call it requests.0.field"))
}
