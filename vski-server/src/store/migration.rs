//! A manual migration: SQL of an operator, taken apart into statements and sorted by what the log can say of it.
//!
//! DDL, then rows: one entry that replicas repeat exactly. DDL after rows on the way: a session does not survive that,
//! so the log can only say that something happened, and replicas must be compared.

use vski_replication::schema::sql::{Token, tokens};

use super::error::StoreError;
use super::guard::{OWN_TABLES, starts_reserved};

/// Statements that make transactions, settings or other files, with the reason why they are refused.
const REFUSED: [(&str, &str); 13] = [
    ("attach", "a migration is about one database"),
    ("detach", "a migration is about one database"),
    ("pragma", "settings do not belong to a migration; foreign keys are off while the schema changes"),
    ("vacuum", "it cannot run in a transaction"),
    ("analyze", "its statistics are not replicated: run it on each node's file"),
    ("reindex", "it changes nothing that is replicated"),
    ("begin", "all statements run in one transaction already"),
    ("commit", "all statements run in one transaction already"),
    ("end", "all statements run in one transaction already"),
    ("rollback", "all statements run in one transaction already"),
    ("savepoint", "all statements run in one transaction already"),
    ("release", "all statements run in one transaction already"),
    ("select", "a migration only changes: read with sqlite3"),
];

/// What an operator wants done, in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// DDL at the beginning.
    pub schema: Vec<String>,
    /// What follows; with DDL in it, the log cannot tell it.
    pub rest: Vec<String>,
    /// Whether `rest` changes rows only.
    pub capturable: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Version of the log before.
    pub before: u64,
    /// Version of the log now.
    pub version: u64,
    /// Kind of the entry: `schema`, `changes`, `epoch`, or `none` where nothing changed.
    pub entry: &'static str,
}

impl Plan {
    /// Takes SQL apart. Nothing has run when it is refused.
    pub fn parse(sql: &str) -> Result<Self, StoreError> {
        // A byte order mark, as some editors put at the beginning.
        let all = statements(sql.strip_prefix('\u{feff}').unwrap_or(sql));
        if all.is_empty() {
            return Err(StoreError::Invalid("there is no SQL statement in this".to_owned()));
        }
        let mut changes_schema = Vec::with_capacity(all.len());
        for statement in &all {
            changes_schema.push(check(statement)?);
        }
        let split = changes_schema.iter().position(|schema| !schema).unwrap_or(all.len());
        let capturable = !changes_schema[split..].contains(&true);
        let mut schema: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let rest = schema.split_off(split);
        Ok(Self { schema, rest, capturable })
    }

    /// Whether any statement changes the schema.
    #[must_use]
    pub fn changes_schema(&self) -> bool {
        !self.schema.is_empty() || !self.capturable
    }
}

/// Whether the statement is DDL; an error if it may not be here at all.
fn check(statement: &str) -> Result<bool, StoreError> {
    let tokens = tokens(statement);
    let first = tokens.first().map(|token| token.0.to_ascii_lowercase()).unwrap_or_default();
    if let Some((_, reason)) = REFUSED.iter().find(|(word, _)| *word == first) {
        return Err(refused(statement, reason));
    }
    if tokens.iter().any(|token| is_ours(token)) {
        return Err(refused(statement, "tables that begin with _vski_ are the log's own"));
    }
    // Its statements are not looked at before it fires, and then every write does that.
    if is_trigger(&mut tokens.iter()) && tokens.iter().any(is_own_table) {
        return Err(refused(statement, "a trigger may not speak of tables that are the server's own"));
    }
    match first.as_str() {
        "create" if tokens.get(1).is_some_and(|token| token.is("temp") || token.is("temporary")) => {
            Err(refused(statement, "temporary objects are gone after the migration"))
        }
        "create" | "alter" | "drop" => Ok(true),
        "insert" | "update" | "delete" | "replace" | "with" => Ok(false),
        _ => Err(refused(statement, "only CREATE, ALTER, DROP, INSERT, UPDATE, DELETE, REPLACE and WITH may be used")),
    }
}

fn is_ours(token: &Token<'_>) -> bool {
    !token.0.starts_with('\'') && starts_reserved(token.0.trim_start_matches(['"', '`', '[']))
}

/// Whether it may name a table of the server's: in these quotes, too, SQLite takes a name.
fn is_own_table(token: &Token<'_>) -> bool {
    let name = token.0.trim_matches(['"', '`', '[', ']', '\'']);
    starts_reserved(name) || OWN_TABLES.iter().any(|(own, _)| own.eq_ignore_ascii_case(name))
}

