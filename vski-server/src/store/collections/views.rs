//! View collections: a SELECT that is checked when it is stored, and read as a table expression.
//!
//! The check prepares it in an empty database of its own that has the other collections' tables with the columns that may
//! be read, and nothing else: no catalogue, no admins, no password hashes. The declared type of each of those columns names
//! the field that it is, so SQLite itself says which field a column of the result comes from.

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use vski_replication::schema::sql::{Token, quote_name, tokens};

use super::check::is_identifier;
use super::{Collection, MAX_FIELDS};
use crate::store::error::StoreError;
use crate::store::fields::{self, Field, FieldKind};

/// Longest SELECT, bytes.
const MAX_BYTES: usize = 64 << 10;

/// Functions that a view has no use for: they reach beyond the database, or make values of any size out of nothing.
const REFUSED_FUNCTIONS: [&str; 7] =
    ["load_extension", "zeroblob", "randomblob", "printf", "format", "fts3_tokenizer", "sqlite_log"];

/// A database to try SELECTs in.
pub struct Scratch<'a> {
    conn: Connection,
    collections: Vec<&'a Collection>,
}

impl<'a> Scratch<'a> {
    /// The tables of these collections; views among them are left out, since a view cannot read another.
    pub fn new(collections: impl Iterator<Item = &'a Collection>) -> Result<Self, StoreError> {
        let mut conn = Connection::open_in_memory()?;
        // Else a name in double quotes that is no column here would be a text, and a column in the real database.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        conn.authorizer(Some(|context: AuthContext<'_>| match context.action {
            AuthAction::Function { function_name } if is_refused(function_name) => Authorization::Deny,
            _ => Authorization::Allow,
        }))?;
        let collections: Vec<_> = collections.filter(|collection| !collection.is_view()).collect();
        for (number, collection) in collections.iter().enumerate() {
            let columns: Vec<String> = readable(collection)
                .enumerate()
                .map(|(at, field)| format!("{} TEXT_{number}_{at}", quote_name(field.column_name())))
                .collect();
            conn.execute_batch(&format!("CREATE TABLE {} ({})", quote_name(&collection.table), columns.join(", ")))?;
        }
        Ok(Self { conn, collections })
    }

    /// The fields of a SELECT beside its id, or what is wrong with it.
    pub fn fields(&self, query: &str) -> Result<Vec<Field>, String> {
        check_text(query)?;
        self.check_secrets(query)?;
        let statement = self.conn.prepare(query).map_err(|error| format!("cannot be used: {error}"))?;
        if !statement.readonly() || statement.parameter_count() > 0 {
            return Err("must only read, and without parameters".to_owned());
        }
        let mut fields: Vec<Field> = Vec::new();
        let mut has_id = false;
        for column in statement.columns() {
            let name = column.name();
            if name == "id" {
                has_id = true;
                continue;
            }
            if !is_identifier(name) || ["collectionId", "collectionName", "expand"].contains(&name) {
                return Err(format!("gives a column {name:?}: name it with AS, in letters, digits and '_'"));
            }
            if fields.iter().any(|field| field.name.eq_ignore_ascii_case(name)) {
                return Err(format!("gives the column {name} twice: name one otherwise with AS"));
            }
            fields.push(column.decl_type().and_then(|origin| self.origin(origin)).map_or_else(
                || Field::new(name, FieldKind::json()),
                |field| Field {
                    required: false,
                    presentable: false,
                    hidden: field.hidden,
                    ..Field::new(name, kind_of(field))
                },
            ));
        }
        if !has_id {
            return Err(
                "must give a column id that tells its rows apart: CAST(row_number() OVER () AS TEXT) AS id, if there is none"
                    .into(),
            );
        }
        if fields.len() > MAX_FIELDS {
            return Err(format!("gives more than {MAX_FIELDS} columns"));
        }
        self.check_id(query)
            .map_err(|error| format!("cannot be used: {error}"))?
            .then_some(fields)
            .ok_or_else(|| "must give id as a text, so that one can be asked for: CAST(… AS TEXT) AS id".to_owned())
    }

    /// No name may be a hash's or a key's: as no table has that here, it would mean another column than in the database.
    fn check_secrets(&self, query: &str) -> Result<(), String> {
        let all = self.collections.iter().flat_map(|collection| &collection.fields);
        let secrets: Vec<&str> = all.filter(|field| field.is_secret()).map(Field::column_name).collect();
        let named = |token: &Token<'_>| secrets.iter().any(|secret| secret.eq_ignore_ascii_case(unquoted(token)));
        match tokens(query).iter().find(|token| named(token)) {
            Some(token) => Err(format!("names {}, which nobody may read", token.0)),
            None => Ok(()),
        }
    }

    /// Whether the id is a text, as SQLite sees it without running anything. The SELECT stands in parentheses and under an
    /// alias, as it is read later.
    fn check_id(&self, query: &str) -> rusqlite::Result<bool> {
        self.conn.execute_batch(&format!(
            "DROP VIEW IF EXISTS temp._probe; CREATE TEMP VIEW _probe AS SELECT id FROM ({query}) AS r"
        ))?;
        let declared: String =
            self.conn.query_row("SELECT type FROM pragma_table_info('_probe')", [], |row| row.get(0))?;
        Ok(declared.starts_with("TEXT"))
    }

    /// The field that a declared type stands for.
    fn origin(&self, declared: &str) -> Option<&Field> {
        let (number, at) = declared.strip_prefix("TEXT_")?.split_once('_')?;
        readable(self.collections.get(number.parse::<usize>().ok()?)?).nth(at.parse().ok()?)
    }
}

