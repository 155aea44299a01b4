use proptest::prelude::*;
use rusqlite::types::Value;

use super::*;
use crate::schema;
use crate::session::tests::{captured, captured_by, database};
use crate::session::{self, ApplyError};

/// Two keys of which one has words of its own, values of all kinds, a unique one, and generated columns.
const TABLES: &str = r#"
    CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, n, u INTEGER UNIQUE, shown AS (hex(n)), "a ""b" TEXT COLLATE NOCASE, kept AS (u) STORED);
    CREATE TABLE "pair of" (a INTEGER NOT NULL, v REAL, b BLOB NOT NULL, PRIMARY KEY (b, a)) WITHOUT ROWID;
    CREATE TABLE only (k INTEGER PRIMARY KEY);
    CREATE INDEX by_n ON t (n);
"#;

fn rows(conn: &Connection) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for (table, key) in [("t", "id"), ("\"pair of\"", "b, a"), ("only", "k")] {
        let mut statement = conn.prepare(&format!("SELECT * FROM {table} ORDER BY {key}")).unwrap();
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
        all.extend(statement.query_map([], row).unwrap().collect::<rusqlite::Result<Vec<Vec<Value>>>>().unwrap());
    }
    all
}

/// In a transaction of its own, as callers do. Returns whether it went by the applier.
fn apply(applier: &mut Applier, conn: &Connection, changeset: &[u8]) -> Result<bool, ApplyError> {
    let schema = schema::hash(conn).unwrap();
    let transaction = conn.unchecked_transaction().unwrap();
    if applier.apply(&transaction, schema, changeset)? {
        transaction.commit()?;
        return Ok(true);
    }
    transaction.rollback()?;
    let transaction = conn.unchecked_transaction().unwrap();
    session::apply(&transaction, changeset)?;
    transaction.commit()?;
    Ok(false)
}

#[test]
fn rows_of_all_kinds_go_by_statements_that_stay_compiled() {
    let (from, to, mut applier) = (database(TABLES), database(TABLES), Applier::default());
    for sql in [
        r#"INSERT INTO t VALUES ('a', 1, 1, 'x'), ('b', NULL, NULL, 'é' || char(0) || 'z'), ('c', x'00ff', -9223372036854775808, NULL)"#,
        r#"INSERT INTO "pair of" VALUES (1, 1, x''), (2, 1e308, x'01'), (2, NULL, '1')"#,
        "INSERT INTO only VALUES (1), (-7)",
        r#"UPDATE t SET n = 1.5, "a ""b" = 'X' WHERE id = 'a'; UPDATE t SET u = 7 WHERE id = 'c'"#,
        r#"UPDATE "pair of" SET v = 0.1 WHERE v IS NULL; UPDATE "pair of" SET a = 9 WHERE v = 1"#,
        r#"DELETE FROM t WHERE id <> 'a'; DELETE FROM "pair of" WHERE a = 2; DELETE FROM only WHERE k = 1"#,
        "UPDATE only SET k = 8",
    ] {
        let changeset = captured(&from, sql);
        assert!(apply(&mut applier, &to, &changeset).unwrap(), "{sql}");
        assert_eq!(rows(&from), rows(&to), "{sql}");
    }
}

#[test]
fn unique_values_that_are_swapped_are_left_to_sqlite() {
    let rows_of_both = format!("{TABLES} INSERT INTO t (id, u) VALUES ('a', 1), ('b', 2)");
    let (from, to) = (database(&rows_of_both), database(&rows_of_both));
    let swap =
        "UPDATE t SET u = 3 WHERE id = 'a'; UPDATE t SET u = 1 WHERE id = 'b'; UPDATE t SET u = 2 WHERE id = 'a'";
    let changeset = captured(&from, swap);
    assert!(!apply(&mut Applier::default(), &to, &changeset).unwrap());
    assert_eq!(rows(&from), rows(&to));
}

/// A changeset with each kind of change, from rows `a` and `gone`.
fn of_each_kind() -> Vec<u8> {
    let from = database(&format!("{TABLES} INSERT INTO t (id, n) VALUES ('a', 1), ('gone', 1)"));
    let sql = "INSERT INTO t (id) VALUES ('new'); UPDATE t SET n = 2 WHERE id = 'a'; DELETE FROM t WHERE id = 'gone'";
    captured(&from, sql)
}

#[test]
fn rows_that_differ_are_a_conflict_and_stay_as_they_are() {
    for here in [
        "",
        "INSERT INTO t (id, n) VALUES ('a', 7), ('gone', 1)",
        "INSERT INTO t (id, n) VALUES ('a', 1), ('gone', 7)",
        "INSERT INTO t (id, n) VALUES ('a', 1), ('gone', 1), ('new', 0)",
    ] {
        let to = database(&format!("{TABLES}{here}"));
        let before = rows(&to);
        let refused = apply(&mut Applier::default(), &to, &of_each_kind());
        assert!(matches!(refused, Err(ApplyError::Conflict(_))), "{here}: {refused:?}");
        assert_eq!(rows(&to), before);
    }
}

