use super::world::World;
use crate::filter::order_by;

#[test]
fn a_users_filter_knows_nothing_of_hidden_fields_and_of_other_collections() {
    let world = World::new();
    assert_eq!(world.posts("secret = 's1'"), "p1");
    let error = world.compile("posts", "secret = 's1'", false).unwrap_err();
    assert_eq!(
        error,
        world
            .compile("posts", "secreu = 's1'", false)
            .map_err(|mut error| {
                error.message = error.message.replace("secreu", "secret");
                error
            })
            .unwrap_err()
    );
    assert!(world.compile("posts", "@collection.teams.name ?= 'red'", false).is_err());
    assert!(world.compile("users", "posts_via_author.secret ?= 's1'", false).is_err());
}

#[test]
fn a_users_filter_looks_through_relations_only_at_what_its_view_rule_shows() {
    let world = World::new().asked_by_ann().with_view_rule("users", Some("team = @request.auth.team"));
    assert_eq!(world.find("posts", "author.name = 'ann'", false), "p1");
    assert_eq!(world.find("posts", "author.name = 'bob'", false), "");
    assert_eq!(world.find("posts", "editors.name ?= 'bob'", false), "");
    assert_eq!(world.posts("author.name = 'bob'"), "p2");
    let world = world.with_view_rule("comments", None);
    assert_eq!(world.find("posts", "comments_via_post.text ?= 'bad'", false), "");
    assert_eq!(world.posts("comments_via_post.text ?= 'bad'"), "p1");
    let world = world.with_view_rule("users", Some("nonsense = 1"));
    assert_eq!(world.find("posts", "author.name != ''", false), "");
}

#[test]
fn an_address_is_found_only_where_it_is_shown() {
    let guest = World::new();
    assert_eq!(guest.find("users", "email ~ '@'", false), "u1");
    assert_eq!(guest.find("posts", "author.email = 'bob@example.org'", false), "");
    assert_eq!(guest.find("users", "email ~ '@'", true), "u1 u2 u3");
    let mut bob = World::new().asked_by_ann();
    let crate::store::requester::Requester::Record(record) = &mut bob.request.requester else { panic!("a record") };
    std::sync::Arc::get_mut(record).unwrap().record.insert("id".into(), "u2".into());
    assert_eq!(bob.find("users", "email ~ '@'", false), "u1 u2");
}

#[test]
fn a_list_is_sorted_by_fields_and_through_relations_with_ties_broken_by_id() {
    let world = World::new();
    let collection = world.catalogue.find("posts").unwrap();
    let scope = world.scope(collection, false);
    let sorted = |sort: &str| {
        let order = order_by(sort, &scope).unwrap_or_else(|error| panic!("{sort}: {error}"));
        let sql = format!("SELECT group_concat(id, ' ') FROM (SELECT id FROM posts AS r ORDER BY {})", order.sql);
        world.conn.query_row(&sql, rusqlite::params_from_iter(&order.params), |row| row.get::<_, String>(0)).unwrap()
    };
    for (sort, wanted) in [
        ("", "p1 p2 p3 p4"),
        ("-id", "p4 p3 p2 p1"),
        ("-created", "p4 p3 p2 p1"),
        ("+created,id", "p1 p2 p3 p4"),
        ("-published", "p1 p4 p2 p3"),
        ("-author.team.level , -views", "p2 p1 p4 p3"),
        ("@rowid", "p1 p2 p3 p4"),
        ("-@rowid", "p4 p3 p2 p1"),
        ("-labels:length,id", "p1 p2 p3 p4"),
        ("-data.a.b", "p1 p2 p3 p4"),
    ] {
        assert_eq!(sorted(sort), wanted, "{sort}");
    }
    assert_eq!(sorted("@random").len(), "p1 p2 p3 p4".len());
    for (sort, column) in [
        ("nothing", 1),
        ("-nothing", 2),
        ("id, -nothing", 6),
        ("secret", 1),
        ("author.nothing", 8),
        ("comments_via_post.text", 1),
        ("editors.name", 1),
        ("title;DROP TABLE posts", 1),
        ("title desc", 1),
        ("title:each", 1),
        ("@now", 1),
        ("id,id,id,id,id,id,id,id,id", 25),
    ] {
        assert_eq!(order_by(sort, &scope).map(|order| order.sql).expect_err(sort).column, column, "{sort}");
    }
}

#[test]
fn a_users_filter_does_not_know_what_is_hidden_of_the_user() {
    let mut world = World::new().asked_by_ann();
    let mut collections: Vec<_> = world.catalogue.iter().cloned().collect();
    let users = collections.iter_mut().find(|collection| collection.name == "users").unwrap();
    users.fields.iter_mut().find(|field| field.name == "name").unwrap().hidden = true;
    world.catalogue = crate::store::collections::Catalogue::new(collections);
    assert_eq!(world.posts("@request.auth.name ~ 'a%' && id = 'p1'"), "p1", "a rule knows it");
    for filter in ["@request.auth.name ~ 'a%'", "@request.auth.name:isset = true", "@request.auth.none = 1"] {
        let error = world.compile("posts", filter, false).expect_err(filter);
        assert!(error.message.contains("users has no field"), "{error}");
        assert_eq!(error.column, "@request.auth.".len() + 1, "{error}");
    }
    for filter in ["@request.auth.id = 'u1'", "@request.auth.collectionName = 'users'", "@request.auth.team.level = 1"]
    {
        assert_ne!(world.find("posts", filter, false), "", "{filter}");
    }
}
