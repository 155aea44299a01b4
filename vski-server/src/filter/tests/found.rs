use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::world::{World, names};

fn check(world: &World, table: &[(&str, &str)]) {
    for (filter, wanted) in table {
        assert_eq!(world.posts(filter), *wanted, "{filter}");
    }
}

const ALL: &str = "p1 p2 p3 p4";

#[test]
fn texts_are_equal_contained_or_ordered() {
    check(
        &World::new(),
        &[
            ("title = 'Hello World'", "p1"),
            ("'Hello World' = title", "p1"),
            ("title != 'Hello World'", "p2 p3 p4"),
            ("title = ''", "p3"),
            ("title = null", "p3"),
            ("title != null", "p1 p2 p4"),
            ("title ~ 'hello'", "p1 p2"),
            ("title ~ 'hello%'", "p1 p2"),
            ("title ~ '%world'", "p1"),
            ("title ~ 'o w'", "p1"),
            ("title !~ 'hello'", "p3 p4"),
            ("title ~ '_'", "p4"),
            ("title ~ ''", ALL),
            ("title:lower = 'hello world'", "p1"),
            ("title > 'I'", "p2 p4"),
            ("title < 'I'", "p1 p3"),
            (r"title = 'It\'s_x'", "p4"),
            ("title = \"It's_x\"", "p4"),
            ("title = 5", ""),
            ("kind = 'news' || kind = 'old'", "p1 p4"),
            ("id = 'p1' && (views = 10 || views = 11)", "p1"),
            ("collectionName = 'posts'", ALL),
        ],
    );
}

#[test]
fn numbers_bools_and_dates_are_compared_as_what_they_are() {
    check(
        &World::new(),
        &[
            ("views = 0", "p2 p3"),
            ("views != 0", "p1 p4"),
            ("views > -1", "p1 p2 p3"),
            ("views < 1", "p2 p3 p4"),
            ("views >= 10", "p1"),
            ("views = 10.0", "p1"),
            ("views > 9", "p1"),
            ("views = '10'", "p1"),
            ("views = null", ""),
            ("views != ''", ALL),
            ("0 < views", "p1"),
            ("5 >= views", "p2 p3 p4"),
            ("views ~ '1'", "p1"),
            ("published = true", "p1 p4"),
            ("published = false", "p2 p3"),
            ("published != true", "p2 p3"),
            ("published = 1", "p1 p4"),
            ("day = '2022-01-01'", "p1"),
            ("day > '2022-01-01'", "p2"),
            ("day >= '2022'", "p1 p2"),
            ("day = '2022-06-15 14:30:00+02:00'", "p2"),
            ("day = ''", "p3 p4"),
            ("day < '2022-03'", "p1 p3 p4"),
            ("day ~ '2022-06'", "p2"),
            ("created < @now", ALL),
            ("created > @todayStart", ""),
            ("@year > 2000", ALL),
            ("@month >= 1 && @weekday < 7", ALL),
            ("1 = 1", ALL),
            ("'a' = 'b'", ""),
            ("null = ''", ALL),
        ],
    );
}

#[test]
fn of_several_values_all_must_match_or_with_a_question_mark_one() {
    check(
        &World::new(),
        &[
            ("labels = 'b'", "p2"),
            ("labels ?= 'b'", "p1 p2"),
            ("labels ?= 'a' && labels ?= 'b'", "p1"),
            ("labels = ''", "p3 p4"),
            ("labels != 'a'", "p2 p3 p4"),
            ("labels ?!= 'a'", ALL),
            ("labels > 'a'", "p2"),
            ("labels ?> 'a'", "p1 p2"),
            ("labels ~ 'a'", "p1"),
            ("labels !~ 'a'", "p2 p3 p4"),
            ("labels:each ~ 'b'", "p2"),
            ("labels:each ?~ 'b'", "p1 p2"),
            ("labels:length = 2", "p1"),
            ("labels:length = 0", "p3 p4"),
            ("editors ?= 'u1'", "p1"),
            ("editors = 'u2'", "p2"),
            ("editors ~ 'u1'", "p1"),
            ("editors:length > 1", "p1"),
            ("editors.id ?= 'u1' && editors.id ?= 'u2'", "p1"),
            ("editors ?= author", "p1 p2 p3"),
        ],
    );
}

#[test]
fn json_values_are_reached_by_their_path() {
    check(
        &World::new(),
        &[
            ("data.a.b = 5", "p1"),
            ("data.a.b > 4", "p1"),
            ("data.list.1 = 2", "p1"),
            ("data.s = 'x'", "p1"),
            ("data.s ~ 'X'", "p1"),
            ("data.t = true", "p1"),
            ("data.none = null", ALL),
            ("data = 'text'", "p2"),
            ("data = null", "p3 p4"),
            ("data:length = 0", ALL),
        ],
    );
}

