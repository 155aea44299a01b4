//! Rows of `_collections`. An older database's lack columns, and an edit by hand may have left anything in them.

use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, Row, params};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::auth::AuthOptions;
use super::check::SYSTEM_COLUMNS;
use super::{Collection, CollectionKind, Rules};
use crate::store::error::StoreError;
use crate::store::fields::Field;

/// A row that cannot be read.
pub struct Unreadable {
    /// Its collection's name and id, as far as they can be told.
    pub names: [String; 2],
    /// What is wrong and how to mend it.
    pub reason: String,
}

/// Every row of the catalogue, deleted ones too, by name.
pub fn all(conn: &Connection) -> Result<Vec<Result<Collection, Unreadable>>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT * FROM _collections ORDER BY name, created")?;
    let rows = statement.query_map([], |row| Ok(from_row(row)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A digest of all rows: equal where the catalogue is.
pub fn digest(conn: &Connection) -> Result<blake3::Hash, StoreError> {
    let mut statement = conn.prepare_cached("SELECT * FROM _collections ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut digest = blake3::Hasher::new();
    while let Some(row) = rows.next()? {
        let columns = row.as_ref().column_count();
        digest.update(&columns.to_le_bytes());
        for at in 0..columns {
            match row.get_ref(at)? {
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                    digest.update(&bytes.len().to_le_bytes());
                    digest.update(bytes);
                }
                ValueRef::Null => _ = digest.update(&[0xff]),
                ValueRef::Integer(number) => _ = digest.update(&number.to_le_bytes()),
                ValueRef::Real(number) => _ = digest.update(&number.to_le_bytes()),
            }
        }
    }
    Ok(digest.finalize())
}

/// Stores a collection, new or changed.
pub fn store(conn: &Connection, collection: &Collection) -> Result<(), StoreError> {
    let Collection { id, name, kind, fields, rules, indexes, view_query, auth, table, deleted, created, updated } =
        collection;
    let Rules { list_rule, view_rule, create_rule, update_rule, delete_rule, auth_rule, manage_rule } = rules;
    let text = |json: serde_json::Result<String>| json.expect("names, types and texts always serialise");
    let kind = kind.name();
    let options = auth.as_ref().map(|auth| {
        let AuthOptions { password_auth, auth_token } = auth;
        json!({ "authRule": auth_rule, "manageRule": manage_rule, "passwordAuth": password_auth, "authToken": auth_token })
            .to_string()
    });
    let indexes: Vec<_> = indexes.iter().map(super::Index::stored).collect();
    let sql =
        "INSERT INTO _collections (id, name, type, fields, listRule, viewRule, createRule, updateRule, deleteRule,
            created, updated, tableName, indexes, viewQuery, options, deleted)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
        ON CONFLICT (id) DO UPDATE SET fields = ?4, listRule = ?5, viewRule = ?6, createRule = ?7, updateRule = ?8,
            deleteRule = ?9, updated = ?11, indexes = ?13, viewQuery = ?14, options = ?15, deleted = ?16";
    conn.prepare_cached(sql)?.execute(params![
        id,
        name,
        kind,
        text(serde_json::to_string(fields)),
        list_rule,
        view_rule,
        create_rule,
        update_rule,
        delete_rule,
        created,
        updated,
        table,
        text(serde_json::to_string(&indexes)),
        view_query,
        options,
        deleted
    ])?;
    Ok(())
}

/// Why rows cannot be read, of those that cannot.
pub fn unreadable(conn: &Connection) -> Result<Vec<String>, StoreError> {
    Ok(all(conn)?.into_iter().filter_map(Result::err).map(|row| row.reason).collect())
}

/// What is wrong with the catalogue: rows that cannot be read, and columns that it names and the tables lack.
pub fn problems(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut problems = Vec::new();
    for collection in all(conn)? {
        match collection {
            Ok(collection) if collection.deleted.is_some() => {}
            Ok(collection) => problems.extend(contradiction(conn, &collection)?),
            Err(unreadable) => problems.push(unreadable.reason),
        }
    }
    Ok(problems)
}

/// What the catalogue says of a collection and its table does not bear out.
pub fn contradiction(conn: &Connection, collection: &Collection) -> Result<Option<String>, StoreError> {
    let Collection { name, table, .. } = collection;
    if collection.is_view() {
        let failed = conn.prepare(&format!("SELECT id FROM {} LIMIT 1", collection.source())).err();
        return Ok(failed.map(|error| {
            format!(
                "collection {name} is a view whose SELECT does not work ({error}): PATCH its viewQuery on the master"
            )
        }));
    }
    let mut statement = conn.prepare_cached("SELECT lower(name) FROM pragma_table_info(?1)")?;
    let columns: Vec<String> = statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if columns.is_empty() {
        return Ok(Some(format!(
            "collection {name} has no table: make the table {table} again, or DELETE FROM _collections WHERE name = \
             '{name}', with vski-server sql on the master"
        )));
    }
    let named = SYSTEM_COLUMNS.into_iter().chain(collection.fields.iter().map(Field::column_name));
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

fn from_row(row: &Row<'_>) -> Result<Collection, Unreadable> {
    read_row(row).map_err(|error| {
        let text = |column| row.get_ref(column).ok().and_then(|name| name.as_str().ok()).unwrap_or("?").to_owned();
        let name = text("name");
        let reason = format!(
            "collection {name} cannot be used, because its row of _collections cannot be read ({error}): mend the row with \
             vski-server sql on the master, as by UPDATE _collections SET fields = … WHERE name = '{name}'"
        );
        Unreadable { names: [name, text("id")], reason }
    })
}

/// What the column `options` holds.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Options {
    auth_rule: Option<String>,
    manage_rule: Option<String>,
    #[serde(flatten)]
    auth: AuthOptions,
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Collection> {
    let name: String = row.get("name")?;
    let kind: String = row.get("type")?;
    let kind = parse(row, "type", &format!("{kind:?}"))?;
    let mut fields: Vec<Field> = parse(row, "fields", &row.get::<_, String>("fields")?)?;
    fields.iter_mut().for_each(Field::complete);
    let options: Option<Options> = added(row, "options")?.map(|options| parse(row, "options", &options)).transpose()?;
    let options = options.unwrap_or_default();
    let indexes = added(row, "indexes")?.map(|indexes| parse(row, "indexes", &indexes)).transpose()?;
    Ok(Collection {
        id: row.get("id")?,
        kind,
        fields,
        rules: Rules {
            list_rule: row.get("listRule")?,
            view_rule: row.get("viewRule")?,
            create_rule: row.get("createRule")?,
            update_rule: row.get("updateRule")?,
            delete_rule: row.get("deleteRule")?,
            auth_rule: options.auth_rule,
            manage_rule: options.manage_rule,
        },
        indexes: indexes.unwrap_or_default(),
        view_query: added(row, "viewQuery")?,
        auth: (kind == CollectionKind::Auth).then_some(options.auth),
        table: added(row, "tableName")?.unwrap_or_else(|| name.clone()),
        deleted: added(row, "deleted")?,
        created: row.get("created")?,
        updated: row.get("updated")?,
        name,
    })
}

/// A column that an older database lacks.
fn added(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<String>> {
    match row.get(column) {
        Err(rusqlite::Error::InvalidColumnName(_)) => Ok(None),
        value => value,
    }
}

fn parse<T: DeserializeOwned>(row: &Row<'_>, column: &str, json: &str) -> rusqlite::Result<T> {
    serde_json::from_str(json).map_err(|error| {
        let at = row.as_ref().column_index(column).unwrap_or(0);
        rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(error))
    })
}
