//! Collections of every kind: made, changed, deleted and made again, and followed by the agent's code.

use std::sync::Arc;

use rusqlite::Connection;
use serde_json::{Map, Value, json};
use vski_replication::datadir::DataDir;
use vski_replication::entry::Kind;
use vski_replication::{changelog, connection};
use vski_server::config::FilterLimits;
use vski_server::metrics::Metrics;
use vski_server::store::collections::change::{self, Edit};
use vski_server::store::collections::{Catalogue, Collection, Wanted, listing};
use vski_server::store::error::StoreError;
use vski_server::store::master::Master;
use vski_server::store::records::{self, Body, Secrets, Sender};

use crate::store::Store;

fn object(json: Value) -> Map<String, Value> {
    let Value::Object(object) = json else { panic!("{json} is no object") };
    object
}

fn wanted(json: Value) -> Wanted {
    Wanted::from_json(&object(json)).unwrap()
}

/// One change; the collections that it made or changed.
async fn edit(store: &Store, edit: Edit) -> Result<Vec<Collection>, StoreError> {
    change::apply(&store.writer, edit).await.map(|done| done.value)
}

async fn create(store: &Store, json: Value) -> Result<Collection, StoreError> {
    Ok(edit(store, Edit::Create(wanted(json))).await?.remove(0))
}

async fn update(store: &Store, name: &str, json: Value) -> Result<Collection, StoreError> {
    Ok(edit(store, Edit::Update(name.to_owned(), wanted(json))).await?.remove(0))
}

async fn import(store: &Store, collections: Vec<Value>, delete_missing: bool) -> Result<Vec<Collection>, StoreError> {
    let collections = collections.into_iter().map(wanted).collect();
    edit(store, Edit::Import { collections, delete_missing }).await
}

async fn insert(store: &Store, collection: &str, body: Value) -> Result<Value, StoreError> {
    let (collection, body) = (collection.to_owned(), object(body));
    let made = store.writer.rows(0, move |conn| {
        let catalogue = Catalogue::load(conn)?;
        let collection = catalogue.get(&collection)?;
        let body = Body::resolve(collection, Sender::Admin, None, Arc::new(body.clone()));
        let id = records::create(conn, &catalogue, collection, &body, &Secrets::default())?;
        records::view(conn, collection, &id)
    });
    Ok(made.await?.value)
}

/// How many records are gone.
async fn truncate(store: &Store, collection: &str) -> Result<usize, StoreError> {
    let collection = collection.to_owned();
    let gone = store.writer.rows(0, move |conn| {
        let catalogue = Catalogue::load(conn)?;
        records::truncate(conn, &catalogue, catalogue.get(&collection)?).map(|gone| gone.len())
    });
    Ok(gone.await?.value)
}

async fn read(store: &Store, collection: &str, id: &Value) -> Result<Value, StoreError> {
    let (collection, id) = (collection.to_owned(), id.as_str().unwrap().to_owned());
    let reader = store.master.reader("default")?;
    reader.read(move |conn| records::view(conn, Catalogue::load(conn)?.get(&collection)?, &id)).await
}

async fn delete(store: &Store, collection: &str, id: &Value) -> Result<usize, StoreError> {
    let (collection, id) = (collection.to_owned(), id.as_str().unwrap().to_owned());
    let deleted = store.writer.rows(0, move |conn| {
        let catalogue = Catalogue::load(conn)?;
        records::delete(conn, &catalogue, catalogue.get(&collection)?, &id)
    });
    Ok(deleted.await?.value.len())
}

/// Fields and messages of a refusal.
fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result.unwrap_err() {
        StoreError::Fields(fields) => fields
            .iter()
            .map(|error| format!("{} {} {}", error.field, error.code, error.message))
            .collect::<Vec<_>>()
            .join("; "),
        other => other.describe(),
    }
}

