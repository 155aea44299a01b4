//! The DDL of a collection's table and of its indexes.

use vski_replication::schema::sql::quote_name;

use super::Draft;
use super::checks::{check_identities, parse_indexes};
use crate::store::collections::{Collection, Index};
use crate::store::error::StoreError;
use crate::store::fields::{Field, FieldKind};

impl Draft {
    pub(super) fn change_table(&mut self, new: &mut Collection, indexes: Option<&[String]>) -> Result<(), StoreError> {
        let old = self.before.get(&new.id).cloned();
        let table = quote_name(&new.table);
        if let Some(old) = &old {
            let is_new = |field: &&Field| !old.fields.iter().any(|known| known.name == field.name);
            let added = new.fields.iter().filter(is_new);
            self.makes.extend(added.map(|field| format!("ALTER TABLE {table} ADD COLUMN {}", field.column())));
        } else {
            let system = ["id TEXT PRIMARY KEY NOT NULL", "created TEXT NOT NULL", "updated TEXT NOT NULL"];
            let columns: Vec<String> =
                system.into_iter().map(str::to_owned).chain(new.fields.iter().map(Field::column)).collect();
            self.makes.push(format!("CREATE TABLE {table} ({})", columns.join(", ")));
            if new.is_auth() {
                let index = quote_name(&self.free_name(&format!("{}_email", new.table)));
                let email = "(email COLLATE NOCASE) WHERE email != ''";
                self.makes.push(format!("CREATE UNIQUE INDEX {index} ON {table} {email}"));
            }
        }
        self.change_indexes(new, old.as_ref().map(|old| old.indexes.clone()).unwrap_or_default(), indexes)?;
        self.index_lookups(new, old.as_ref());
        check_identities(new)
    }

    /// Lists are mostly in the order of `created`; whoever deletes a record looks for those that refer to it. Where the
    /// caller declared no index that serves there is one of ours. A hidden field's stays with its column.
    fn index_lookups(&mut self, new: &Collection, old: Option<&Collection>) {
        let table = &new.table;
        let relations = new.visible().filter(|field| is_single_relation(field)).map(Field::column_name);
        let wanted = std::iter::once(("created", format!("{table}_created")))
            .chain(relations.map(|column| (column, format!("{table}_{column}_idx"))));
        for (column, name) in wanted {
            let place = (table.to_ascii_lowercase(), column.to_ascii_lowercase());
            let is_served = new.indexes.iter().any(|index| index.begins_with(column))
                || self.leading.iter().any(|(known, _)| *known == place);
            // A column that an edit by hand took away is no reason to refuse other changes.
            let is_lost = old.is_some_and(|old| {
                !self.columns.contains(&place)
                    && (column == "created" || old.fields.iter().any(|field| field.column_name() == column))
            });
            if !is_served && !is_lost {
                let index = quote_name(&self.free_name(&name));
                let (table, column) = (quote_name(table), quote_name(column));
                self.makes.push(format!("CREATE INDEX {index} ON {table} ({column})"));
            }
        }
    }

    fn change_indexes(
        &mut self,
        new: &mut Collection,
        old: Vec<Index>,
        wanted: Option<&[String]>,
    ) -> Result<(), StoreError> {
        let hidden: Vec<&str> =
            new.fields.iter().filter(|field| field.deleted).map(|field| field.name.as_str()).collect();
        let wanted: Vec<Index> = match wanted {
            Some(wanted) => parse_indexes(new, wanted)?,
            None => old.iter().filter(|index| !hidden.iter().any(|field| index.uses(field))).cloned().collect(),
        };
        for gone in old.iter().filter(|old| !wanted.iter().any(|index| index.is_like(old))) {
            self.drops.push(format!("DROP INDEX IF EXISTS {}", quote_name(&gone.object)));
            let object = gone.object.to_ascii_lowercase();
            self.leading.retain(|(_, index)| *index != object);
            self.objects.remove(&object);
        }
        new.indexes.clear();
        for mut index in wanted {
            if let Some(known) = old.iter().find(|old| old.is_like(&index)) {
                index.object.clone_from(&known.object);
            } else {
                index.object = self.free_name(&index.name);
                self.makes.push(index.statement(&new.table));
            }
            new.indexes.push(index);
        }
        Ok(())
    }
}

/// Several ids are stored as a list, which no index of SQLite's looks into.
fn is_single_relation(field: &Field) -> bool {
    matches!(field.kind, FieldKind::Relation { .. }) && !field.kind.is_multiple()
}
