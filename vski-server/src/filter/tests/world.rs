use std::sync::Arc;

use axum::http::Method;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Value, json};

use crate::config::FilterLimits;
use crate::filter::{Condition, FilterError, RequestInfo, Scope, compile, parse};
use crate::store::collections::{AuthOptions, Catalogue, Collection, CollectionKind, Rules, auth};
use crate::store::fields::{Field, FieldKind};
use crate::store::requester::{AuthRecord, Requester};

/// A database with four collections, and somebody who asks.
pub struct World {
    pub conn: Connection,
    pub catalogue: Catalogue,
    pub request: RequestInfo,
}

const ROWS: &str = r#"
    INSERT INTO teams (id, created, updated, name, level) VALUES
        ('t1', '2022', '2022', 'red', 1), ('t2', '2022', '2022', 'Blue', 2);
    INSERT INTO users (id, created, updated, email, emailVisibility, name, team) VALUES
        ('u1', '2022', '2022', 'ann@example.org', 1, 'ann', 't1'),
        ('u2', '2022', '2022', 'bob@example.org', 0, 'bob', 't2'),
        ('u3', '2022', '2022', 'cid@example.org', 0, NULL, NULL);
    INSERT INTO posts VALUES
        ('p1', '2022-01-01 00:00:00.000Z', '', 'Hello World', 10, 1, '2022-01-01 00:00:00.000Z', 'news', '["a","b"]',
         '{"a":{"b":5},"list":[1,2],"s":"x","t":true}', 'u1', '["u1","u2"]', 's1'),
        ('p2', '2022-01-02 00:00:00.000Z', '', 'hello 100%', 0, 0, '2022-06-15 12:30:00.000Z', '', '["b"]',
         '"text"', 'u2', '["u2"]', ''),
        ('p3', '2022-01-03 00:00:00.000Z', '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        ('p4', '2022-01-04 00:00:00.000Z', '', 'It''s_x', -5, 1, '', 'old', '[]', 'null', 'gone', '[]', '');
    INSERT INTO comments VALUES
        ('c1', '2022', '2022', 'p1', 'u1', 'nice', 1), ('c2', '2022', '2022', 'p1', 'u2', 'bad', 9),
        ('c3', '2022', '2022', 'p2', 'u1', 'ok', 9);
"#;

impl World {
    pub fn new() -> Self {
        let catalogue = Catalogue::new(vec![teams(), users(), posts(), comments()]);
        let conn = Connection::open_in_memory().unwrap();
        for collection in catalogue.iter() {
            let columns: String = collection.fields.iter().map(|field| format!(", {}", field.column())).collect();
            conn.execute_batch(&format!(
                "CREATE TABLE {} (id TEXT PRIMARY KEY, created, updated{columns})",
                collection.table
            ))
            .unwrap();
        }
        conn.execute_batch(ROWS).unwrap();
        Self { conn, catalogue, request: RequestInfo::new(Requester::Guest, Method::GET) }
    }

    /// The user `u1` asks.
    pub fn asked_by_ann(mut self) -> Self {
        let record = json!({"id": "u1", "name": "ann", "team": "t1", "meta": {"x": 1}});
        self.request.requester = Requester::Record(Arc::new(AuthRecord {
            collection_id: "users_id".into(),
            collection_name: "users".into(),
            record: record.as_object().unwrap().clone(),
        }));
        self
    }

    pub fn with_body(mut self, body: Value) -> Self {
        self.request.body = Arc::new(body.as_object().unwrap().clone());
        self
    }

    /// The same collections, one of them with another view rule.
    pub fn with_view_rule(mut self, name: &str, rule: Option<&str>) -> Self {
        let mut collections: Vec<Collection> = self.catalogue.iter().cloned().collect();
        let changed = collections.iter_mut().find(|collection| collection.name == name).unwrap();
        changed.rules.view_rule = rule.map(str::to_owned);
        self.catalogue = Catalogue::new(collections);
        self
    }

    pub fn compile(&self, collection: &str, filter: &str, trusted: bool) -> Result<Condition, FilterError> {
        let collection = self.catalogue.find(collection).unwrap();
        compile(&parse(filter)?, filter, &self.scope(collection, trusted))
    }

    /// With the limits of rules.
    pub fn scope<'a>(&'a self, collection: &'a Collection, trusted: bool) -> Scope<'a> {
        let (catalogue, request, limits) = (&self.catalogue, &self.request, FilterLimits::RULES);
        Scope { catalogue, collection, request, trusted, alias: "r", limits }
    }

    /// Ids of the records that a filter finds.
    pub fn find(&self, collection: &str, filter: &str, trusted: bool) -> String {
        let condition = self.compile(collection, filter, trusted).unwrap_or_else(|error| panic!("{filter}: {error}"));
        let sql = format!("SELECT id FROM {collection} AS r WHERE {} ORDER BY id", condition.sql);
        let mut statement = self.conn.prepare(&sql).unwrap_or_else(|error| panic!("{filter}: {error}: {sql}"));
        let ids = statement.query_map(params_from_iter(&condition.params), |row| row.get::<_, String>(0)).unwrap();
        ids.collect::<Result<Vec<_>, _>>().unwrap_or_else(|error| panic!("{filter}: {error}: {sql}")).join(" ")
    }

    /// Posts that a rule finds.
    pub fn posts(&self, filter: &str) -> String {
        self.find("posts", filter, true)
    }
}

fn collection(name: &str, fields: Vec<Field>) -> Collection {
    let open = || Some(String::new());
    Collection {
        id: format!("{name}_id"),
        name: name.into(),
        table: name.into(),
        fields,
        rules: Rules { list_rule: open(), view_rule: open(), ..Rules::default() },
        ..Collection::default()
    }
}

pub fn relation(to: &str, max_select: u64) -> FieldKind {
    FieldKind::Relation { collection_id: format!("{to}_id"), min_select: 0, max_select, cascade_delete: false }
}

pub fn select(max_select: u64) -> FieldKind {
    FieldKind::Select { values: ["a", "b", "news", "old"].map(str::to_owned).into(), max_select }
}

fn teams() -> Collection {
    collection("teams", vec![Field::new("name", FieldKind::text()), Field::new("level", FieldKind::number())])
}

fn users() -> Collection {
    let mut fields = auth::system_fields();
    fields.extend([Field::new("name", FieldKind::text()), Field::new("team", relation("teams", 1))]);
    let auth = Some(AuthOptions::default());
    Collection { kind: CollectionKind::Auth, auth, ..collection("users", fields) }
}

fn posts() -> Collection {
    let date = FieldKind::Date { min: String::new(), max: String::new() };
    let mut secret = Field::new("secret", FieldKind::text());
    secret.hidden = true;
    let fields = vec![
        Field::new("title", FieldKind::text()),
        Field::new("views", FieldKind::number()),
        Field::new("published", FieldKind::Bool {}),
        Field::new("day", date),
        Field::new("kind", select(1)),
        Field::new("labels", select(9)),
        Field::new("data", FieldKind::json()),
        Field::new("author", relation("users", 1)),
        Field::new("editors", relation("users", 9)),
        secret,
    ];
    collection("posts", fields)
}

fn comments() -> Collection {
    let fields = vec![
        Field::new("post", relation("posts", 1)),
        Field::new("by", relation("users", 1)),
        Field::new("text", FieldKind::text()),
        Field::new("score", FieldKind::number()),
    ];
    collection("comments", fields)
}

/// Query parameters or headers of a request.
pub fn names<const N: usize>(pairs: [(&str, &str); N]) -> std::collections::BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
