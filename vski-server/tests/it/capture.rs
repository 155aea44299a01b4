use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use crate::store::Store;

/// One thing done to the master. Numbers choose among what exists at that time.
#[derive(Clone, Debug)]
enum Step {
    Insert { table: u8, key: u8, values: Vec<String> },
    Update { table: u8, key: u8, value: String },
    UpdateMany { table: u8, value: String },
    ChangeKey { table: u8, from: u8, to: u8 },
    Delete { table: u8, key: u8 },
    DeleteAll { table: u8 },
    SwapUnique { table: u8, a: u8, b: u8 },
    AddTable { kind: u8 },
    AddColumn { table: u8 },
    AddIndex { table: u8 },
    AddTrigger { table: u8 },
    DropTrigger,
}

/// SQL literals of every storage class, at their edges.
fn literal() -> impl Strategy<Value = String> {
    let quoted = |text: String| format!("'{}'", text.replace('\'', "''").replace('\0', ""));
    prop_oneof![
        Just("NULL".to_owned()),
        any::<i64>().prop_map(|n| if n == i64::MIN { "-9223372036854775807 - 1".into() } else { n.to_string() }),
        prop::sample::select(vec![
            "0",
            "1",
            "1.0",
            "-0.0",
            "1e308",
            "-1e-308",
            "0.1",
            "9223372036854775807",
            "9007199254740993"
        ])
        .prop_map(str::to_owned),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        any::<String>().prop_map(quoted),
        prop::sample::select(vec!["größe", "日本語", "🦀 crab", "a'b", "", "A", "a", "e\u{301}", "123", "null"])
            .prop_map(move |s| quoted(s.to_owned())),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| format!("x'{}'", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())),
        Just("zeroblob(5000)".to_owned()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let (table, key) = (any::<u8>(), 0..12u8);
    prop_oneof![
        8 => (table, key.clone(), prop::collection::vec(literal(), 1..4)).prop_map(|(table, key, values)| Step::Insert { table, key, values }),
        4 => (table, key.clone(), literal()).prop_map(|(table, key, value)| Step::Update { table, key, value }),
        1 => (table, literal()).prop_map(|(table, value)| Step::UpdateMany { table, value }),
        2 => (table, key.clone(), key.clone()).prop_map(|(table, from, to)| Step::ChangeKey { table, from, to }),
        2 => (table, key.clone()).prop_map(|(table, key)| Step::Delete { table, key }),
        1 => table.prop_map(|table| Step::DeleteAll { table }),
        1 => (table, key.clone(), key).prop_map(|(table, a, b)| Step::SwapUnique { table, a, b }),
        1 => any::<u8>().prop_map(|kind| Step::AddTable { kind }),
        1 => table.prop_map(|table| Step::AddColumn { table }),
        1 => table.prop_map(|table| Step::AddIndex { table }),
        1 => table.prop_map(|table| Step::AddTrigger { table }),
        1 => Just(Step::DropTrigger),
    ]
}

/// The tables of one run: name, key column, how many value columns.
struct Tables {
    list: Vec<(String, &'static str, usize)>,
    made: usize,
    triggers: Vec<String>,
}

impl Tables {
    fn pick(&self, number: u8) -> usize {
        usize::from(number) % self.list.len()
    }

    fn key(&self, table: usize, number: u8) -> String {
        match self.list[table].1 {
            "n" => format!("{}", i64::from(number) * 1_000_000_007 - 5),
            "b" => format!("x'{number:02x}00ff'"),
            _ => format!("'ключ{number}'"),
        }
    }

    /// The SQL of a step, and whether it changes the schema.
    fn sql(&mut self, step: &Step) -> (String, bool) {
        let row = |this: &Self, table: u8, key: u8| {
            let at = this.pick(table);
            let (name, column, _) = &this.list[at];
            (name.clone(), format!("{column} = {}", this.key(at, key)))
        };
        match step {
            Step::Insert { table, key, values } => {
                let at = self.pick(*table);
                let (name, column, width) = &self.list[at];
                let columns: String = (0..values.len().min(*width)).map(|n| format!(", v{n}")).collect();
                let values: String = values.iter().take(*width).map(|value| format!(", {value}")).collect();
                let key = self.key(at, *key);
                (format!("INSERT OR REPLACE INTO {name} ({column}{columns}) VALUES ({key}{values})"), false)
            }
            Step::Update { table, key, value } => {
                let (name, row) = row(self, *table, *key);
                (format!("UPDATE {name} SET v0 = {value} WHERE {row}"), false)
            }
            Step::UpdateMany { table, value } => {
                (format!("UPDATE {} SET v0 = {value}", self.list[self.pick(*table)].0), false)
            }
            Step::ChangeKey { table, from, to } => {
                let (at, (name, row)) = (self.pick(*table), row(self, *table, *from));
                let (column, to) = (self.list[at].1, self.key(at, *to));
                (format!("UPDATE OR REPLACE {name} SET {column} = {to} WHERE {row}"), false)
            }
            Step::Delete { table, key } => {
                let (name, row) = row(self, *table, *key);
                (format!("DELETE FROM {name} WHERE {row}"), false)
            }
            Step::DeleteAll { table } => (format!("DELETE FROM {}", self.list[self.pick(*table)].0), false),
            Step::SwapUnique { table, a, b } => {
                let at = self.pick(*table);
                let (name, column, _) = &self.list[at];
                let (a, b) = (self.key(at, *a), self.key(at, *b));
                let sql = format!(
                    "UPDATE {name} SET u = 'free' || {column} WHERE {column} IN ({a}, {b});
                     UPDATE OR REPLACE {name} SET u = 'b' WHERE {column} = {a}; UPDATE OR REPLACE {name} SET u = 'a' WHERE {column} = {b}"
                );
                (sql, false)
            }
            change => (self.schema_sql(change), true),
        }
    }

    fn schema_sql(&mut self, step: &Step) -> String {
        self.made += 1;
        let number = self.made;
        match step {
            Step::AddColumn { table } => {
                let at = self.pick(*table);
                let (name, _, width) = &mut self.list[at];
                *width += 1;
                format!("ALTER TABLE {name} ADD COLUMN v{} DEFAULT 'new, \"column\"'", *width - 1)
            }
            Step::AddIndex { table } => {
                format!("CREATE INDEX index{number} ON {} (v0, u)", self.list[self.pick(*table)].0)
            }
            Step::AddTrigger { table } => {
                let (from, to) = (&self.list[self.pick(*table)], &self.list[0]);
                self.triggers.push(format!("trigger{number}"));
                format!(
                    "CREATE TRIGGER trigger{number} AFTER UPDATE ON {} BEGIN
                       INSERT OR IGNORE INTO {} ({}) VALUES ('by trigger' || new.rowid); END",
                    from.0, to.0, to.1
                )
            }
            Step::DropTrigger => match self.triggers.pop() {
                Some(trigger) => format!("DROP TRIGGER {trigger}"),
                None => format!("CREATE VIEW view{number} AS SELECT * FROM {}", self.list[0].0),
            },
            Step::AddTable { kind } => {
                let (column, kind) = [("t", "TEXT"), ("n", "INTEGER"), ("b", "BLOB")][usize::from(*kind) % 3];
                self.list.push((format!("table{number}"), column, 2));
                format!(
                    "CREATE TABLE table{number} (v0, {column} {kind} PRIMARY KEY NOT NULL, u TEXT UNIQUE, v1 NUMERIC)"
                )
            }
            rows => unreachable!("{rows:?} changes rows"),
        }
    }
}

#[test]
fn random_writes_and_schema_changes_captured_and_applied_give_equal_tables() {
    let runtime = Runtime::new().unwrap();
    let config = Config { cases: 256, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let steps = prop::collection::vec(step(), 1..30);
    TestRunner::new(config)
        .run(&steps, |steps| {
            runtime.block_on(play(&steps));
            Ok(())
        })
        .unwrap();
}

/// Plays the steps on a master; a copy follows now and then, and at the end.
async fn play(steps: &[Step]) {
    let store = Store::new();
    let mut tables = Tables { list: Vec::new(), made: 0, triggers: Vec::new() };
    for kind in 0..3 {
        store.ddl(&tables.schema_sql(&Step::AddTable { kind })).await.unwrap();
    }
    let mut copy = store.copy();
    for (at, step) in steps.iter().enumerate() {
        let (sql, schema) = tables.sql(step);
        let done = if schema { store.ddl(&sql).await } else { store.sql(&sql).await };
        done.unwrap_or_else(|error| panic!("{sql}: {}", error.describe()));
        if at % 7 == 6 {
            copy.follow_and_compare(&store);
        }
    }
    copy.follow_and_compare(&store);
}
