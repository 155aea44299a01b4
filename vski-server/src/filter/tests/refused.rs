use super::world::World;
use crate::config::{FilterLimits, MOST_COMPARISONS, MOST_DEPTH};
use crate::filter::{Scope, compile, order_by, parse_sent};

#[test]
fn an_unknown_name_or_a_type_clash_is_pointed_at() {
    let world = World::new();
    for (filter, column, part) in [
        ("nothing = 1", 1, "no field \"nothing\""),
        ("title = 'x' && größe = 1", 16, "no field"),
        ("author.nothing = 1", 8, "users has no field"),
        ("author.team.nothing = 1", 13, "teams has no field"),
        ("author.password = 'x'", 8, "no field"),
        ("author.tokenKey = 'x'", 8, "no field"),
        ("title.x = 1", 1, "nothing can follow"),
        ("views = 'abc'", 9, "a number cannot be compared"),
        ("views = true", 9, "a number cannot"),
        ("'abc' = views", 1, "a number cannot"),
        ("title = true", 9, "a text cannot"),
        ("published = 'yes'", 13, "without quotes"),
        ("published = 5", 13, "true or false"),
        ("published ~ 't'", 1, "use ="),
        ("day = 'soon'", 7, "write it as"),
        ("day > 5", 7, "a date cannot"),
        ("views = published", 1, "cannot be compared"),
        ("labels:isset = true", 1, "@request"),
        ("title:length = 1", 1, "one value"),
        ("title:each = 1", 1, "one value"),
        ("views:lower = 'a'", 1, "no text"),
        ("comments_via_post = 'x'", 1, "which of their fields"),
        ("comments_via_nothing.x = 1", 1, "no field"),
        ("nowhere_via_post.x = 1", 1, "no field"),
        ("@request.nothing = 1", 10, "there are auth"),
        ("@request.method.x = 1", 10, "no such value"),
        ("@request.query.x:changed = true", 16, "@request.body"),
        ("@request.body.none:changed = true", 15, ":changed"),
        ("@collection.nowhere.x = 1", 21, "no collection"),
        ("@collection.teams.nothing = 1", 19, "no field"),
    ] {
        let error = world.compile("posts", filter, true).expect_err(filter);
        assert!(error.message.contains(part), "{filter}: {error}");
        assert_eq!(error.column, column, "{filter}: {error}");
    }
}

#[test]
fn a_stored_rule_speaks_of_fields_that_a_caller_or_a_body_can_have() {
    let world = World::new();
    let check = |rule: &str, changes| {
        crate::filter::check(rule, &world.catalogue, world.catalogue.find("posts").unwrap(), changes)
    };
    for rule in [
        "@request.auth.id != ''",
        "@request.auth.name = 'x' && @request.auth.collectionName = 'users'",
        "@request.auth.verified = true",
        "@request.auth.team.level > 1",
        "@request.auth.posts_via_author.title ?= 'x'",
        "@request.body.title:isset = false && @request.body.author.name = 'x'",
        "@request.body.id = ''",
        "@request.body.data.x = 1",
    ] {
        check(rule, true).unwrap_or_else(|error| panic!("{rule}: {error}"));
    }
    for (rule, column) in [
        ("@request.auth.nope = ''", 15),
        ("views = 1 || @request.auth.nope != ''", 28),
        ("@request.auth.tokenKey = ''", 15),
        ("@request.auth.team.nope = ''", 20),
        ("@request.auth.nope_via_author.id = ''", 15),
        ("@request.body.nope = ''", 15),
        ("title = @request.data.nope", 23),
    ] {
        assert_eq!(check(rule, true).expect_err(rule).column, column, "{rule}");
    }
    check("@request.body.nope = ''", false).unwrap();
}

#[test]
fn a_field_that_the_callers_collection_lacks_is_null_in_a_rule() {
    let world = World::new().asked_by_ann();
    for rule in [
        "@request.auth.nope = ''",
        "@request.auth.nope.x = null",
        "@request.auth.name.x = ''",
        "@request.auth.team.nope = null",
        "@request.auth.nope_via_author.id = ''",
    ] {
        assert_eq!(world.posts(rule), "p1 p2 p3 p4", "{rule}");
    }
}