#[tokio::test]
async fn a_deleted_collections_name_is_used_by_a_new_table_and_its_id_brings_it_back() {
    let store = Store::new();
    let mut copy = store.copy();
    let posts = json!({"name": "posts", "fields": [{"name": "a", "type": "text"}],
        "indexes": ["CREATE INDEX idx_a ON posts (a)"]});
    let first = create(&store, posts.clone()).await.unwrap();
    let kept = insert(&store, "posts", json!({"a": "kept"})).await.unwrap();
    edit(&store, Edit::Delete("posts".to_owned())).await.unwrap();
    assert!(refused(read(&store, "posts", &kept["id"]).await).contains("no collection"));
    let second = create(&store, posts).await.unwrap();
    assert_eq!((first.table.as_str(), second.table.as_str()), ("posts", "posts_2"));
    assert_eq!((second.indexes[0].name.as_str(), second.indexes[0].object.as_str()), ("idx_a", "idx_a_2"));
    assert!(refused(read(&store, "posts", &kept["id"]).await).contains("no record"));
    edit(&store, Edit::Delete(second.id)).await.unwrap();
    let back = create(&store, json!({"id": first.id, "name": "posts", "fields": [{"name": "a", "type": "text"}]}))
        .await
        .unwrap();
    assert_eq!(back.table, "posts");
    assert_eq!(read(&store, "posts", &kept["id"]).await.unwrap()["a"], "kept");
    copy.follow_and_compare(&store);
}

#[tokio::test]
async fn indexes_come_and_go_with_their_fields_and_hold_what_they_promise() {
    let store = Store::new();
    let mut copy = store.copy();
    let fields = json!([{"name": "a", "type": "text"}, {"name": "n", "type": "number"}]);
    let unique = "CREATE UNIQUE INDEX idx_an ON posts (a, n) WHERE a != ''";
    create(&store, json!({"name": "posts", "fields": fields, "indexes": [unique]})).await.unwrap();
    insert(&store, "posts", json!({"a": "x", "n": 1})).await.unwrap();
    insert(&store, "posts", json!({"a": "", "n": 1})).await.unwrap();
    insert(&store, "posts", json!({"a": "", "n": 1})).await.unwrap();
    let twice = refused(insert(&store, "posts", json!({"a": "x", "n": 1})).await);
    assert!(twice.contains("a validation_not_unique") && twice.contains("n validation_not_unique"), "{twice}");
    let impossible = json!({"indexes": [unique, "CREATE UNIQUE INDEX idx_n ON posts (n)"]});
    assert!(refused(update(&store, "posts", impossible).await).contains("indexes validation_not_unique"));
    let unknown = json!({"indexes": ["CREATE INDEX idx_x ON posts (x)", "DROP TABLE posts"]});
    let told = refused(update(&store, "posts", unknown).await);
    assert!(told.contains("indexes[0]") && told.contains("field x") && told.contains("indexes[1]"), "{told}");
    let hidden = update(&store, "posts", json!({"fields": [{"name": "a", "type": "text"}]})).await.unwrap();
    assert!(hidden.indexes.is_empty());
    insert(&store, "posts", json!({"a": "x"})).await.unwrap();
    copy.follow_and_compare(&store);
}

#[tokio::test]
async fn a_collection_of_the_first_release_gets_the_index_on_created_when_it_is_changed() {
    let store = Store::new();
    create(&store, json!({"name": "posts", "fields": [{"name": "a", "type": "text"}]})).await.unwrap();
    store.ddl("DROP INDEX posts_created").await.unwrap();
    // Names of others are let alone, and so are those that do not begin with the column.
    store.ddl("CREATE INDEX posts_created ON posts (updated, created)").await.unwrap();
    let made = insert(&store, "posts", json!({"a": "x"})).await.unwrap();
    let mut copy = store.copy();
    let before = store.entries_after(0).len();
    update(&store, "posts", json!({"listRule": ""})).await.unwrap();
    let entries = store.entries_after(0);
    assert_eq!((entries.len(), entries[before].kind), (before + 1, Kind::Schema));
    update(&store, "posts", json!({"listRule": null})).await.unwrap();
    copy.follow_and_compare(&store);
    for file in [store.file(), copy.file.clone()] {
        let conn = connection::reader(&file).unwrap();
        let sql = "SELECT group_concat(name, ' ') FROM (SELECT name FROM pragma_index_list('posts')
            WHERE name NOT LIKE 'sqlite_%' ORDER BY name)";
        let names: String = conn.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(names, "posts_created posts_created_2");
    }
    assert_eq!(read(&store, "posts", &made["id"]).await.unwrap()["a"], "x");
}

