//! From the schema that is there to the schema that should be, by the specification's rules: tables are created and
//! widened by `ADD COLUMN`, never dropped; indexes, triggers and views are created, dropped, and replaced.

use std::collections::BTreeMap;

use rusqlite::{Connection, ErrorCode};

use super::sql::{Token, quote_name, tokens};
use super::{Object, hash, keep, objects};
use crate::fault;
use crate::position::SchemaHash;

/// Why a schema cannot be made equal to another.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A table would have to be dropped or rebuilt.
    #[error("table {table} {reason}")]
    Unreachable {
        /// Its name.
        table: String,
        /// What stands in the way.
        reason: &'static str,
    },
    /// SQLite refused a statement.
    #[error("schema statement failed: {statement}")]
    Statement {
        /// The statement.
        statement: String,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// All statements ran, and the schema is still another one.
    #[error("after the migration the schema hash is {found}, not {expected}")]
    NotReached {
        /// The hash that was wanted.
        expected: SchemaHash,
        /// The hash that came out.
        found: SchemaHash,
    },
    /// The schema could not be read.
    #[error("read the schema")]
    Read(#[from] rusqlite::Error),
}

/// Runs what [`statements`] finds inside the caller's transaction and compares hashes at the end.
/// The caller rolls back on an error.
pub fn migrate(conn: &Connection, target: &[Object]) -> Result<Vec<String>, MigrateError> {
    let statements = statements(&objects(conn)?, target)?;
    run(conn, &statements)?;
    let (expected, found) = (super::hash_objects(target), hash(conn)?);
    if expected != found {
        return Err(MigrateError::NotReached { expected, found });
    }
    Ok(statements)
}

/// Like [`migrate`], but a table that the target lacks, or whose SQL cannot be reached, is set aside with its rows as
/// `_vski_kept_<table>_<version>`, and made anew from the target's SQL, empty. Returns the names of those set aside.
///
/// A plain RENAME would rewrite other tables' references and fail on views that name the table: the legacy behaviour
/// is on meanwhile, the caller has foreign keys off, and views, triggers and the table's indexes are dropped first.
pub fn migrate_keeping(conn: &Connection, target: &[Object], version: u64) -> Result<Vec<String>, MigrateError> {
    let local = objects(conn)?;
    let mut kept = Vec::new();
    for table in local.iter().filter(|object| object.kind == "table") {
        let wanted = target.iter().find(|object| object.kind == "table" && object.name == table.name);
        let reached = match wanted {
            Some(wanted) => same_sql(table, wanted) || takes_columns(conn, table, wanted)?,
            None => false,
        };
        if !reached {
            kept.push(table.name.clone());
        }
    }
    if !kept.is_empty() {
        set_aside(conn, &local, &kept, version)?;
    }
    migrate(conn, target)?;
    Ok(kept)
}

/// Whether ADD COLUMN leads from one table to the other with the rows that are there: SQLite refuses, for one, a column
/// that may not be NULL and has no default where there are rows. Tried in a savepoint that is rolled back.
fn takes_columns(conn: &Connection, here: &Object, wanted: &Object) -> Result<bool, MigrateError> {
    let Ok(statements) = add_columns(here, wanted) else { return Ok(false) };
    conn.execute_batch("SAVEPOINT trying")?;
    let tried = statements.iter().try_for_each(|statement| conn.execute_batch(statement));
    conn.execute_batch("ROLLBACK TO trying; RELEASE trying")?;
    match tried {
        Ok(()) => Ok(true),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::Unknown | ErrorCode::ConstraintViolation) => Ok(false),
            _ => Err(error.into()),
        },
    }
}

fn set_aside(conn: &Connection, local: &[Object], tables: &[String], version: u64) -> Result<(), MigrateError> {
    let mut statements = Vec::new();
    for kind in ["trigger", "view", "index"] {
        let gone =
            local.iter().filter(|object| object.kind == kind && (kind != "index" || tables.contains(&object.table)));
        statements
            .extend(gone.map(|object| format!("DROP {} IF EXISTS {}", kind.to_uppercase(), quote_name(&object.name))));
    }
    run(conn, &statements)?;
    tables.iter().try_for_each(|table| keep::move_aside(conn, table, version).map(drop))
}

