//! The catalogue of one database: which collections there are, with which fields and rules.
//!
//! A collection is a row of `_collections` and a table of the same name; both are made in one transaction and travel
//! in one log entry. Schemas are append-only (the specification): a field left out of an update is hidden, its column
//! stays, and it comes back with its values when it is added again with the same type.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use vski_replication::names;
use vski_replication::schema::sql::quote_name;

use super::error::{FieldError, StoreError};
use super::fields::Field;
use super::ids;

/// Fields a collection may have, hidden ones included (SQLite's default limit is 2000 columns).
pub const MAX_FIELDS: usize = 500;

/// The statements that make the catalogue of a new database.
pub const TABLES: [&str; 2] = [
    "CREATE TABLE _collections (
        id TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        fields TEXT NOT NULL,
        listRule TEXT,
        viewRule TEXT,
        createRule TEXT,
        updateRule TEXT,
        deleteRule TEXT,
        created TEXT NOT NULL,
        updated TEXT NOT NULL
    )",
    "CREATE UNIQUE INDEX _collections_name ON _collections (name COLLATE NOCASE)",
];

const COLUMNS: &str =
    "id, name, type, fields, listRule, viewRule, createRule, updateRule, deleteRule, created, updated";

/// Columns that every record has.
const SYSTEM_COLUMNS: [&str; 3] = ["id", "created", "updated"];

/// Names that a record's JSON uses for itself.
const RESERVED_FIELDS: [&str; 3] = ["collectionId", "collectionName", "expand"];

/// Who may do what: `None` admins only, `Some("")` everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rules {
    /// List records.
    pub list_rule: Option<String>,
    /// View one.
    pub view_rule: Option<String>,
    /// Create one.
    pub create_rule: Option<String>,
    /// Update one.
    pub update_rule: Option<String>,
    /// Delete one.
    pub delete_rule: Option<String>,
}

/// A collection as its catalogue row says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collection {
    /// Its id.
    pub id: String,
    /// Its name, also its table's.
    pub name: String,
    /// `base`: later kinds are auth and view.
    #[serde(rename = "type")]
    pub kind: String,
    /// All fields, hidden ones too: see [`Collection::visible`].
    pub fields: Vec<Field>,
    /// Who may do what.
    #[serde(flatten)]
    pub rules: Rules,
    /// When it was made.
    pub created: String,
    /// When it was last changed.
    pub updated: String,
}

impl Collection {
    /// The fields that callers see and set.
    pub fn visible(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.deleted)
    }
}

/// What a caller wants of a collection. Absent parts stay as they are, or take their default.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// A new name: only at creation.
    pub name: Option<String>,
    /// Its fields.
    pub fields: Option<Vec<Field>>,
    /// Rules that are to change, by their position in [`Rules`]; the inner `None` is JSON's null.
    pub rules: [Option<Option<String>>; 5],
}

/// All collections that can be used, by name. The others are logged: they are no reason to hide these.
pub fn list(conn: &Connection) -> Result<Vec<Collection>, StoreError> {
    let usable = |found: Result<Collection, StoreError>| match found {
        Err(StoreError::Catalogue(error)) => {
            tracing::error!(error, "a collection cannot be used; the others are listed");
            None
        }
        found => Some(found),
    };
    all(conn)?.into_iter().filter_map(usable).collect()
}

