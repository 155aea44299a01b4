use std::io;

use rusqlite::Row;
use rusqlite::types::ValueRef;
use serde::Serialize;

use super::{shown, system};
use crate::store::collections::Collection;
use crate::store::fields::{Field, FieldKind};

/// What of a record its reader may see beside what everybody may.
#[derive(Clone, Copy, Debug)]
pub struct Shows {
    /// Fields that are hidden from all but admins.
    pub hidden: bool,
    /// The address of an auth record.
    pub email: bool,
}

/// Appends a row of [`columns`](super::columns) as JSON: the text of what [`to_json`](super::to_json) makes, without a tree of
/// values in between.
pub fn write_json(out: &mut Vec<u8>, collection: &Collection, row: &Row<'_>, shows: Shows) -> rusqlite::Result<()> {
    out.extend_from_slice(b"{\"collectionId\":");
    write(out, &collection.id);
    key(out, "collectionName");
    write(out, &collection.name);
    let system = system(collection);
    for (at, name) in system.iter().enumerate() {
        key(out, name);
        match row.get_ref(at)? {
            ValueRef::Null => write(out, ""),
            ValueRef::Integer(number) => write(out, &number.to_string()),
            ValueRef::Real(number) => write(out, &number.to_string()),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => write(out, &*String::from_utf8_lossy(bytes)),
        }
    }
    for (at, field) in shown(collection).enumerate() {
        let is_shown = shows.hidden || !field.hidden;
        if is_shown && (shows.email || !collection.is_auth() || field.name != "email") {
            key(out, &field.name);
            write_value(out, field, row.get_ref(system.len() + at)?);
        }
    }
    out.push(b'}');
    Ok(())
}

/// The common kinds as they are stored; the others as [`Field::to_json`] makes them.
fn write_value(out: &mut Vec<u8>, field: &Field, value: ValueRef<'_>) {
    let is_plain = !field.kind.is_multiple() && !matches!(field.kind, FieldKind::Json { .. } | FieldKind::Bool {});
    match value {
        ValueRef::Text(bytes) if is_plain => write(out, &*String::from_utf8_lossy(bytes)),
        ValueRef::Integer(number) if is_plain => write(out, &number),
        value => write(out, &field.to_json(value)),
    }
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.push(b',');
    write(out, name);
    out.push(b':');
}

fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let written: io::Result<()> = serde_json::to_writer(out, value).map_err(io::Error::from);
    written.expect("text, numbers and JSON values are written to memory");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::types::Value as Sql;
    use rusqlite::{Connection, params_from_iter};
    use serde_json::json;

    use super::*;
    use crate::store::collections::CollectionKind;
    use crate::store::records::to_json;

    /// A collection with a field of each kind, some of them hidden.
    fn collection(kind: CollectionKind) -> Collection {
        let kinds = [
            json!({"type": "text", "name": "text"}),
            json!({"type": "email", "name": "email"}),
            json!({"type": "editor", "name": "ed\"itor", "hidden": true}),
            json!({"type": "number", "name": "number"}),
            json!({"type": "bool", "name": "bool"}),
            json!({"type": "date", "name": "date", "hidden": true}),
            json!({"type": "json", "name": "json"}),
            json!({"type": "select", "name": "select", "values": ["a"]}),
            json!({"type": "select", "name": "selects", "values": ["a", "b"], "maxSelect": 2}),
            json!({"type": "password", "name": "password"}),
        ];
        let fields = kinds.into_iter().map(|field| serde_json::from_value(field).unwrap()).collect();
        Collection { id: "c1".into(), name: "posts".into(), kind, fields, ..Collection::default() }
    }

    /// Whatever may stand in a column: another program may have written it.
    fn stored() -> impl Strategy<Value = Sql> {
        prop_oneof![
            Just(Sql::Null),
            any::<i64>().prop_map(Sql::Integer),
            any::<f64>().prop_map(Sql::Real),
            "\\PC{0,12}".prop_map(Sql::Text),
            "[\\x01-\\x7f\"\\\\]{0,12}".prop_map(Sql::Text),
            proptest::sample::select(vec!["[\"a\"]", "{\"k\": [1.50, null]}", "\"x\"", "[", "true"])
                .prop_map(|text| Sql::Text(text.into())),
            proptest::collection::vec(any::<u8>(), 0..8).prop_map(Sql::Blob),
        ]
    }

    proptest! {
        #[test]
        fn a_rows_text_is_that_of_its_tree(
            row in proptest::collection::vec(stored(), 12),
            kind in proptest::sample::select(vec![CollectionKind::Base, CollectionKind::Auth, CollectionKind::View]),
            hidden in any::<bool>(),
            email in any::<bool>(),
        ) {
            let (collection, conn) = (collection(kind), Connection::open_in_memory().unwrap());
            let marks = vec!["?"; row.len()].join(", ");
            let mut statement = conn.prepare(&format!("SELECT {marks}")).unwrap();
            let (text, mut tree) = statement
                .query_row(params_from_iter(&row), |row| {
                    let mut text = Vec::new();
                    write_json(&mut text, &collection, row, Shows { hidden, email })?;
                    Ok((String::from_utf8(text).unwrap(), to_json(&collection, row)?))
                })
                .unwrap();
            let record = tree.as_object_mut().unwrap();
            if !hidden {
                collection.hide(record);
            }
            if collection.is_auth() && !email {
                record.shift_remove("email");
            }
            prop_assert_eq!(text, tree.to_string());
        }
    }
}
