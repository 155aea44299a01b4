//! The fields of a collection that is changed.

use super::checks::append_only;
use crate::store::collections::{MAX_FIELDS, check};
use crate::store::error::StoreError;
use crate::store::fields::{Field, FieldKind};

/// Fields are added, hidden or brought back, never retyped nor renamed.
pub(super) fn merge_fields(old: &[Field], wanted: &[Field], keep: bool) -> Result<Vec<Field>, StoreError> {
    let mut merged = old.to_vec();
    merged.iter_mut().for_each(|field| field.deleted |= !keep && !field.system);
    for field in wanted {
        // An id that nobody gave says nothing: the column may have been renamed by hand.
        let given = field.id != field.default_id();
        if let Some(known) = old.iter().find(|known| given && known.id == field.id && known.name != field.name) {
            let message = format!("cannot be renamed from {} to {}: schemas are append-only", known.name, field.name);
            return Err(append_only(&known.name, message));
        }
        match merged.iter_mut().find(|known| known.name.eq_ignore_ascii_case(&field.name)) {
            Some(known) if known.name != field.name || !can_become(&known.kind, &field.kind) => {
                let many = if known.kind.is_multiple() { " with several values" } else { "" };
                let message = format!(
                    "exists as {} of type {}{many}, and schemas are append-only: choose another name",
                    known.name,
                    known.kind.name()
                );
                return Err(append_only(&field.name, message));
            }
            Some(known) => {
                let (id, system) = (known.id.clone(), known.system);
                *known = Field { id, system, hidden: field.hidden || field.is_secret(), ..field.clone() };
            }
            None => {
                let hidden = field.hidden || field.is_secret();
                let mut new = Field { system: false, hidden, ..field.clone() };
                while merged.iter().any(|known| known.id == new.id) {
                    new.id.push('0');
                }
                merged.push(new);
            }
        }
    }
    if merged.len() > MAX_FIELDS {
        return Err(StoreError::Fields(vec![check::too_many()]));
    }
    Ok(merged)
}

/// Whether a field keeps its values' meaning: options may change, the type and a relation's target not.
pub(super) fn can_become(old: &FieldKind, new: &FieldKind) -> bool {
    let same_target = match (old, new) {
        (FieldKind::Relation { collection_id: a, .. }, FieldKind::Relation { collection_id: b, .. }) => a == b,
        _ => true,
    };
    old.stores_like(new) && same_target
}