fn is_refused(function: &str) -> bool {
    REFUSED_FUNCTIONS.iter().any(|refused| function.eq_ignore_ascii_case(refused))
}

/// The columns that a view may read.
fn readable(collection: &Collection) -> impl Iterator<Item = &Field> {
    let system = [&*fields::ID, &*fields::CREATED, &*fields::UPDATED];
    system.into_iter().chain(collection.visible().filter(|field| !field.is_secret()))
}

/// A file's name means nothing without its record, so that it is a text here.
fn kind_of(field: &Field) -> FieldKind {
    match &field.kind {
        FieldKind::File { max_select, .. } if *max_select > 1 => FieldKind::json(),
        FieldKind::File { .. } => FieldKind::text(),
        kind => kind.clone(),
    }
}

/// A name without its quotes.
fn unquoted<'a>(token: &Token<'a>) -> &'a str {
    token.0.trim_matches(['"', '`', '[', ']', '\''])
}

fn check_text(query: &str) -> Result<(), String> {
    if query.len() > MAX_BYTES {
        return Err(format!("has more than {MAX_BYTES} bytes"));
    }
    let all = tokens(query);
    let first = all.first().map(|token| token.0.to_ascii_lowercase()).unwrap_or_default();
    if first != "select" && first != "with" {
        return Err("must be one SELECT".to_owned());
    }
    // What follows it inside the parentheses would be read as part of a comment.
    if query.contains("--") || query.contains("/*") {
        return Err("must have no comments".to_owned());
    }
    for token in &all {
        let name = unquoted(token).to_ascii_lowercase();
        if name == ";" {
            return Err("must be one SELECT, without a semicolon".to_owned());
        }
        if ["sqlite_", "pragma_", "_vski_"].iter().any(|prefix| name.starts_with(prefix)) || name == "dbstat" {
            return Err(format!("names {}, which is not a collection's", token.0));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::auth;
    use super::*;

    fn collections() -> Vec<Collection> {
        let posts = Collection {
            id: "p".into(),
            name: "posts".into(),
            table: "posts".into(),
            fields: vec![Field::new("title", FieldKind::text()), Field::new("n", FieldKind::number())],
            ..Collection::default()
        };
        let users = Collection {
            id: "u".into(),
            name: "users".into(),
            table: "users".into(),
            fields: auth::system_fields(),
            ..Collection::default()
        };
        vec![posts, users]
    }

    #[test]
    fn the_fields_of_a_view_are_those_that_its_columns_come_from() {
        let collections = collections();
        let scratch = Scratch::new(collections.iter()).unwrap();
        let query = "WITH big AS (SELECT id, n FROM posts) SELECT p.id, title AS heading, big.n, count(*) AS total, p.created \
            FROM posts p JOIN big ON big.id = p.id GROUP BY p.id";
        let fields = scratch.fields(query).unwrap();
        let found: Vec<_> = fields.iter().map(|field| (field.name.as_str(), field.kind.name())).collect();
        assert_eq!(found, [("heading", "text"), ("n", "number"), ("total", "json"), ("created", "autodate")]);
    }

    #[test]
    fn a_view_that_is_no_select_or_reads_what_nobody_may_is_refused() {
        let collections = collections();
        let scratch = Scratch::new(collections.iter()).unwrap();
        for (query, reason) in [
            ("", "one SELECT"),
            ("DELETE FROM posts", "one SELECT"),
            ("WITH x AS (SELECT 1) DELETE FROM posts", "must only read"),
            ("SELECT id FROM posts; SELECT 1", "semicolon"),
            ("SELECT id FROM posts -- x", "comments"),
            ("SELECT title FROM posts", "column id"),
            ("SELECT id, n + 1 FROM posts", "with AS"),
            ("SELECT id, n, title AS N FROM posts", "twice"),
            ("SELECT id FROM _superusers", "no such table"),
            ("SELECT id FROM _collections", "no such table"),
            ("SELECT name AS id FROM sqlite_master", "sqlite_master"),
            ("SELECT name AS id FROM 'sqlite_master'", "sqlite_master"),
            ("SELECT name AS id FROM pragma_table_list", "pragma_table_list"),
            ("SELECT id, passwordHash FROM users", "nobody may read"),
            ("SELECT id, tokenKey FROM users", "nobody may read"),
            ("SELECT id, \"passwordHash\" AS h FROM users", "nobody may read"),
            ("SELECT id, upper(\"TOKENKEY\") AS h FROM users", "nobody may read"),
            (
                "SELECT id, (SELECT [tokenKey] FROM users) AS h FROM (SELECT id, n AS tokenKey FROM posts)",
                "nobody may read",
            ),
            ("SELECT id, \"gone\" AS h FROM posts", "no such column"),
            ("SELECT id FROM posts WHERE n = ?", "parameters"),
            ("SELECT id FROM posts) UNION SELECT (1", "cannot be used"),
            ("SELECT id, load_extension('x') AS n FROM posts", "load_extension"),
            ("SELECT id, hex(zeroblob(900000000)) AS n FROM posts", "zeroblob"),
            ("SELECT id, printf('%900000000d', 1) AS n FROM posts", "printf"),
            ("SELECT row_number() OVER () AS id, n FROM posts", "as a text"),
        ] {
            let error = scratch.fields(query).unwrap_err();
            assert!(error.contains(reason), "{query}: {error}");
        }
        assert!(scratch.fields("SELECT * FROM users").is_ok(), "what is secret is not there");
        for good in [
            "SELECT CAST(row_number() OVER () AS TEXT) AS id FROM posts",
            "SELECT id FROM posts UNION ALL SELECT id FROM users",
        ] {
            scratch.fields(good).unwrap();
        }
    }
}
