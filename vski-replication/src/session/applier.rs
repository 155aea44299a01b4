//! Changesets by statements that stay compiled. SQLite's own function compiles its statements for each changeset, which
//! takes as long as a few rows: much where most changesets hold one.
//!
//! It does what SQLite's does where all is as expected, by the same statements. Where anything is not, it says so, and the caller
//! rolls back and has [`super::apply`] do it, or say what is wrong: unique values that are swapped, a row that differs, a
//! table that is missing, bytes that are no changeset.

use std::collections::HashMap;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ErrorCode};

use super::changes::{Change, Changes, Operation};
use crate::names;
use crate::position::SchemaHash;
use crate::schema::sql::quote_name;

/// What is known of the tables of a database.
#[derive(Debug, Default)]
pub struct Applier {
    /// The schema of which `tables` are.
    schema: Option<SchemaHash>,
    tables: HashMap<String, Table>,
}

/// A table as changesets see it.
#[derive(Debug)]
struct Table {
    columns: Vec<Column>,
    /// The statement for a new row.
    insert: String,
    /// The statement that removes a row which has these values.
    delete: String,
    /// How an update begins.
    update: String,
}

#[derive(Debug)]
struct Column {
    /// In quotes.
    name: String,
    is_key: bool,
}

impl Applier {
    /// Applies a changeset, in the caller's transaction, to a database with that schema. `false`: something is not as
    /// expected, and the transaction has to be rolled back.
    ///
    /// The caller has turned triggers and foreign keys off and verified the bytes.
    pub fn apply(&mut self, conn: &Connection, schema: SchemaHash, changeset: &[u8]) -> rusqlite::Result<bool> {
        if self.schema != Some(schema) {
            self.tables.clear();
            self.schema = Some(schema);
        }
        if changeset.is_empty() {
            return Ok(true);
        }
        let mut changes = Changes::start(changeset)?;
        let mut update = String::new();
        // Most changes are like the one before.
        let mut last: Option<(String, CachedStatement<'_>)> = None;
        loop {
            let change = match changes.next() {
                Ok(Some(change)) => change,
                Ok(None) => return Ok(true),
                Err(_) => return Ok(false),
            };
            let table = match self.tables.get(change.table) {
                Some(table) => table,
                None => {
                    let Some(table) = Table::read(conn, change.table)? else { return Ok(false) };
                    self.tables.entry(change.table.to_owned()).or_insert(table)
                }
            };
            if !table.is_of(&change) {
                return Ok(false);
            }
            let sql = match change.operation {
                Operation::Insert => &table.insert,
                Operation::Delete => &table.delete,
                Operation::Update => match table.write_update(&change, &mut update) {
                    Ok(true) => &update,
                    Ok(false) => continue,
                    Err(_) => return Ok(false),
                },
            };
            if last.as_ref().is_none_or(|(prepared, _)| prepared != sql) {
                let Ok(statement) = conn.prepare_cached(sql) else { return Ok(false) };
                last = Some((sql.clone(), statement));
            }
            let Some((_, statement)) = &mut last else { return Ok(false) };
            if !bind(&change, statement).unwrap_or(false) {
                return Ok(false);
            }
            match statement.raw_execute() {
                Ok(0) if change.operation != Operation::Insert => return Ok(false),
                Ok(_) => {}
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Table {
    /// `None` for tables of which no changeset should tell.
    fn read(conn: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        if names::is_reserved_table(name) {
            return Ok(None);
        }
        // Generated columns are hidden, here and in changesets.
        let mut statement =
            conn.prepare_cached("SELECT name, pk FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0 ORDER BY cid")?;
        let column = |row: &rusqlite::Row<'_>| {
            Ok(Column { name: quote_name(&row.get::<_, String>(0)?), is_key: row.get::<_, i64>(1)? > 0 })
        };
        let columns: Vec<Column> = statement.query_map([name], column)?.collect::<Result<_, _>>()?;
        let quoted = quote_name(name);
        let of = |is_key: bool, joined: &str, compared: &str| {
            let those = columns.iter().enumerate().filter(|(_, column)| column.is_key == is_key);
            let terms: Vec<_> =
                those.map(|(place, column)| format!("{} {compared} ?{}", column.name, place + 1)).collect();
            terms.join(joined)
        };
        let mut delete = format!("DELETE FROM main.{quoted} WHERE {}", of(true, " AND ", "="));
        if columns.iter().any(|column| !column.is_key) {
            // The last parameter is false: it keeps SQLite from looking for the row by another index than the key's.
            let last = columns.len() + 1;
            delete = format!("{delete} AND (?{last} OR ({}))", of(false, " AND ", "IS"));
        }
        let all: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        let values = vec!["?"; all.len()].join(", ");
        let insert = format!("INSERT INTO main.{quoted} ({}) VALUES ({values})", all.join(", "));
        Ok(Some(Self { columns, insert, delete, update: format!("UPDATE main.{quoted} SET ") }))
    }

    /// Whether a change is of a table like this one.
    fn is_of(&self, change: &Change<'_>) -> bool {
        let key = self.columns.iter().map(|column| column.is_key);
        key.eq(change.key.iter().map(|of_key| *of_key != 0))
    }

    /// The statement for the columns that this change tells of: a column's new value is parameter 2n + 1, its old one 2n + 2.
    /// `false` if none is changed.
    fn write_update(&self, change: &Change<'_>, sql: &mut String) -> rusqlite::Result<bool> {
        sql.clear();
        sql.push_str(&self.update);
        let mut between = "";
        for (place, column) in self.columns.iter().enumerate() {
            if !column.is_key && change.after(place)?.is_some() {
                push_term(sql, between, &column.name, " = ?", 2 * place + 1);
                between = ", ";
            }
        }
        let changed = !between.is_empty();
        between = " WHERE ";
        for (place, column) in self.columns.iter().enumerate() {
            if column.is_key || change.before(place)?.is_some() {
                push_term(sql, between, &column.name, " IS ?", 2 * place + 2);
                between = " AND ";
            }
        }
        Ok(changed)
    }
}

fn push_term(sql: &mut String, between: &str, name: &str, compared: &str, parameter: usize) {
    sql.push_str(between);
    sql.push_str(name);
    sql.push_str(compared);
    sql.push_str(&parameter.to_string());
}

/// Gives a statement of `Table` the values of a change. `false` where one is missing.
fn bind(change: &Change<'_>, statement: &mut CachedStatement<'_>) -> rusqlite::Result<bool> {
    let columns = change.key.len();
    let mut set = |parameter: usize, value: Option<ValueRef<'_>>| match value {
        Some(value) => statement.raw_bind_parameter(parameter, ToSqlOutput::Borrowed(value)).map(|()| true),
        None => Ok(false),
    };
    for place in 0..columns {
        let is_set = match change.operation {
            Operation::Insert => set(place + 1, change.after(place)?)?,
            Operation::Delete => set(place + 1, change.before(place)?)?,
            // It tells of some columns.
            Operation::Update => {
                set(2 * place + 1, change.after(place)?)?;
                set(2 * place + 2, change.before(place)?)?;
                true
            }
        };
        if !is_set {
            return Ok(false);
        }
    }
    if change.operation == Operation::Delete && change.key.contains(&0) {
        return set(columns + 1, Some(ValueRef::Integer(0)));
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
