use axum::http::Method;
use proptest::prelude::{any, *};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Value, json};

use super::world::select;
use crate::config::FilterLimits;
use crate::filter::ast::{Expr, Operator, Value as Literal};
use crate::filter::{RequestInfo, Scope, compile, parse};
use crate::store::collections::{Catalogue, Collection};
use crate::store::fields::{Field, FieldKind};
use crate::store::requester::Requester;

/// A collection with two fields of each of four types.
fn catalogue() -> Catalogue {
    let fields = vec![
        Field::new("t", FieldKind::text()),
        Field::new("u", FieldKind::text()),
        Field::new("n", FieldKind::number()),
        Field::new("m", FieldKind::number()),
        Field::new("b", FieldKind::Bool {}),
        Field::new("c", FieldKind::Bool {}),
        Field::new("s", select(9)),
    ];
    Catalogue::new(vec![Collection { name: "x".into(), table: "x".into(), fields, ..Collection::default() }])
}

fn texts() -> impl Strategy<Value = String> {
    "[abA]{0,2}"
}

fn numbers() -> impl Strategy<Value = Value> {
    prop_oneof![(-2..3_i64).prop_map(|n| json!(n)), (-2..3_i64).prop_map(|n| json!(n as f64 + 0.5))]
}

/// A record; fields that are left out were added after it was written.
fn records() -> impl Strategy<Value = Value> {
    let text = || proptest::option::of(texts());
    let number = || proptest::option::of(numbers());
    let flag = || proptest::option::of(any::<bool>());
    let several = proptest::option::of(proptest::sample::subsequence(vec!["a", "b", "ab"], 0..=3));
    (text(), text(), number(), number(), flag(), flag(), several).prop_map(|(t, u, n, m, b, c, s)| {
        let mut record = json!({});
        let values = [
            ("t", t.map(Value::from)),
            ("u", u.map(Value::from)),
            ("n", n),
            ("m", m),
            ("b", b.map(Value::from)),
            ("c", c.map(Value::from)),
            ("s", s.map(Value::from)),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                record[name] = value;
            }
        }
        record
    })
}

fn comparisons() -> impl Strategy<Value = String> {
    let operators = || proptest::sample::select(vec!["=", "!=", ">", ">=", "<", "<=", "~", "!~"]);
    let ordered = || proptest::sample::select(vec!["=", "!=", ">", ">=", "<", "<="]);
    let field = |names: &'static [&'static str]| proptest::sample::select(names);
    let text = || prop_oneof![texts().prop_map(|text| format!("'{text}'")), field(&["t", "u"]).prop_map(str::to_owned)];
    let number = || prop_oneof![numbers().prop_map(|n| n.to_string()), field(&["n", "m"]).prop_map(str::to_owned)];
    let flag = prop_oneof![any::<bool>().prop_map(|flag| flag.to_string()), field(&["b", "c"]).prop_map(str::to_owned)];
    let mark = || proptest::sample::select(vec!["", "?"]);
    prop_oneof![
        (text(), mark(), operators(), text()).prop_map(|(l, mark, op, r)| format!("{l} {mark}{op} {r}")),
        (number(), mark(), ordered(), number()).prop_map(|(l, mark, op, r)| format!("{l} {mark}{op} {r}")),
        (field(&["b", "c"]), ordered(), flag).prop_map(|(l, op, r)| format!("{l} {op} {r}")),
        (mark(), ordered(), text()).prop_map(|(mark, op, r)| format!("s {mark}{op} {r}")),
        (mark(), ordered(), text()).prop_map(|(mark, op, l)| format!("{l} {mark}{op} s")),
        (mark(), operators(), texts()).prop_map(|(mark, op, r)| format!("s:each {mark}{op} '{r}'")),
        (ordered(), 0..3_i64).prop_map(|(op, length)| format!("s:length {op} {length}")),
    ]
}

fn filters() -> impl Strategy<Value = String> {
    comparisons().prop_recursive(3, 12, 3, |inner| {
        let items = || proptest::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            items().prop_map(|items| format!("({})", items.join(" && "))),
            items().prop_map(|items| format!("({})", items.join(" || "))),
        ]
    })
}