#[tokio::test]
async fn an_import_makes_changes_and_deletes_all_or_nothing() {
    let store = Store::new();
    let mut copy = store.copy();
    create(&store, json!({"name": "old", "fields": [{"name": "a", "type": "text"}, {"name": "b", "type": "text"}]}))
        .await
        .unwrap();
    create(&store, json!({"name": "gone"})).await.unwrap();
    let all = vec![
        json!({"id": "cities00000001", "name": "cities", "type": "base", "fields": [
            {"name": "country", "type": "relation", "collectionId": "countries00001"},
            {"name": "twin", "type": "relation", "collectionId": "cities00000001", "maxSelect": 5}]}),
        json!({"id": "countries00001", "name": "countries", "type": "base", "fields": [{"name": "name", "type": "text"}]}),
        json!({"id": "names000000001", "name": "names", "type": "view", "listRule": "",
            "viewQuery": "SELECT c.id, n.name AS country FROM cities c JOIN countries n ON n.id = c.country"}),
        json!({"name": "old", "fields": [{"name": "a", "type": "text", "max": 3}]}),
    ];
    let mut broken = all.clone();
    broken.push(json!({"name": "bad", "fields": [{"name": "r", "type": "relation", "collectionId": "nowhere"}]}));
    let told = refused(import(&store, broken, true).await);
    assert!(told.contains("collections[4].fields[0].collectionId"), "{told}");
    let names = || async {
        let reader = store.master.reader("default").unwrap();
        let catalogue = reader.read(Catalogue::load).await.unwrap();
        catalogue.iter().map(|collection| collection.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["gone", "old"]);
    import(&store, all.clone(), false).await.unwrap();
    assert_eq!(names().await, ["cities", "countries", "gone", "names", "old"]);
    insert(&store, "old", json!({"a": "x", "b": "not mentioned and kept"})).await.unwrap();
    let imported = import(&store, all, true).await.unwrap();
    assert_eq!(names().await, ["cities", "countries", "names", "old"]);
    assert!(refused(insert(&store, "old", json!({"b": "x"})).await).contains("no such field"));
    let view = imported.iter().find(|collection| collection.name == "names").unwrap();
    assert_eq!(view.fields[0].kind.name(), "text");
    let country = insert(&store, "countries", json!({"name": "Peru"})).await.unwrap();
    let city = insert(&store, "cities", json!({"country": country["id"]})).await.unwrap();
    assert_eq!(read(&store, "names", &city["id"]).await.unwrap()["country"], "Peru");
    assert!(refused(insert(&store, "names", json!({})).await).contains("is a view"));
    // What they exported can be imported again, also after a deletion.
    let exported: Vec<Value> = imported.iter().filter(|c| c.deleted.is_none()).map(Collection::to_json).collect();
    edit(&store, Edit::Delete("names".into())).await.unwrap();
    import(&store, exported, true).await.unwrap();
    assert_eq!(read(&store, "names", &city["id"]).await.unwrap()["country"], "Peru");
    copy.follow_and_compare(&store);
}

#[tokio::test]
async fn what_others_need_cannot_go_and_schemas_only_grow() {
    let store = Store::new();
    create(&store, json!({"name": "a", "fields": [{"name": "t", "type": "text"}]})).await.unwrap();
    create(&store, json!({"name": "b", "fields": [{"name": "r", "type": "relation", "collectionId": "a"}]}))
        .await
        .unwrap();
    create(&store, json!({"name": "v", "type": "view", "viewQuery": "SELECT id, t FROM a"})).await.unwrap();
    assert!(refused(edit(&store, Edit::Delete("a".into())).await).contains("relation r of collection b"));
    update(&store, "b", json!({"fields": []})).await.unwrap();
    assert!(refused(edit(&store, Edit::Delete("a".into())).await).contains("the view v would not work"));
    assert!(refused(update(&store, "a", json!({"fields": []})).await).contains("the view v would not work"));
    for (change, code) in [
        (json!({"name": "c"}), "name validation_append_only"),
        (json!({"type": "auth"}), "type validation_append_only"),
        (json!({"id": "other"}), "id validation_append_only"),
        (json!({"fields": [{"name": "t", "type": "editor"}]}), "t validation_append_only"),
        (json!({"fields": [{"id": "text3", "name": "T", "type": "text"}]}), "T validation_append_only"),
        (json!({"viewQuery": "SELECT 1", "indexes": ["CREATE INDEX i ON b (t)"]}), "indexes[0]"),
        (json!({"authRule": ""}), "authRule validation_invalid_value"),
        (json!({"fields": [{"name": "s", "type": "select", "values": []}]}), "validation_required"),
    ] {
        let told = match Wanted::from_json(&object(change.clone())) {
            Ok(wanted) => refused(edit(&store, Edit::Update("a".into(), wanted)).await),
            Err(error) => refused::<()>(Err(error)),
        };
        assert!(told.contains(code), "{change}: {told}");
    }
    let known = create(&store, json!({"name": "d", "fields": [{"name": "one", "type": "text"}]})).await.unwrap();
    let renamed = json!({"fields": [{"id": known.fields[0].id, "name": "two", "type": "text"}]});
    assert!(refused(update(&store, "d", renamed).await).contains("cannot be renamed from one to two"));
    let told = refused(update(&store, "v", json!({"viewQuery": "SELECT nothing FROM a"})).await);
    assert!(told.contains("viewQuery validation_invalid_view_query"), "{told}");
}

#[tokio::test]
async fn references_to_a_deleted_record_go_with_it_or_keep_it() {
    let store = Store::new();
    let mut copy = store.copy();
    create(&store, json!({"name": "a"})).await.unwrap();
    let relation = |name: &str, more: Value| {
        let mut field = json!({"name": name, "type": "relation", "collectionId": "a"});
        field.as_object_mut().unwrap().extend(object(more));
        field
    };
    create(
        &store,
        json!({"name": "b", "fields": [
            relation("loose", json!({})),
            relation("many", json!({"maxSelect": 5})),
            relation("owner", json!({"cascadeDelete": true})),
            relation("must", json!({})),
        ]}),
    )
    .await
    .unwrap();
    update(
        &store,
        "b",
        json!({"fields": [
            relation("loose", json!({})),
            relation("many", json!({"maxSelect": 5})),
            relation("owner", json!({"cascadeDelete": true})),
        ]}),
    )
    .await
    .unwrap();
    create(
        &store,
        json!({"name": "c", "fields": [
            {"name": "b", "type": "relation", "collectionId": "b", "required": true, "cascadeDelete": false},
        ]}),
    )
    .await
    .unwrap();
    let (x, y) = (insert(&store, "a", json!({})).await.unwrap(), insert(&store, "a", json!({})).await.unwrap());
    let missing = refused(insert(&store, "b", json!({"loose": "aaaaaaaaaaaaaaa"})).await);
    assert!(missing.contains("loose validation_missing_rel_records"), "{missing}");
    let kept =
        insert(&store, "b", json!({"loose": x["id"], "many": [y["id"], x["id"]], "owner": y["id"]})).await.unwrap();
    let owned = insert(&store, "b", json!({"owner": x["id"]})).await.unwrap();
    let needs = insert(&store, "c", json!({"b": owned["id"]})).await.unwrap();
    let told = refused(delete(&store, "a", &x["id"]).await);
    assert!(told.contains("field b of record") && told.contains(needs["id"].as_str().unwrap()), "{told}");
    assert_eq!(read(&store, "b", &kept["id"]).await.unwrap(), kept, "nothing of it was done");
    assert_eq!(delete(&store, "c", &needs["id"]).await.unwrap(), 1);
    assert_eq!(delete(&store, "a", &x["id"]).await.unwrap(), 2);
    let left = read(&store, "b", &kept["id"]).await.unwrap();
    assert_eq!((&left["loose"], &left["many"], &left["owner"]), (&json!(""), &json!([y["id"]]), &y["id"]));
    assert!(refused(read(&store, "b", &owned["id"]).await).contains("no record"));
    assert!(refused(delete(&store, "a", &x["id"]).await).contains("no record"));
    copy.follow_and_compare(&store);
}

#[tokio::test]
async fn a_truncated_collection_is_released_by_all_that_referred_to_it() {
    let store = Store::new();
    let mut copy = store.copy();
    let to = |name: &str, target: &str, more: Value| {
        let mut field = json!({"name": name, "type": "relation", "collectionId": target});
        field.as_object_mut().unwrap().extend(object(more));
        field
    };
    create(&store, json!({"name": "a"})).await.unwrap();
    let fields = json!([
        to("one", "a", json!({})),
        to("many", "a", json!({"maxSelect": 9})),
        to("owners", "a", json!({"maxSelect": 9, "cascadeDelete": true})),
    ]);
    create(&store, json!({"name": "b", "fields": fields})).await.unwrap();
    let fields = json!([to("b", "b", json!({"cascadeDelete": true})), to("needs", "a", json!({"required": true}))]);
    create(&store, json!({"name": "c", "fields": fields})).await.unwrap();
    let (x, y) = (insert(&store, "a", json!({})).await.unwrap(), insert(&store, "a", json!({})).await.unwrap());
    let (x, y) = (&x["id"], &y["id"]);
    let kept = insert(&store, "b", json!({"one": x, "many": [x, y]})).await.unwrap();
    let owned = insert(&store, "b", json!({"owners": [y, x]})).await.unwrap();
    let alone = insert(&store, "b", json!({"owners": [x]})).await.unwrap();
    let below = insert(&store, "c", json!({"b": owned["id"], "needs": y})).await.unwrap();
    let needs = insert(&store, "c", json!({"needs": x})).await.unwrap();
    assert!(refused(truncate(&store, "a").await).contains(needs["id"].as_str().unwrap()), "c requires one that stays");
    assert_eq!(read(&store, "b", &kept["id"]).await.unwrap(), kept, "nothing of it was done");
    assert_eq!(delete(&store, "c", &needs["id"]).await.unwrap(), 1);
    assert_eq!(truncate(&store, "a").await.unwrap(), 5, "two, what they owned, and what was below");
    let left = read(&store, "b", &kept["id"]).await.unwrap();
    assert_eq!((&left["one"], &left["many"]), (&json!(""), &json!([])));
    assert!(left["updated"].as_str() >= kept["updated"].as_str());
    for (collection, gone) in [("b", &owned), ("b", &alone), ("c", &below)] {
        assert!(refused(read(&store, collection, &gone["id"]).await).contains("no record"));
    }
    assert_eq!(truncate(&store, "a").await.unwrap(), 0);
    copy.follow_and_compare(&store);
}

/// The indexes of a table that are no constraint's, by name.
fn indexes(file: &std::path::Path, table: &str) -> String {
    let conn = connection::reader(file).unwrap();
    let sql = "SELECT ifnull(group_concat(name, ' '), '') FROM (SELECT name FROM pragma_index_list(?1)
        WHERE name NOT LIKE 'sqlite_%' ORDER BY name)";
    conn.query_row(sql, [table], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_relation_to_one_record_has_an_index_of_its_own_unless_one_was_declared() {
    let store = Store::new();
    let relation =
        |name: &str, most: u64| json!({"name": name, "type": "relation", "collectionId": "a", "maxSelect": most});
    create(&store, json!({"name": "a"})).await.unwrap();
    let declared = "CREATE INDEX mine ON b (theirs, created)";
    let fields = json!([relation("one", 1), relation("many", 5), relation("theirs", 1)]);
    create(&store, json!({"name": "b", "fields": fields, "indexes": [declared]})).await.unwrap();
    let mut copy = store.copy();
    assert_eq!(indexes(&store.file(), "b"), "b_created b_one_idx mine");
    // One that an earlier version made without is brought up to date with its next change.
    store.ddl("DROP INDEX b_one_idx").await.unwrap();
    let more = json!([relation("one", 1), relation("many", 5), relation("theirs", 1), relation("new", 1)]);
    update(&store, "b", json!({"fields": more})).await.unwrap();
    assert_eq!(indexes(&store.file(), "b"), "b_created b_new_idx b_one_idx mine");
    let before = store.entries_after(0).len();
    update(&store, "b", json!({"listRule": ""})).await.unwrap();
    assert_eq!(store.entries_after(0)[before].kind, Kind::Changes, "nothing is lacking");
    // Where the declared one goes, ours takes its place; a partial one does not serve.
    update(&store, "b", json!({"indexes": ["CREATE INDEX mine ON b (theirs) WHERE theirs != ''"]})).await.unwrap();
    assert_eq!(indexes(&store.file(), "b"), "b_created b_new_idx b_one_idx b_theirs_idx mine");
    copy.follow_and_compare(&store);
    assert_eq!(indexes(&copy.file, "b"), indexes(&store.file(), "b"));
    let conn = connection::reader(&store.file()).unwrap();
    let plan = "EXPLAIN QUERY PLAN UPDATE b SET one = '' WHERE one IN (SELECT value FROM json_each('[]'))";
    let steps: String = conn.query_row(plan, [], |row| row.get(3)).unwrap();
    assert!(steps.contains("USING INDEX b_one_idx") || steps.contains("COVERING INDEX b_one_idx"), "{steps}");
}

#[tokio::test]
async fn a_long_chain_of_cascades_ends_and_so_does_a_circle() {
    let store = Store::new();
    let fields = json!([{"name": "next", "type": "relation", "collectionId": "links", "cascadeDelete": true}]);
    create(&store, json!({"id": "links", "name": "links", "fields": fields})).await.unwrap();
    let first = insert(&store, "links", json!({})).await.unwrap()["id"].clone();
    let mut last = first.clone();
    for _ in 0..300 {
        last = insert(&store, "links", json!({"next": last})).await.unwrap()["id"].clone();
    }
    let (from, to) = (first.as_str().unwrap().to_owned(), last.as_str().unwrap().to_owned());
    store.sql(&format!("UPDATE links SET next = '{to}' WHERE id = '{from}'")).await.unwrap();
    assert_eq!(delete(&store, "links", &first).await.unwrap(), 301);
}

#[tokio::test]
async fn a_database_of_the_first_release_is_upgraded_by_an_entry_that_replicas_follow() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temporary.path()).unwrap();
    let open = || Master::open(&dir, &Arc::new(Metrics::new().unwrap())).unwrap();
    let master = open();
    let fields = json!([{"name": "n", "type": "number"}]);
    let writer = master.database("default").unwrap().writer;
    let posts = wanted(json!({"name": "posts", "fields": fields}));
    change::apply(&writer, Edit::Create(posts)).await.unwrap();
    drop(writer);
    master.close();
    let file = dir.database("default");
    let conn = Connection::open(&file).unwrap();
    let added = ["tableName", "indexes", "viewQuery", "options", "deleted"];
    let dropped: String =
        added.iter().map(|column| format!("ALTER TABLE _collections DROP COLUMN {column};")).collect();
    let index = "CREATE UNIQUE INDEX _collections_name ON _collections (name COLLATE NOCASE)";
    conn.execute_batch(&format!("DROP INDEX _collections_name; {dropped} {index}")).unwrap();
    assert_eq!(Catalogue::load(&conn).unwrap().get("posts").unwrap().table, "posts");
    conn.close().unwrap();
    let master = open();
    let entries = changelog::read_after(&connection::reader(&file).unwrap(), 0, usize::MAX).unwrap();
    assert_eq!(entries.last().unwrap().kind, Kind::Schema);
    let writer = master.database("default").unwrap().writer;
    change::apply(&writer, Edit::Delete("posts".into())).await.unwrap();
    let again = change::apply(&writer, Edit::Create(wanted(json!({"name": "posts"})))).await.unwrap().value;
    assert_eq!(again[0].table, "posts_2");
    drop(writer);
    master.close();
}

