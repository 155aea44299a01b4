use rusqlite::params_from_iter;

use super::world::World;
use crate::filter::order_by;

/// How SQLite would run a list of posts.
fn plan(world: &World, filter: &str, sort: &str) -> String {
    let condition = world.compile("posts", filter, false).unwrap();
    let collection = world.catalogue.find("posts").unwrap();
    let scope = world.scope(collection, false);
    let order = order_by(sort, &scope).unwrap();
    let sql =
        format!("EXPLAIN QUERY PLAN SELECT * FROM posts AS r WHERE {} ORDER BY {} LIMIT 30", condition.sql, order.sql);
    let mut statement = world.conn.prepare(&sql).unwrap();
    let params = params_from_iter(condition.params.iter().chain(&order.params));
    let steps = statement.query_map(params, |row| row.get::<_, String>(3)).unwrap();
    steps.collect::<Result<Vec<_>, _>>().unwrap().join("; ")
}

#[test]
fn an_index_on_the_filtered_or_sorted_field_is_used() {
    let world = World::new();
    world
        .conn
        .execute_batch(
            "CREATE INDEX by_title ON posts (title); CREATE INDEX by_views ON posts (views);
             CREATE INDEX by_day ON posts (day); CREATE INDEX by_created ON posts (created);
             CREATE INDEX by_author ON posts (author); CREATE INDEX by_post ON comments (post);
             CREATE INDEX by_published ON posts (published)",
        )
        .unwrap();
    for (filter, sort, index) in [
        ("title = 'x'", "", "SEARCH r USING INDEX by_title"),
        ("title > 'x'", "title", "SEARCH r USING INDEX by_title"),
        ("title = ''", "", "INDEX by_title"),
        ("views = 5", "", "SEARCH r USING INDEX by_views"),
        ("views >= 5 && title ~ 'x'", "-views", "SEARCH r USING INDEX by_views"),
        ("views = 0", "", "INDEX by_views"),
        ("published = true", "", "SEARCH r USING INDEX by_published"),
        ("day >= '2022'", "-day", "SEARCH r USING INDEX by_day"),
        ("author = 'u1'", "", "SEARCH r USING INDEX by_author"),
        ("author.id = 'u1'", "", "SEARCH r USING INDEX by_author"),
        ("id = 'p1'", "", "SEARCH r USING INDEX sqlite_autoindex_posts_1"),
        ("id = 'p1' || title = 'x'", "", "MULTI-INDEX OR"),
        ("title ~ 'x'", "-created", "SCAN r USING INDEX by_created"),
        ("title ~ 'x'", "-views,id", "SCAN r USING INDEX by_views"),
        ("comments_via_post.text ?= 'x'", "", "USING INDEX by_post"),
        ("author.name = 'ann'", "", "USING INDEX sqlite_autoindex_users_1"),
    ] {
        let plan = plan(&world, filter, sort);
        assert!(plan.contains(index), "{filter}, {sort}: {plan}");
    }
}