#[test]
fn tables_of_another_shape_and_bytes_that_are_no_changeset_are_not_touched() {
    let changeset = of_each_kind();
    let is_applied = |schema: &str, bytes: &[u8]| {
        let to = database(schema);
        Applier::default().apply(&to, schema::hash(&to).unwrap(), bytes).unwrap()
    };
    assert!(is_applied(TABLES, b""));
    for bytes in [b"no changeset", &changeset[..changeset.len() - 1]] {
        assert!(!is_applied(TABLES, bytes));
    }
    for schema in [
        "",
        "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, n)",
        "CREATE TABLE t (id, n TEXT PRIMARY KEY NOT NULL, u, x)",
    ] {
        assert!(!is_applied(schema, &changeset), "{schema}");
    }
}

#[test]
fn another_schema_is_looked_at_anew() {
    let (from, to, mut applier) = (database(TABLES), database(TABLES), Applier::default());
    let both = |sql: &str| [&from, &to].iter().for_each(|conn| conn.execute_batch(sql).unwrap());
    let mut change = |sql: &str| {
        let changeset = captured(&from, sql);
        assert!(apply(&mut applier, &to, &changeset).unwrap(), "{sql}");
        assert_eq!(rows(&from), rows(&to));
    };
    change("INSERT INTO only VALUES (1)");
    // As many columns, in another order and of other names.
    both("DROP TABLE only; CREATE TABLE only (v, k INTEGER PRIMARY KEY)");
    change("INSERT INTO only VALUES ('v', 1)");
    both("DROP TABLE only; CREATE TABLE only (k INTEGER PRIMARY KEY, v)");
    change("INSERT INTO only VALUES (1, 'v')");
    both("ALTER TABLE only RENAME COLUMN v TO w");
    change("UPDATE only SET w = 'other'");
}

/// A statement on one of few rows, so that they meet.
fn statement() -> impl Strategy<Value = (&'static str, [Value; 3])> {
    let value = prop_oneof![
        Just(Value::Null),
        (-2i64..4).prop_map(Value::Integer),
        any::<f64>().prop_filter("SQLite has none", |real| !real.is_nan()).prop_map(Value::Real),
        "[aA\0é]{0,2}".prop_map(Value::Text),
        proptest::collection::vec(0u8..2, 0..3).prop_map(Value::Blob),
    ];
    let sql = proptest::sample::select(vec![
        "INSERT OR IGNORE INTO t (id, n, u) VALUES ('i' || ?1, ?2, ?3)",
        "INSERT OR REPLACE INTO t (id, n, \"a \"\"b\") VALUES ('i' || ?1, ?2, ?3)",
        "UPDATE OR IGNORE t SET n = ?2, u = ?3 WHERE id = 'i' || ?1",
        "UPDATE OR REPLACE t SET id = 'i' || ?1 WHERE n IS ?2 OR u IS ?3",
        "DELETE FROM t WHERE id = 'i' || ?1 OR n IS ?2 OR u IS ?3",
        "INSERT OR IGNORE INTO \"pair of\" (a, b, v) VALUES (?1, ?2, ?3)",
        "UPDATE OR REPLACE \"pair of\" SET a = ?1, v = ?3 WHERE b IS ?2",
        "DELETE FROM \"pair of\" WHERE a IS ?1 AND b IS NOT ?2 AND v IS NOT ?3",
        "INSERT OR IGNORE INTO only SELECT ?1 WHERE typeof(?1) = 'integer' AND ?2 IS NOT ?3",
        "UPDATE OR REPLACE only SET k = k + 1 WHERE k IS ?1 OR k IS ?2 OR k IS ?3",
        "DELETE FROM only WHERE k IS ?1 OR k IS ?2 OR k IS ?3",
    ]);
    (sql, [value.clone(), value.clone(), value])
}

proptest! {
    #[test]
    fn what_is_captured_and_applied_is_the_same(batches in proptest::collection::vec(proptest::collection::vec(statement(), 1..8), 1..8)) {
        let (from, to, mut applier) = (database(TABLES), database(TABLES), Applier::default());
        for batch in batches {
            let changeset = captured_by(&from, |conn| {
                for (sql, values) in batch {
                    // Some are refused, as by NOT NULL.
                    let _ = conn.prepare_cached(sql).unwrap().execute(values);
                }
            });
            apply(&mut applier, &to, &changeset).unwrap();
            prop_assert_eq!(rows(&from), rows(&to));
        }
    }
}