#[tokio::test]
async fn collections_are_listed_by_what_filters_can_say() {
    let store = Store::new();
    for name in ["posts", "authors", "post_tags", "gone"] {
        create(&store, json!({"name": name})).await.unwrap();
    }
    edit(&store, Edit::Delete("gone".into())).await.unwrap();
    let reader = store.master.reader("default").unwrap();
    let names = async |filter: &'static str, sort: &'static str| {
        let found = reader.read(move |conn| listing::select(conn, filter, sort, FilterLimits::RULES)).await?;
        Ok::<_, StoreError>(found.into_iter().map(|collection| collection.name).collect::<Vec<_>>())
    };
    assert_eq!(names("", "").await.unwrap(), ["authors", "post_tags", "posts"]);
    assert_eq!(names("", "-name").await.unwrap(), ["posts", "post_tags", "authors"]);
    assert_eq!(names("name = \"posts\" || name = 'authors'", "").await.unwrap(), ["authors", "posts"]);
    assert_eq!(names("(name~'POST' && name != 'posts')", "").await.unwrap(), ["post_tags"]);
    assert_eq!(names("name !~ 'post%' && type = 'base' && created > '2000'", "").await.unwrap(), ["authors"]);
    for (filter, sort) in [("x = 'y'", ""), ("name", ""), ("fields ~ 'a'", ""), ("", "fields"), ("(", "")] {
        assert!(names(filter, sort).await.is_err(), "{filter} {sort}");
    }
}

#[tokio::test]
async fn no_collections_name_is_anothers_id() {
    let store = Store::new();
    create(&store, json!({"name": "posts", "id": "Abc"})).await.unwrap();
    let named = refused(create(&store, json!({"name": "aBC"})).await);
    assert!(named.contains("name validation_collection_name_exists is the id of the collection posts"), "{named}");
    let identified = refused(create(&store, json!({"name": "tags", "id": "Posts"})).await);
    assert!(identified.contains("id validation_not_unique is the name of the collection posts"), "{identified}");
    create(&store, json!({"name": "own", "id": "own"})).await.unwrap();
}
