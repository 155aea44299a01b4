use vski_replication::names;

use super::{Catalogue, Collection, MAX_FIELDS};
use crate::filter;
use crate::store::error::{FieldError, NOT_UNIQUE, StoreError};
use crate::store::fields::{Field, FieldKind};

/// Columns that every record has.
pub const SYSTEM_COLUMNS: [&str; 3] = ["id", "created", "updated"];

/// Names that a record's JSON uses for itself, and columns that the server keeps.
const RESERVED_FIELDS: [&str; 5] = ["collectionId", "collectionName", "expand", "passwordHash", "rowid"];

/// Whether this describes a column that every record has, as PocketBase lists them among the fields.
#[must_use]
pub fn is_system_column(field: &Field) -> bool {
    match field.name.as_str() {
        "id" => field.system,
        "created" | "updated" => field.system || matches!(field.kind, FieldKind::Autodate { .. }),
        _ => false,
    }
}

/// Checks the name of a new collection.
pub fn name(name: &str) -> Result<(), StoreError> {
    if is_identifier(name) && !names::is_reserved_table(name) {
        return Ok(());
    }
    let code = if name.is_empty() { "validation_required" } else { "validation_match_invalid" };
    let message = "must be 1 to 63 letters, digits or '_', beginning with a letter, and not with sqlite_";
    Err(StoreError::field("name", code, message))
}

/// Checks the id that a caller wants for a new collection.
pub fn id(id: &str) -> Result<(), StoreError> {
    let good = (1..=63).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if good {
        return Ok(());
    }
    Err(StoreError::field("id", "validation_invalid_id", "must be 1 to 63 letters, digits or '_'"))
}

/// Checks names and options of fields, all at once.
pub fn fields(fields: &[Field]) -> Result<(), StoreError> {
    let mut errors = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        let same = |other: &str| field.name.eq_ignore_ascii_case(other);
        let wrong = if !is_identifier(&field.name) {
            Some("must be 1 to 63 letters, digits or '_', beginning with a letter")
        } else if SYSTEM_COLUMNS.into_iter().chain(RESERVED_FIELDS).any(same) {
            Some("is a name that every record uses for itself: choose another")
        } else if field.name.to_ascii_lowercase().contains("_via_") {
            Some("must not contain _via_, which stands for a relation read backwards")
        } else if fields[..at].iter().any(|earlier| same(&earlier.name)) {
            Some("is given twice")
        } else {
            None
        };
        errors.extend(wrong.map(|message| FieldError {
            field: format!("fields[{at}].name"),
            code: "validation_invalid_name",
            message: format!("{:?} {message}", field.name),
        }));
        if fields[..at].iter().any(|earlier| earlier.id == field.id && !same(&earlier.name)) {
            errors.push(FieldError {
                field: format!("fields[{at}].id"),
                code: NOT_UNIQUE,
                message: format!("{:?} is another field's id", field.id),
            });
        }
        errors.extend(field.wrong_options(&format!("fields[{at}]")));
    }
    if fields.len() > MAX_FIELDS {
        errors.push(too_many());
    }
    if errors.is_empty() { Ok(()) } else { Err(StoreError::Fields(errors)) }
}

/// The error for more fields than a collection may have.
pub fn too_many() -> FieldError {
    FieldError {
        field: "fields".into(),
        code: "validation_too_many",
        message: format!("must be at most {MAX_FIELDS}, hidden ones included"),
    }
}

/// Whether this can be a name of a collection or field.
#[must_use]
pub fn is_identifier(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Rules about a body that makes or changes a record.
const CHANGES: [&str; 2] = ["createRule", "updateRule"];

/// Checks the filters among the rules, against the catalogue as it will be.
pub fn rules(catalogue: &Catalogue, collection: &Collection) -> Result<(), StoreError> {
    let filters = super::rules::NAMES.iter().zip(collection.rules.all());
    let filters = filters.filter_map(|(name, rule)| Some((name, rule.as_deref().filter(|text| !text.is_empty())?)));
    let refused = filters.filter_map(|(name, text)| {
        Some((name, filter::check(text, catalogue, collection, CHANGES.contains(name)).err()?))
    });
    let errors: Vec<_> = refused
        .map(|(name, error)| FieldError {
            field: (*name).to_owned(),
            code: "validation_invalid_rule",
            message: error.to_string(),
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(StoreError::Fields(errors)) }
}