/// What a side is for one record: its values, and whether there may be several.
fn side(value: &Literal, record: &Value) -> Vec<Value> {
    let path = match value {
        Literal::Text(text) => return vec![json!(text)],
        Literal::Integer(number) => return vec![json!(number)],
        Literal::Real(number) => return vec![json!(number)],
        Literal::Bool(flag) => return vec![json!(flag)],
        Literal::Path(path) => path,
        other => panic!("{other:?}"),
    };
    let name = path.segments[0].as_str();
    let stored = record.get(name).cloned();
    match (name, path.to_string().ends_with(":length")) {
        ("s", true) => vec![json!(stored.as_ref().and_then(Value::as_array).map_or(0, Vec::len))],
        ("s", false) => match stored.as_ref().and_then(Value::as_array) {
            Some(values) if !values.is_empty() => values.clone(),
            _ => vec![Value::Null],
        },
        ("t" | "u", _) => vec![stored.unwrap_or(json!(""))],
        ("n" | "m", _) => vec![stored.unwrap_or(json!(0))],
        _ => vec![stored.unwrap_or(json!(false))],
    }
}

fn holds(left: &Value, operator: Operator, right: &Value) -> bool {
    let is_empty = |value: &Value| value.is_null() || value == "";
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.to_ascii_lowercase(),
        other => other.to_string(),
    };
    let order = match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (left, right) => left.as_f64().and_then(|left| left.partial_cmp(&right.as_f64()?)),
    };
    let equal = (is_empty(left) && is_empty(right)) || order.is_some_and(std::cmp::Ordering::is_eq);
    match operator {
        Operator::Equal => equal,
        Operator::NotEqual => !equal,
        Operator::Like => text(left).contains(&text(right)),
        Operator::NotLike => !text(left).contains(&text(right)),
        Operator::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Operator::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        Operator::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Operator::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
    }
}

fn evaluate(expr: &Expr, record: &Value) -> bool {
    match expr {
        Expr::And(items) => items.iter().all(|item| evaluate(item, record)),
        Expr::Or(items) => items.iter().any(|item| evaluate(item, record)),
        Expr::Compare(comparison) => {
            let (left, right) = (side(&comparison.left.value, record), side(&comparison.right.value, record));
            let mut pairs = left.iter().flat_map(|left| right.iter().map(move |right| (left, right)));
            let matches = |(left, right): (&Value, &Value)| holds(left, comparison.operator, right);
            if comparison.any { pairs.any(matches) } else { pairs.all(matches) }
        }
    }
}

fn to_sql(value: Option<&Value>) -> Sql {
    match value {
        None | Some(Value::Null) => Sql::Null,
        Some(Value::Bool(flag)) => Sql::Integer((*flag).into()),
        Some(Value::String(text)) => Sql::Text(text.clone()),
        Some(Value::Number(number)) => {
            number.as_i64().map_or_else(|| Sql::Real(number.as_f64().unwrap_or_default()), Sql::Integer)
        }
        Some(list) => Sql::Text(list.to_string()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_filter_finds_what_an_evaluator_over_json_finds(
        filter in filters(),
        records in proptest::collection::vec(records(), 1..8),
    ) {
        let catalogue = catalogue();
        let collection = catalogue.find("x").unwrap();
        let conn = Connection::open_in_memory().unwrap();
        let columns: Vec<String> = collection.fields.iter().map(Field::column).collect();
        conn.execute_batch(&format!("CREATE TABLE x (id INTEGER, {})", columns.join(", "))).unwrap();
        for (at, record) in records.iter().enumerate() {
            let id = Sql::Integer(i64::try_from(at).unwrap());
            let values = collection.fields.iter().map(|field| to_sql(record.get(&field.name)));
            conn.execute("INSERT INTO x VALUES (?, ?, ?, ?, ?, ?, ?, ?)", params_from_iter(std::iter::once(id).chain(values)))
                .unwrap();
        }
        let request = RequestInfo::new(Requester::Guest, Method::GET);
        let scope = Scope { catalogue: &catalogue, collection, request: &request, trusted: false, alias: "r", limits: FilterLimits::RULES };
        let expr = parse(&filter).expect(&filter);
        let condition = compile(&expr, &filter, &scope).expect(&filter);
        let sql = format!("SELECT id FROM x AS r WHERE {} ORDER BY id", condition.sql);
        let mut statement = conn.prepare(&sql).unwrap();
        let found = statement.query_map(params_from_iter(&condition.params), |row| row.get::<_, i64>(0)).unwrap();
        let found: Vec<usize> = found.map(|id| usize::try_from(id.unwrap()).unwrap()).collect();
        let wanted: Vec<usize> = (0..records.len()).filter(|at| evaluate(&expr, &records[*at])).collect();
        prop_assert_eq!(found, wanted, "{}: {}", filter, sql);
    }
}