#[test]
fn a_path_follows_so_many_relations_and_no_more() {
    let world = World::new();
    let there_and_back = "author.posts_via_author.author.posts_via_author.author.posts_via_author";
    assert!(world.compile("posts", &format!("{there_and_back}.title ?= 'x'"), true).is_ok());
    let error = world.compile("posts", &format!("{there_and_back}.author.name ?= 'x'"), true).unwrap_err();
    assert!(error.message.contains("at most 6 relations"), "{error}");
}

#[test]
fn all_paths_of_a_filter_follow_so_many_relations_and_no_more() {
    let world = World::new();
    let most = FilterLimits::RULES.relations;
    let chain = |count: usize| vec!["comments_via_post.by.name ?~ 'a%b'"; count].join(" || ");
    assert!(world.compile("posts", &chain(most / 2), false).is_ok());
    for trusted in [false, true] {
        let error = world.compile("posts", &chain(most / 2 + 1), trusted).unwrap_err();
        assert!(error.message.contains("more than 32 relations"), "{error}");
        assert_eq!(error.column, chain(most / 2).chars().count() + " || ".len() + 1, "{error}");
    }
    let collection = world.catalogue.find("posts").unwrap();
    assert!(crate::filter::check(&chain(most / 2 + 1), &world.catalogue, collection, false).is_err(), "a rule, too");
    // A rule's relations are not those of a filter that meets it.
    let world = world.with_view_rule("comments", Some("post.author.name != 'x'"));
    assert!(world.compile("posts", &chain(most / 2), false).is_ok());
}

#[test]
fn no_text_of_a_filter_gets_into_the_sql() {
    let world = World::new();
    for attempt in [
        "title = 'x\\' OR 1=1; DROP TABLE posts; --'",
        "title = \"x' OR '1'='1\"",
        "title ~ '%\\' UNION SELECT tokenKey FROM users --'",
        "data.a.b = 'DROP' || title = '\"; DROP TABLE posts; --'",
        "@request.query.q = '1; DROP TABLE posts'",
        "title = '\u{0}DROP'",
        "title:lower = '\\'); DROP TABLE posts; --'",
    ] {
        let condition = world.compile("posts", attempt, true).unwrap_or_else(|error| panic!("{attempt}: {error}"));
        assert!(!condition.sql.contains("DROP") && !condition.sql.contains("UNION"), "{}", condition.sql);
        assert_eq!(condition.sql.matches('?').count(), condition.params.len(), "{}", condition.sql);
        assert_eq!(world.posts(attempt), "", "{attempt}");
    }
    for attempt in [
        "title\" = 1",
        "title; DROP TABLE posts",
        "(SELECT 1) = 1",
        "title = 1 UNION SELECT 1",
        "posts.id = 1",
        "rowid = 1",
        "r.title = 'x'",
        "sqlite_version() = 1",
        "title = ?1",
        "data.\"a\" = 1",
        "title = 'x' -- and so on",
        "title = 'x' /* and so on */",
    ] {
        assert!(world.compile("posts", attempt, true).is_err(), "{attempt}");
    }
    assert_eq!(world.posts("id != ''"), "p1 p2 p3 p4");
}

#[test]
fn a_requests_paths_are_bound_by_the_settings_and_a_rule_behind_them_is_not() {
    let world = World::new().with_view_rule("comments", Some("post.author.team.name != 'x'"));
    let limits = FilterLimits { relations: 2, relation_depth: 1, sort_keys: 2, ..FilterLimits::RULES };
    let collection = world.catalogue.find("posts").unwrap();
    let scope = Scope { limits, ..world.scope(collection, false) };
    let compile = |text: &str| parse_sent(text, limits).and_then(|expr| compile(&expr, text, &scope));
    compile("comments_via_post.text ?= 'a' && author.name = 'ann'").unwrap();
    for (text, column, part) in [
        ("author.team.name = 'x'", 8, "at most 1 relations"),
        ("author.name = 'a' || editors.name = 'a' || author.name = 'b'", 44, "more than 2 relations"),
    ] {
        let error = compile(text).expect_err(text);
        assert!(error.message.contains(part), "{text}: {error}");
        assert_eq!(error.column, column, "{text}: {error}");
    }
    order_by("title,-author.name", &scope).unwrap();
    for (sort, column) in [("author.team.name", 8), ("title,views,id", 13)] {
        assert_eq!(order_by(sort, &scope).expect_err(sort).column, column, "{sort}");
    }
}