fn refused(statement: &str, reason: &str) -> StoreError {
    let shown: String = statement.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(80).collect();
    StoreError::Invalid(format!("nothing was run: {shown:?} is refused: {reason}"))
}

/// The statements of a text. One that makes a trigger ends at `; END ;`, as sqlite3_complete() has it.
fn statements(sql: &str) -> Vec<&str> {
    let (mut found, mut words): (Vec<&str>, Vec<(usize, Token<'_>)>) = (Vec::new(), Vec::new());
    for token in tokens(sql) {
        let at = token.0.as_ptr() as usize - sql.as_ptr() as usize;
        if token.0 != ";" {
            words.push((at, token));
            continue;
        }
        let ended = words.last().is_some_and(|(_, last)| last.is("end"));
        let after_semicolon = words.iter().rev().nth(1).is_some_and(|(_, token)| token.0 == ";");
        if makes_trigger(&words) && !(ended && after_semicolon) {
            words.push((at, token));
        } else if let Some((start, _)) = words.first() {
            found.push(&sql[*start..at]);
            words.clear();
        }
    }
    if let (Some((start, _)), Some((at, last))) = (words.first(), words.last()) {
        found.push(&sql[*start..at + last.0.len()]);
    }
    found
}

fn makes_trigger(words: &[(usize, Token<'_>)]) -> bool {
    is_trigger(&mut words.iter().map(|(_, token)| token))
}

fn is_trigger<'a>(words: &mut impl Iterator<Item = &'a Token<'a>>) -> bool {
    let is_create = words.next().is_some_and(|token| token.is("create"));
    let kind = words.find(|token| !token.is("temp") && !token.is("temporary"));
    is_create && kind.is_some_and(|token| token.is("trigger"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_kept_verbatim_and_triggers_whole() {
        let trigger = "CREATE TRIGGER t AFTER UPDATE ON a BEGIN\n  DELETE FROM b WHERE x = CASE 1 WHEN 1 THEN 2 END; \
            INSERT INTO b VALUES (';'); END";
        let sql = format!("-- first\n;CREATE TABLE a (x /* ; */ TEXT); ;\n{trigger};UPDATE a SET x = 'a;b' -- last");
        assert_eq!(statements(&sql), ["CREATE TABLE a (x /* ; */ TEXT)", trigger, "UPDATE a SET x = 'a;b'"]);
        assert_eq!(statements(" ; -- nothing"), Vec::<&str>::new());
    }

    #[test]
    fn ddl_before_rows_can_be_captured_and_ddl_after_rows_cannot() {
        for (sql, schema, rest, capturable) in [
            ("ALTER TABLE a RENAME x TO y; DROP TABLE b", 2, 0, true),
            ("ALTER TABLE a ADD x; UPDATE a SET x = 1; DELETE FROM a", 1, 2, true),
            ("INSERT INTO a VALUES (1)", 0, 1, true),
            ("UPDATE a SET x = 1; DROP TABLE b; DELETE FROM a", 0, 3, false),
        ] {
            let plan = Plan::parse(sql).unwrap();
            assert_eq!((plan.schema.len(), plan.rest.len(), plan.capturable), (schema, rest, capturable), "{sql}");
        }
    }

    #[test]
    fn what_does_not_belong_into_a_migration_is_refused_with_the_reason() {
        for (sql, reason) in [
            ("", "no SQL statement"),
            ("DELETE FROM a; COMMIT", "one transaction"),
            ("pragma foreign_keys = 0", "settings"),
            ("ATTACH 'x' AS y", "one database"),
            ("VACUUM", "cannot run in a transaction"),
            ("SELECT 1", "sqlite3"),
            ("EXPLAIN DELETE FROM a", "only CREATE"),
            ("CREATE TEMP TABLE a (b)", "temporary"),
            ("DELETE FROM \"_VSKI_changelog\"", "log's own"),
            ("DELETE FROM main._vski_base", "log's own"),
        ] {
            let error = Plan::parse(sql).unwrap_err().to_string();
            assert!(error.contains(reason), "{sql}: {error}");
        }
        for body in ["DELETE FROM '_vski_changelog'", "INSERT INTO \"_Superusers\" VALUES (1)"] {
            let error = Plan::parse(&format!("CREATE TRIGGER t AFTER UPDATE ON a BEGIN {body}; END")).unwrap_err();
            assert!(error.to_string().contains("own"), "{body}: {error}");
        }
        Plan::parse("INSERT INTO a VALUES ('_vski_ in a text')").unwrap();
        let plan = Plan::parse("\u{feff}DELETE FROM a").unwrap();
        assert_eq!(plan.rest, ["DELETE FROM a"], "a byte order mark is skipped");
    }
}
