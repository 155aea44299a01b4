//! Whether what is wanted of a collection may be.

use crate::store::collections::rules::{self, RuleChanges};
use crate::store::collections::{Collection, CollectionKind, Index, Wanted, check};
use crate::store::error::{FieldError, StoreError};
use crate::store::fields::Field;

pub(super) fn append_only(field: &str, message: String) -> StoreError {
    StoreError::field(field, "validation_append_only", message)
}

pub(super) fn check_same(old: &Collection, wanted: &Wanted) -> Result<(), StoreError> {
    if let Some(name) = wanted.name.as_ref().filter(|name| **name != old.name) {
        let message = format!("cannot change from {} to {name}: schemas are append-only", old.name);
        return Err(append_only("name", message));
    }
    if wanted.kind.is_some_and(|kind| kind != old.kind) {
        return Err(append_only("type", "cannot change: schemas are append-only".to_owned()));
    }
    Ok(())
}

pub(super) fn check_rules(kind: CollectionKind, wanted: &RuleChanges) -> Result<(), StoreError> {
    let meaningless = |at: usize| match kind {
        CollectionKind::Base => at >= 5,
        CollectionKind::Auth => false,
        CollectionKind::View => at >= 2,
    };
    let given = wanted.iter().enumerate().filter(|(at, rule)| meaningless(*at) && matches!(rule, Some(Some(_))));
    let errors: Vec<_> = given
        .map(|(at, _)| FieldError {
            field: rules::NAMES[at].to_owned(),
            code: "validation_invalid_value",
            message: "must be null: this kind of collection has no such rule".to_owned(),
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(StoreError::Fields(errors)) }
}

pub(super) fn parse_indexes(collection: &Collection, wanted: &[String]) -> Result<Vec<Index>, StoreError> {
    let system = check::SYSTEM_COLUMNS.into_iter();
    let readable = collection.visible().filter(|field| !field.is_secret()).map(Field::column_name);
    let columns: Vec<&str> = system.chain(readable).collect();
    let (mut indexes, mut errors) = (Vec::<Index>::new(), Vec::new());
    for (at, sql) in wanted.iter().enumerate() {
        let checked = Index::parse(sql).and_then(|index| {
            let elsewhere = !index.collection.eq_ignore_ascii_case(&collection.name);
            let twice = indexes.iter().any(|other| other.name.eq_ignore_ascii_case(&index.name));
            match index.misfit(&columns) {
                _ if elsewhere => {
                    Err(format!("is ON {}, and this is collection {}", index.collection, collection.name))
                }
                _ if twice => Err(format!("has the name {} of another one", index.name)),
                Some(misfit) => Err(misfit),
                None => Ok(index),
            }
        });
        match checked {
            Ok(index) => indexes.push(index),
            Err(message) => errors.push(FieldError {
                field: format!("indexes[{at}]"),
                code: "validation_invalid_index_expression",
                message,
            }),
        }
    }
    if errors.is_empty() { Ok(indexes) } else { Err(StoreError::Fields(errors)) }
}

/// Whoever logs in is found by one of these: no two records may have the same.
pub(super) fn check_identities(collection: &Collection) -> Result<(), StoreError> {
    let Some(auth) = &collection.auth else { return Ok(()) };
    let unique = |name: &str| {
        name == "email"
            || collection
                .indexes
                .iter()
                .any(|index| index.unique && index.columns.len() == 1 && index.columns[0] == name)
    };
    let wrong =
        auth.password_auth.identity_fields.iter().find(|name| collection.field(name).is_none() || !unique(name));
    if let Some(name) = wrong {
        let message = format!("cannot hold {name}: it must be a field with a unique index of its own");
        return Err(StoreError::field("passwordAuth.identityFields", "validation_missing_unique_constraint", message));
    }
    if auth.password_auth.enabled && auth.password_auth.identity_fields.is_empty() {
        return Err(StoreError::field("passwordAuth.identityFields", "validation_required", "must not be empty"));
    }
    if !(10..=94_670_856).contains(&auth.auth_token.duration) {
        let message = "must be 10 to 94670856 seconds";
        return Err(StoreError::field("authToken.duration", "validation_invalid_value", message));
    }
    Ok(())
}