#[test]
fn relations_are_followed_to_any_depth_in_both_directions() {
    check(
        &World::new(),
        &[
            ("author = 'u1'", "p1"),
            ("author.id = 'u1'", "p1"),
            ("author.name = 'ann'", "p1"),
            ("author.name = ''", "p3 p4"),
            ("author.name ~ 'b'", "p2"),
            ("author.team.name = 'red'", "p1"),
            ("author.team.level > 1", "p2"),
            ("author.team.level < 5", "p1 p2"),
            ("author.team.level = 0", ""),
            ("author.team.level != 1", "p2 p3 p4"),
            ("author.team.level = null", "p3 p4"),
            ("editors.name ?= 'bob'", "p1 p2"),
            ("editors.name = 'bob'", "p2"),
            ("editors.team.level ?> 1", "p1 p2"),
            ("editors.team.level > 1", "p2"),
            ("comments_via_post.text ?= 'bad'", "p1"),
            ("comments_via_post.score ?> 5", "p1 p2"),
            ("comments_via_post.score > 5", "p2"),
            ("comments_via_post.score = null", "p3 p4"),
            ("comments_via_post.by.team.name ?= 'Blue'", "p1"),
            ("author.comments_via_by.post.title ?~ '100'", "p1"),
            ("title = author.name", "p3"),
            ("views = author.team.level", ""),
        ],
    );
    let world = World::new();
    assert_eq!(world.find("users", "posts_via_editors.views ?= 10", true), "u1 u2");
    assert_eq!(world.find("users", "posts_via_editors.id = null", true), "u3");
    assert_eq!(world.find("teams", "users_via_team.posts_via_author.views ?> 5", true), "t1");
}

#[test]
fn comparisons_with_a_question_mark_that_are_joined_by_and_are_about_one_record() {
    check(
        &World::new(),
        &[
            ("comments_via_post.score ?= 9 && comments_via_post.by ?= 'u1'", "p2"),
            ("comments_via_post.score ?= 9 || comments_via_post.by ?= 'u1'", "p1 p2"),
            ("comments_via_post.by.name ?= 'ann' && comments_via_post.by.team.name ?= 'Blue'", ""),
            ("(comments_via_post.score ?= 1 || comments_via_post.score ?= 2) && comments_via_post.by ?= 'u2'", ""),
            ("(comments_via_post.score ?= 1 || title = '') && comments_via_post.by ?= 'u1' && views > 0", "p1"),
            ("editors.name ?= 'ann' && editors.team.level ?= 2", ""),
            ("editors.name ?= 'bob' && editors.team.level ?= 2", "p1 p2"),
            ("@collection.teams.name ?= 'red' && @collection.teams.level ?= 2", ""),
            ("@collection.teams.name ?= 'red' && @collection.teams:other.level ?= 2", ALL),
            ("@collection.teams.name = 'red'", ""),
            ("@collection.comments.post ?= id", "p1 p2"),
            (
                "@collection.comments.post ?= id && @collection.comments.score ?> 5 && @collection.comments.by ?= 'u1'",
                "p2",
            ),
        ],
    );
}

#[test]
fn the_request_is_what_it_was() {
    let mut world = World::new().asked_by_ann();
    world.request.query = names([("q", "x")]).into();
    let token = (HeaderName::from_static("x-token"), HeaderValue::from_static("t"));
    world.request.headers = Arc::new(HeaderMap::from_iter([token]));
    check(
        &world,
        &[
            ("@request.auth.id = author", "p1"),
            ("@request.auth.id != ''", ALL),
            ("@request.auth.collectionName = 'users'", ALL),
            ("@request.auth.nothing = ''", ALL),
            ("@request.auth.meta.x = 1", ALL),
            ("@request.auth.team.name = 'red'", ALL),
            ("@request.auth.team.level > 1", ""),
            ("@request.auth.comments_via_by.post ?= id", "p1 p2"),
            ("@request.auth.comments_via_by.post ?= id && @request.auth.comments_via_by.score ?= 9", "p2"),
            ("@request.query.q = 'x' && @request.headers.x_token = 't'", ALL),
            ("@request.query.none:isset = false", ALL),
            ("@request.method = 'GET' && @request.context = 'default'", ALL),
        ],
    );
    check(
        &World::new(),
        &[("@request.auth.id != ''", ""), ("@request.auth.id = author", "p3"), ("@request.auth.team.name = ''", ALL)],
    );
}

#[test]
fn the_body_is_what_was_sent() {
    let body = json!({
        "title": "Hello World", "views": 10, "published": true, "labels": ["a", "b"], "author": "u1", "empty": null,
        "editors": ["u2"], "data": {"deep": [{"x": 1}]}, "huge": "x".repeat(60_000),
    });
    check(
        &World::new().with_body(body),
        &[
            ("@request.body.title = title", "p1"),
            ("@request.data.title = title", "p1"),
            ("@request.body.views = views", "p1"),
            ("@request.body.published = published", "p1 p4"),
            ("@request.body.title:isset = true && @request.body.none:isset = false", ALL),
            ("@request.body.empty:isset = true", ALL),
            ("@request.body.title:changed = true", "p2 p3 p4"),
            ("@request.body.kind:changed = false", ALL),
            ("@request.body.title:lower = 'hello world'", ALL),
            ("@request.body.labels:length = 2", ALL),
            ("@request.body.labels:each ?= 'a'", ALL),
            ("@request.body.labels:each = 'a'", ""),
            ("@request.body.labels ~ 'a'", ALL),
            ("@request.body.author.name = 'ann'", ALL),
            ("@request.body.editors.name ?= 'bob'", ALL),
            ("@request.body.editors.name ?= 'ann'", ""),
            ("@request.body.data.deep.0.x = 1", ALL),
            ("title ~ @request.body.huge", ""),
            ("@request.body.huge ~ 'xx'", ALL),
            // What was sent is no mistake of the rule's.
            ("@request.body.title = views", ""),
            ("@request.body.title = published", ""),
            ("@request.body.title != day", ALL),
        ],
    );
}