#[test]
fn more_tables_than_sqlite_joins_are_refused() {
    let world = World::new();
    let limits = FilterLimits { relations: 100, bytes: 64 << 10, ..FilterLimits::RULES };
    let collection = world.catalogue.find("posts").unwrap();
    let scope = Scope { limits, ..world.scope(collection, true) };
    // All begin at the same record, so that they are joined in one subquery.
    let mut ways = vec!["editors".to_owned()];
    for names in [["posts_via_author", "posts_via_editors"], ["author", "editors"]].iter().cycle().take(5) {
        ways = ways.iter().flat_map(|way| names.iter().map(move |name| format!("{way}.{name}"))).collect();
    }
    let filter = |count: usize| {
        let all: Vec<String> = ways.iter().take(count).map(|way| format!("{way}.id ?= 'x'")).collect();
        all.join(" && ")
    };
    let most = filter(18);
    let condition = compile(&parse_sent(&most, limits).unwrap(), &most, &scope).unwrap();
    world.conn.prepare(&format!("SELECT id FROM posts AS r WHERE {}", condition.sql)).unwrap();
    let more = filter(ways.len());
    let error = compile(&parse_sent(&more, limits).unwrap(), &more, &scope).unwrap_err();
    assert!(error.message.contains("more than 60 tables"), "{error}");
}

#[test]
fn the_longest_filters_still_run() {
    let world = World::new();
    let chain = |part: &str, joint: &str| vec![part; FilterLimits::RULES.comparisons].join(joint);
    assert_eq!(world.posts(&chain("views=10", "&&")), "p1");
    assert_eq!(world.posts(&chain("views=10", "||")), "p1");
    let related = vec!["editors.name?='ann'"; FilterLimits::RULES.relations].join("||");
    assert_eq!(world.posts(&related), "p1");
    assert_eq!(world.posts(&chain("editors.name?='ann'", "&&")), "p1");
    assert_eq!(world.posts(&format!("title ~ '{}'", "_".repeat(16_000))), "");
}

#[test]
fn the_deepest_filters_that_settings_allow_run_on_the_stack_of_a_thread() {
    let deepest = || {
        let limits = FilterLimits {
            bytes: 64 << 10,
            depth: MOST_DEPTH,
            comparisons: MOST_COMPARISONS,
            relations: 100,
            ..FilterLimits::RULES
        };
        let rule = format!("({})", vec!["post.author.name != 'x'"; 15].join(" && "));
        let world = World::new().with_view_rule("comments", Some(&rule));
        let half = MOST_DEPTH / 2;
        let nested = format!("{}views=10{}", "(views=10&&(views=10||".repeat(half), "))".repeat(half));
        let related =
            format!("{}views=10{}", "(views=10&&(comments_via_post.text?='x'||".repeat(half), "))".repeat(half));
        let long = vec!["views=10"; MOST_COMPARISONS].join("||");
        let collection = world.catalogue.find("posts").unwrap();
        let scope = Scope { limits, ..world.scope(collection, false) };
        for text in [nested, related, long] {
            let condition = parse_sent(&text, limits).and_then(|expr| compile(&expr, &text, &scope)).unwrap();
            let sql = format!("SELECT id FROM posts AS r WHERE {}", condition.sql);
            let mut statement = world.conn.prepare(&sql).unwrap();
            let found =
                statement.query_map(rusqlite::params_from_iter(&condition.params), |row| row.get::<_, String>(0));
            assert_eq!(found.unwrap().collect::<Result<Vec<_>, _>>().unwrap(), ["p1"]);
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(deepest).unwrap().join().unwrap();
}