/// What is wrong with the catalogue: rows that cannot be read, and columns that it names and the tables lack.
pub fn problems(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut problems = Vec::new();
    for collection in all(conn)? {
        match collection {
            Ok(collection) => problems.extend(contradiction(conn, &collection)?),
            Err(StoreError::Catalogue(error)) => problems.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(problems)
}

/// What the catalogue says of a collection and its table does not bear out.
pub fn contradiction(conn: &Connection, collection: &Collection) -> Result<Option<String>, StoreError> {
    let name = &collection.name;
    let mut statement = conn.prepare_cached("SELECT lower(name) FROM pragma_table_info(?1)")?;
    let columns: Vec<String> = statement.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if columns.is_empty() {
        return Ok(Some(format!(
            "collection {name} has no table: make the table again, or DELETE FROM _collections WHERE name = '{name}', \
             with vski-server sql on the master"
        )));
    }
    let named = SYSTEM_COLUMNS.into_iter().chain(collection.fields.iter().map(|field| field.name.as_str()));
    let lacking: Vec<&str> = named.filter(|field| !columns.contains(&field.to_ascii_lowercase())).collect();
    let told = || {
        format!(
            "collection {name}: the catalogue names a column that the table lacks, {}: rename or drop it in the fields of \
             _collections too, as by UPDATE _collections SET fields = … WHERE name = '{name}', with vski-server sql on \
             the master",
            lacking.join(", ")
        )
    };
    Ok((!lacking.is_empty()).then(told))
}

/// Every row of the catalogue, by name; one that cannot be read is a [`StoreError::Catalogue`].
fn all(conn: &Connection) -> Result<Vec<Result<Collection, StoreError>>, StoreError> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM _collections ORDER BY name"))?;
    let rows = statement.query_map([], |row| Ok(from_row(row)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The collection with this name or id.
pub fn view(conn: &Connection, name: &str) -> Result<Collection, StoreError> {
    find(conn, name)?.ok_or_else(|| StoreError::NotFound(format!("there is no collection {name:?}")))
}

/// DDL for a new collection, after everything that can be refused was.
pub fn plan_create(conn: &Connection, wanted: &Wanted) -> Result<Vec<String>, StoreError> {
    let name = wanted.name.as_deref().unwrap_or_default();
    check_name(name)?;
    check_fields(wanted.fields.as_deref().unwrap_or_default())?;
    check_rules(wanted)?;
    let taken: bool = conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE lower(name) = lower(?1))
             OR EXISTS (SELECT 1 FROM _collections WHERE name = ?1 COLLATE NOCASE)",
        [name],
        |row| row.get(0),
    )?;
    if taken {
        return Err(StoreError::field(
            "name",
            "validation_not_unique",
            format!("a collection or table {name} exists already"),
        ));
    }
    let mut columns =
        vec!["id TEXT PRIMARY KEY NOT NULL".to_owned(), "created TEXT NOT NULL".into(), "updated TEXT NOT NULL".into()];
    columns.extend(wanted.fields.iter().flatten().map(Field::column));
    Ok(vec![format!("CREATE TABLE {} ({})", quote_name(name), columns.join(", "))])
}

/// The catalogue row of a new collection.
pub fn create(conn: &Connection, wanted: &Wanted) -> Result<Collection, StoreError> {
    let mut rules = Rules::default();
    rules.change(&wanted.rules);
    let now = ids::now();
    let collection = Collection {
        id: ids::record_id(),
        name: wanted.name.clone().unwrap_or_default(),
        kind: "base".to_owned(),
        fields: wanted.fields.clone().unwrap_or_default(),
        rules,
        created: now.clone(),
        updated: now,
    };
    store(conn, &collection)?;
    Ok(collection)
}

/// DDL for columns that an update adds.
pub fn plan_update(conn: &Connection, name: &str, wanted: &Wanted) -> Result<Vec<String>, StoreError> {
    let old = view(conn, name)?;
    let new = updated(&old, wanted)?;
    let added = new.fields.iter().filter(|field| !old.fields.iter().any(|known| known.name == field.name));
    Ok(added.map(|field| format!("ALTER TABLE {} ADD COLUMN {}", quote_name(&old.name), field.column())).collect())
}

/// The catalogue row of an updated collection.
pub fn update(conn: &Connection, name: &str, wanted: &Wanted) -> Result<Collection, StoreError> {
    let collection = updated(&view(conn, name)?, wanted)?;
    store(conn, &collection)?;
    Ok(collection)
}

/// `old` as `wanted` changes it: fields are added, hidden or brought back, never retyped.
fn updated(old: &Collection, wanted: &Wanted) -> Result<Collection, StoreError> {
    check_rules(wanted)?;
    if let Some(name) = &wanted.name
        && *name != old.name
    {
        let message = format!("cannot change from {}: schemas are append-only", old.name);
        return Err(StoreError::field("name", "validation_append_only", message));
    }
    let mut new = old.clone();
    new.rules.change(&wanted.rules);
    new.updated = ids::now();
    if let Some(fields) = &wanted.fields {
        check_fields(fields)?;
        new.fields = merge_fields(&old.fields, fields)?;
    }
    Ok(new)
}

fn merge_fields(old: &[Field], wanted: &[Field]) -> Result<Vec<Field>, StoreError> {
    let mut merged = old.to_vec();
    merged.iter_mut().for_each(|field| field.deleted = true);
    for field in wanted {
        match merged.iter_mut().find(|known| known.name.eq_ignore_ascii_case(&field.name)) {
            Some(known) if known.kind != field.kind || known.name != field.name => {
                let kind = serde_json::to_value(known.kind).unwrap_or_default();
                let message = format!(
                    "exists as {} of type {kind}, and schemas are append-only: choose another name",
                    known.name
                );
                return Err(StoreError::field(&field.name, "validation_append_only", message));
            }
            Some(known) => *known = field.clone(),
            None => merged.push(field.clone()),
        }
    }
    if merged.len() > MAX_FIELDS {
        return Err(StoreError::field(
            "fields",
            "validation_too_many",
            format!("must be at most {MAX_FIELDS}, hidden ones included"),
        ));
    }
    Ok(merged)
}

impl Rules {
    fn change(&mut self, wanted: &[Option<Option<String>>; 5]) {
        let mine = [
            &mut self.list_rule,
            &mut self.view_rule,
            &mut self.create_rule,
            &mut self.update_rule,
            &mut self.delete_rule,
        ];
        for (rule, wanted) in mine.into_iter().zip(wanted) {
            if let Some(wanted) = wanted {
                rule.clone_from(wanted);
            }
        }
    }
}

fn check_name(name: &str) -> Result<(), StoreError> {
    if is_identifier(name) && !names::is_reserved_table(name) {
        return Ok(());
    }
    let message = "must be 1 to 63 letters, digits or '_', beginning with a letter, and not with sqlite_";
    Err(StoreError::field("name", "validation_invalid_name", message))
}

fn check_fields(fields: &[Field]) -> Result<(), StoreError> {
    let mut errors = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        let same = |other: &str| field.name.eq_ignore_ascii_case(other);
        let wrong = if !is_identifier(&field.name) {
            Some("must be 1 to 63 letters, digits or '_', beginning with a letter")
        } else if SYSTEM_COLUMNS.into_iter().chain(RESERVED_FIELDS).any(same) {
            Some("is a name that every record uses for itself: choose another")
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
    }
    if fields.len() > MAX_FIELDS {
        errors.push(FieldError {
            field: "fields".into(),
            code: "validation_too_many",
            message: format!("must be at most {MAX_FIELDS}"),
        });
    }
    if errors.is_empty() { Ok(()) } else { Err(StoreError::Fields(errors)) }
}

fn check_rules(wanted: &Wanted) -> Result<(), StoreError> {
    let names = ["listRule", "viewRule", "createRule", "updateRule", "deleteRule"];
    let filters =
        names.iter().zip(&wanted.rules).filter(|(_, rule)| matches!(rule, Some(Some(text)) if !text.is_empty()));
    let errors: Vec<_> = filters
        .map(|(name, _)| FieldError {
            field: (*name).to_owned(),
            code: "validation_filter_unsupported",
            message: "filters are not supported yet: use null (admins only) or \"\" (everyone)".to_owned(),
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(StoreError::Fields(errors)) }
}

fn is_identifier(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn find(conn: &Connection, name: &str) -> Result<Option<Collection>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM _collections WHERE name = ?1 COLLATE NOCASE OR id = ?1");
    conn.prepare_cached(&sql)?.query_row([name], |row| Ok(from_row(row))).optional()?.transpose()
}

fn store(conn: &Connection, collection: &Collection) -> Result<(), StoreError> {
    let Collection { id, name, kind, fields, rules, created, updated } = collection;
    let fields = serde_json::to_string(fields).expect("names and types always serialise");
    let sql = format!(
        "INSERT INTO _collections ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (id) DO UPDATE SET fields = ?4, listRule = ?5, viewRule = ?6, createRule = ?7, updateRule = ?8,
         deleteRule = ?9, updated = ?11"
    );
    let Rules { list_rule, view_rule, create_rule, update_rule, delete_rule } = rules;
    conn.prepare_cached(&sql)?.execute(params![
        id,
        name,
        kind,
        fields,
        list_rule,
        view_rule,
        create_rule,
        update_rule,
        delete_rule,
        created,
        updated
    ])?;
    Ok(())
}

/// An edit by hand may have left anything in the row.
fn from_row(row: &Row<'_>) -> Result<Collection, StoreError> {
    read_row(row).map_err(|error| {
        let name = row.get_ref(1).ok().and_then(|name| name.as_str().ok()).unwrap_or("?");
        StoreError::Catalogue(format!(
            "collection {name} cannot be used, because its row of _collections cannot be read ({error}): mend the row with \
             vski-server sql on the master, as by UPDATE _collections SET fields = … WHERE name = '{name}'"
        ))
    })
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Collection> {
    let fields: String = row.get(3)?;
    let fields = serde_json::from_str(&fields)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, Box::new(error)))?;
    Ok(Collection {
        id: row.get(0)?,
        name: row.get(1)?,
        kind: row.get(2)?,
        fields,
        rules: Rules {
            list_rule: row.get(4)?,
            view_rule: row.get(5)?,
            create_rule: row.get(6)?,
            update_rule: row.get(7)?,
            delete_rule: row.get(8)?,
        },
        created: row.get(9)?,
        updated: row.get(10)?,
    })
}