/// Runs DDL statements in order; the error names the one that failed.
pub fn run(conn: &Connection, statements: &[String]) -> Result<(), MigrateError> {
    for statement in statements {
        fault::sql("migrate:statement")
            .and_then(|()| conn.execute_batch(statement))
            .map_err(|source| MigrateError::Statement { statement: statement.clone(), source })?;
    }
    Ok(())
}

/// The statements that lead from `local` to `target`, or the table that no statement can bring there.
pub fn statements(local: &[Object], target: &[Object]) -> Result<Vec<String>, MigrateError> {
    let key = |object: &Object| (object.kind.clone(), object.name.clone());
    let wanted: BTreeMap<_, _> = target.iter().map(|object| (key(object), object)).collect();
    let present: BTreeMap<_, _> = local.iter().map(|object| (key(object), object)).collect();
    let mut drops = Vec::new();
    let (mut tables, mut others) = (Vec::new(), Vec::new());

    for object in local {
        let same = wanted.get(&key(object)).is_some_and(|wanted| same_sql(object, wanted));
        if object.kind == "table" {
            if !wanted.contains_key(&key(object)) {
                return Err(unreachable(object, "exists here but not on the master: move it aside or drop it here"));
            }
        } else if !same {
            drops.push(format!("DROP {} IF EXISTS {}", object.kind.to_uppercase(), quote_name(&object.name)));
        }
    }
    for object in target {
        match present.get(&key(object)) {
            Some(here) if same_sql(here, object) => {}
            Some(here) if object.kind == "table" => tables.extend(add_columns(here, object)?),
            None if object.kind == "table" => tables.push(object.sql.clone()),
            _ => others.push(object),
        }
    }
    // A trigger on a view needs the view; an index needs nothing but its table.
    others.sort_by_key(|object| ["index", "view", "trigger"].iter().position(|kind| object.kind == *kind));
    // Triggers and views go first, or ALTER TABLE would check them against a table that is about to change.
    drops.sort_by_key(|drop| drop.starts_with("DROP INDEX"));
    Ok(drops.into_iter().chain(tables).chain(others.into_iter().map(|object| object.sql.clone())).collect())
}

fn same_sql(a: &Object, b: &Object) -> bool {
    tokens(&a.sql).iter().map(Token::normal).eq(tokens(&b.sql).iter().map(Token::normal))
}

fn unreachable(object: &Object, reason: &'static str) -> MigrateError {
    MigrateError::Unreachable { table: object.name.clone(), reason }
}

/// `ADD COLUMN` statements, where the wanted table is the present one with columns inserted at one place.
/// SQLite writes an added column after the last one and before any table constraint.
fn add_columns(here: &Object, wanted: &Object) -> Result<Vec<String>, MigrateError> {
    let rebuilt = || unreachable(here, "differs from the master's by more than added columns");
    let (old, new) = (tokens(&here.sql), tokens(&wanted.sql));
    if new.len() <= old.len() {
        return Err(rebuilt());
    }
    let extra = new.len() - old.len();
    let same = |a: &[Token<'_>], b: &[Token<'_>]| a.iter().map(Token::normal).eq(b.iter().map(Token::normal));
    // Several alignments may fit (", a int" inserted into ", b int"): the one that starts a column at depth 1 is right.
    let at = (0..=old.len()).find(|&at| {
        new[at].0 == ","
            && depth(&new[..at]) == 1
            && same(&old[..at], &new[..at])
            && same(&old[at..], &new[at + extra..])
    });
    let inserted = &new[at.ok_or_else(rebuilt)?..][..extra];
    let mut statements = Vec::new();
    let mut open = 0;
    for token in inserted {
        match token.0 {
            "(" => open += 1,
            ")" => open -= 1,
            "," if open == 0 => {
                statements.push(format!("ALTER TABLE {} ADD COLUMN", quote_name(&here.name)));
                continue;
            }
            _ => {}
        }
        let statement = statements.last_mut().expect("the insertion starts with a comma");
        statement.push(' ');
        statement.push_str(token.0);
    }
    Ok(statements)
}

fn depth(tokens: &[Token<'_>]) -> i64 {
    tokens.iter().map(|token| i64::from(token.0 == "(") - i64::from(token.0 == ")")).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(sql).unwrap();
        conn
    }

    fn migrated(from: &str, to: &str) -> Result<Connection, MigrateError> {
        let conn = database(from);
        migrate(&conn, &objects(&database(to)).unwrap())?;
        Ok(conn)
    }

    const BASE: &str = "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, a TEXT); CREATE INDEX i ON t (a);
        CREATE VIEW v AS SELECT a FROM t; CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM t WHERE a = 'x'; END;";

    #[test]
    fn every_kind_of_reachable_change_is_reached() {
        let column =
            "ALTER TABLE t ADD COLUMN b NUMERIC DEFAULT (1 + 2); ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'x, y';";
        for to in [
            format!("{BASE}{column}"),
            format!("{BASE} CREATE TABLE u (id TEXT PRIMARY KEY NOT NULL); CREATE INDEX j ON u (id);"),
            format!("{BASE}{column} DROP INDEX i; DROP VIEW v; CREATE VIEW v AS SELECT a, b FROM t; DROP TRIGGER g;"),
            format!("{BASE} DROP INDEX i; CREATE INDEX i ON t (a DESC);"),
        ] {
            migrated(BASE, &to).unwrap_or_else(|error| panic!("{to}: {error}"));
        }
    }

    #[test]
    fn a_column_is_added_before_table_constraints() {
        let from = "CREATE TABLE t (a TEXT NOT NULL, b INT, PRIMARY KEY (a))";
        migrated(from, &format!("{from}; ALTER TABLE t ADD COLUMN c INT")).unwrap();
        migrated("CREATE TABLE t (b INT)", "CREATE TABLE t (b INT, b2 INT)").unwrap();
    }

    #[test]
    fn a_dropped_or_rebuilt_table_is_unreachable_and_named() {
        for to in ["CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, a INT)", "CREATE TABLE u (a)", "CREATE TABLE t (a)"] {
            let error = migrated(BASE, to).expect_err(to);
            assert!(matches!(&error, MigrateError::Unreachable { table, .. } if table == "t"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_reached_is_set_aside_with_its_rows_and_made_anew() {
        let from = format!("{BASE} CREATE TABLE u (id INTEGER PRIMARY KEY, t TEXT REFERENCES t (id)); INSERT INTO t VALUES ('1', 'one');
            CREATE TABLE gone (id INTEGER PRIMARY KEY); INSERT INTO gone VALUES (7);");
        let to = "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, renamed TEXT); CREATE INDEX i ON t (renamed);
            CREATE TABLE u (id INTEGER PRIMARY KEY, t TEXT REFERENCES t (id)); CREATE VIEW v AS SELECT renamed FROM t;";
        let (conn, target) = (database(&from), objects(&database(to)).unwrap());
        conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        let mut kept = migrate_keeping(&conn, &target, 9).unwrap();
        kept.sort();
        assert_eq!(kept, ["gone", "t"]);
        assert_eq!(hash(&conn).unwrap(), crate::schema::hash_objects(&target));
        let rows: (String, i64) = conn
            .query_row("SELECT a, (SELECT id FROM _vski_kept_gone_9) FROM _vski_kept_t_9", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(rows, ("one".to_owned(), 7));
        conn.execute_batch("DROP TABLE t; CREATE TABLE t (other)").unwrap();
        migrate_keeping(&conn, &target, 9).unwrap();
        assert_eq!(hash(&conn).unwrap(), crate::schema::hash_objects(&target));
    }

    #[test]
    fn a_table_whose_rows_do_not_take_the_new_column_is_set_aside() {
        let target = "CREATE TABLE t (id INTEGER PRIMARY KEY, must TEXT NOT NULL)";
        let target = objects(&database(target)).unwrap();
        for (rows, expected) in [("", 0), ("INSERT INTO t VALUES (1)", 1)] {
            let conn = database(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY); {rows}"));
            let kept = migrate_keeping(&conn, &target, 9).unwrap();
            assert_eq!(hash(&conn).unwrap(), crate::schema::hash_objects(&target));
            let found: i64 = kept
                .iter()
                .map(|_| conn.query_row("SELECT count(*) FROM _vski_kept_t_9", [], |row| row.get::<_, i64>(0)).unwrap())
                .sum();
            assert_eq!(found, expected, "{rows}");
        }
    }

    #[test]
    fn a_statement_that_fails_is_named() {
        let error = migrated("CREATE TABLE t (a); INSERT INTO t VALUES (1)", "CREATE TABLE t (a, b NOT NULL)");
        let error = error.expect_err("NOT NULL needs a default");
        assert!(matches!(&error, MigrateError::Statement { statement, .. } if statement.contains("ADD COLUMN b")));
    }
}
