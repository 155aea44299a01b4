//! Lists, filters, expansion, chosen fields and rules, through HTTP, on a master and its replica.

/// What rules make of a body.
mod bodies;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, records};
use e2e::{Cluster, Node, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// The first countries and cities of the example data; a city names its country.
const COUNTRIES: &str = include_str!("../../../examples/data/countries.ndjson");
const CITIES: &str = include_str!("../../../examples/data/cities.ndjson");

/// How many cities: enough for pages, few enough for a test.
const CITY_COUNT: usize = 300;

fn send(client: &Client, method: Method, path: &str, body: &Value) -> Result<(u16, Value)> {
    let reply = client.send(method, path, Some(body))?;
    let json = if reply.body.is_empty() { Value::Null } else { reply.json()? };
    Ok((reply.status, json))
}

fn make(admin: &Client, collection: &Value) -> Result<String> {
    let (status, made) = send(admin, Method::POST, "/api/collections", collection)?;
    ensure!(status == 200, "{collection}: {made}");
    Ok(made["id"].as_str().context("an id")?.to_owned())
}

/// A list's answer; parameters are percent-encoded here.
fn list(client: &Client, collection: &str, params: &[(&str, &str)]) -> Result<Value> {
    let (status, answer) = list_any(client, collection, params)?;
    ensure!(status == 200, "{params:?}: {answer}");
    Ok(answer)
}

fn list_any(client: &Client, collection: &str, params: &[(&str, &str)]) -> Result<(u16, Value)> {
    let reply = client.get(&format!("{}?{}", records(collection), encode(params)))?;
    Ok((reply.status, reply.json()?))
}

fn encode(params: &[(&str, &str)]) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    let pair = |(name, value): &(&str, &str)| format!("{name}={}", value.bytes().map(byte).collect::<String>());
    params.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// The values of one field of a list's items.
fn values(answer: &Value, field: &str) -> Vec<String> {
    let text = |item: &Value| item[field].as_str().map_or_else(|| item[field].to_string(), str::to_owned);
    answer["items"].as_array().into_iter().flatten().map(text).collect()
}

/// A country's record id, made of its code.
fn country_id(iso: &str) -> String {
    format!("country{:0>8}", iso.to_lowercase())
}

/// Imports the example data as two collections with a relation.
fn fill(admin: &Client) -> Result<()> {
    let field = |name: &str, kind: &str| json!({"name": name, "type": kind});
    let countries = make(
        admin,
        &json!({
            "name": "countries", "listRule": "", "viewRule": "",
            "fields": [field("iso", "text"), field("name", "text"), field("continent", "text"), field("population", "number")],
            "indexes": ["CREATE UNIQUE INDEX countries_iso ON countries (iso)"],
        }),
    )?;
    let country = json!({"name": "country", "type": "relation", "collectionId": countries, "maxSelect": 1});
    make(
        admin,
        &json!({
            "name": "cities", "listRule": "", "viewRule": "",
            "fields": [field("name", "text"), country, field("population", "number"), field("timezone", "text")],
            "indexes": ["CREATE INDEX cities_country ON cities (country)"],
        }),
    )?;
    let lines = |text: &str, most: usize, change: fn(&Value) -> Value| -> Result<String> {
        let parsed = text.lines().take(most).map(serde_json::from_str::<Value>);
        parsed.map(|line| Ok(change(&line?).to_string() + "\n")).collect()
    };
    let countries = lines(COUNTRIES, usize::MAX, |line| {
        let id = country_id(line["iso"].as_str().unwrap_or_default());
        let (iso, name, continent) = (&line["iso"], &line["name"], &line["continent"]);
        json!({"id": id, "iso": iso, "name": name, "continent": continent, "population": line["population"]})
    })?;
    let cities = lines(CITIES, CITY_COUNT, |line| {
        let country = country_id(line["country"].as_str().unwrap_or_default());
        json!({"name": line["name"], "country": country, "population": line["population"], "timezone": line["timezone"]})
    })?;
    for (name, text) in [("countries", countries), ("cities", cities)] {
        let reply = admin.send_text(Method::POST, &format!("/api/collections/{name}/import"), &text)?;
        ensure!(reply.status == 200, "{name}: {}", reply.body);
    }
    Ok(())
}

/// A master with the example data, and a replica that has all of it.
fn filled(cluster: &Cluster) -> Result<(Node, Node, Client)> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    fill(&admin)?;
    let mut replica = cluster.embedded("replica", &master)?.env("SYNC_MODE", "stream");
    replica.start()?;
    replica.wait_ready()?;
    let there = replica.client()?;
    eventually("the replica has the cities", Duration::from_secs(30), || {
        let Ok((200, answer)) = list_any(&there, "cities", &[("perPage", "1")]) else { return Ok(false) };
        Ok(answer["totalItems"] == CITY_COUNT)
    })?;
    Ok((master, replica, admin))
}

#[test]
fn countries_and_cities_are_listed_filtered_sorted_and_expanded_alike_on_master_and_replica() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica, _admin) = filled(&cluster)?;
    let (here, there) = (master.client()?, replica.client()?);
    let wanted: Vec<Value> = CITIES.lines().take(CITY_COUNT).map(serde_json::from_str).collect::<Result<_, _>>()?;
    let large = wanted.iter().filter(|city| city["population"].as_i64() > Some(100_000)).count();
    for client in [&here, &there] {
        let answer = list(
            client,
            "cities",
            &[("filter", "population > 100000"), ("sort", "-population"), ("expand", "country"), ("perPage", "5")],
        )?;
        ensure!(answer["totalItems"] == large, "{answer}");
        let numbers: Vec<i64> = values(&answer, "population").iter().filter_map(|n| n.parse().ok()).collect();
        ensure!(numbers.len() == 5 && numbers.is_sorted_by(|a, b| a >= b), "{numbers:?}");
        let first = &answer["items"][0];
        ensure!(first["expand"]["country"]["id"] == first["country"], "{first}");

        let iso = wanted[0]["country"].as_str().context("a country")?;
        let filter = format!("country.iso = '{iso}' && population >= 0");
        let answer = list(
            client,
            "cities",
            &[("filter", &filter), ("fields", "name,expand.country.iso"), ("expand", "country"), ("perPage", "1000")],
        )?;
        let count = wanted.iter().filter(|city| city["country"] == iso).count();
        ensure!(answer["items"].as_array().map(Vec::len) == Some(count), "{answer}");
        ensure!(
            answer["items"][0] == json!({"name": answer["items"][0]["name"], "expand": {"country": {"iso": iso}}}),
            "{answer}"
        );

        let country = client.get(&format!(
            "{}/{}?expand=cities_via_country&fields=iso,expand.cities_via_country.name",
            records("countries"),
            country_id(iso)
        ))?;
        let country = country.ok()?.json()?;
        ensure!(country["expand"]["cities_via_country"].as_array().map(Vec::len) == Some(count), "{country}");
        let answer = list(
            client,
            "countries",
            &[(
                "filter",
                &format!(
                    "cities_via_country.name ?= '{}'",
                    wanted[0]["name"].as_str().unwrap_or_default().replace('\'', "\\'")
                ),
            )],
        )?;
        ensure!(values(&answer, "iso").contains(&iso.to_owned()), "{answer}");
    }
    let all = |client: &Client| {
        list(client, "cities", &[("sort", "timezone,-population"), ("perPage", "1000"), ("expand", "country")])
    };
    ensure!(all(&here)? == all(&there)?);
    Ok(())
}

#[test]
fn pages_of_a_sorted_list_neither_overlap_nor_leave_anything_out() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("n", "number")])?;
    for n in 0..20 {
        admin.create_record("posts", &json!({"n": n % 3}))?;
    }
    let mut seen = Vec::new();
    for page in 1..=4 {
        let answer = list(&admin, "posts", &[("sort", "-n"), ("perPage", "6"), ("page", &page.to_string())])?;
        seen.extend(values(&answer, "id"));
    }
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    ensure!(count == 20 && seen.len() == 20, "{seen:?}");
    let answer = list(&admin, "posts", &[("filter", "n = 1"), ("skipTotal", "true"), ("perPage", "2")])?;
    ensure!(answer["totalItems"] == -1 && answer["totalPages"] == -1 && values(&answer, "n") == ["1", "1"], "{answer}");
    Ok(())
}

#[test]
fn what_cannot_be_asked_is_refused_with_the_place() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text"), ("n", "number")])?;
    for (param, value, part) in [
        ("filter", "n >", "filter, column 4"),
        ("filter", "n = 1 && nothing = 2", "filter, column 10"),
        ("filter", "n = 'x'", "filter, column 5"),
        ("filter", "title = '", "no closing"),
        ("filter", "1=1; DROP TABLE posts", "filter, column 4"),
        ("sort", "-nothing", "sort, column 2"),
        ("sort", "title desc", "sort, column 1"),
        ("expand", "nothing", "no relation"),
        ("expand", "a.b.c.d.e.f.g", "at most 6"),
        ("fields", "title:upper", ":excerpt"),
    ] {
        let (status, answer) = list_any(&admin, "posts", &[(param, value)])?;
        let message = answer["message"].as_str().unwrap_or_default();
        ensure!(status == 400 && message.contains(part), "{param}={value}: {status} {answer}");
    }
    ensure!(admin.count("posts")? == 0, "the table is still there");
    let (status, answer) = send(&admin, Method::PATCH, "/api/collections/posts", &json!({"listRule": "nothing = 1"}))?;
    ensure!(status == 400 && answer["data"]["listRule"]["message"].is_string(), "{answer}");
    Ok(())
}

#[test]
fn rules_show_hide_and_refuse_as_pocketbase_documents() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let (admin, guest) = (master.admin()?, master.client()?);
    make(
        &admin,
        &json!({
            "name": "posts",
            "fields": [{"name": "title", "type": "text"}, {"name": "open", "type": "bool"}],
            "listRule": "open = true", "viewRule": "open = true || @request.query.key = 'k'",
            "createRule": "open = true && @request.body.title != 'bad'",
            "updateRule": "open = true && @request.body.title:changed = false", "deleteRule": "title = 'old'",
        }),
    )?;
    let open = admin.create_record("posts", &json!({"title": "seen", "open": true}))?;
    let closed = admin.create_record("posts", &json!({"title": "unseen"}))?;
    let path = |record: &Value| format!("{}/{}", records("posts"), record["id"].as_str().unwrap_or_default());
    ensure!(values(&list(&guest, "posts", &[])?, "title") == ["seen"]);
    ensure!(list(&guest, "posts", &[("filter", "title = 'unseen' || 1 = 1")])?["totalItems"] == 1);
    ensure!(list(&admin, "posts", &[])?["totalItems"] == 2);
    ensure!(guest.get(&path(&open))?.status == 200 && guest.get(&path(&closed))?.status == 404);
    ensure!(guest.get(&format!("{}?key=k", path(&closed)))?.status == 200);

    let create = |body: Value| send(&guest, Method::POST, &records("posts"), &body);
    ensure!(create(json!({"title": "x", "open": true}))?.0 == 200);
    ensure!(create(json!({"title": "x"}))?.0 == 400);
    ensure!(create(json!({"title": "bad", "open": true}))?.0 == 400);
    ensure!(admin.count("posts")? == 3, "a refused record is not there");

    let update = |record: &Value, body: Value| send(&guest, Method::PATCH, &path(record), &body);
    let (status, answer) = update(&open, json!({"open": false, "title": "seen"}))?;
    ensure!(status == 200 && answer["open"] == false, "judged by what it was: {answer}");
    ensure!(update(&open, json!({"open": true}))?.0 == 404);
    admin.update_record("posts", open["id"].as_str().context("id")?, &json!({"open": true}))?;
    ensure!(update(&open, json!({"title": "other"}))?.0 == 404);
    ensure!(send(&guest, Method::DELETE, &path(&open), &Value::Null)?.0 == 404);
    admin.update_record("posts", open["id"].as_str().context("id")?, &json!({"title": "old"}))?;
    ensure!(send(&guest, Method::DELETE, &path(&open), &Value::Null)?.0 == 204);
    Ok(())
}

#[test]
fn expanded_records_obey_the_rules_of_their_own_collection_at_every_level() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let (admin, guest) = (master.admin()?, master.client()?);
    let named = json!({"name": "name", "type": "text"});
    let teams = make(&admin, &json!({"name": "teams", "fields": [named], "viewRule": "name != 'secret'"}))?;
    let relation = |name: &str, to: &str, most: u64| json!({"name": name, "type": "relation", "collectionId": to, "maxSelect": most});
    let people = make(
        &admin,
        &json!({"name": "people", "fields": [named, relation("team", &teams, 1)], "viewRule": "", "listRule": ""}),
    )?;
    let fields = json!([named, relation("author", &people, 1), relation("editors", &people, 9)]);
    make(&admin, &json!({"name": "posts", "fields": fields, "viewRule": "", "listRule": "", "createRule": ""}))?;
    let id = |record: Value| record["id"].as_str().unwrap_or_default().to_owned();
    let team = |name: &str| admin.create_record("teams", &json!({"name": name})).map(id);
    let (red, secret) = (team("red")?, team("secret")?);
    let person = |name: &str, team: &str| admin.create_record("people", &json!({"name": name, "team": team})).map(id);
    let (ann, bob) = (person("ann", &red)?, person("bob", &secret)?);
    let post = json!({"name": "p", "author": ann, "editors": [bob, ann]});
    let (status, made) = send(
        &guest,
        Method::POST,
        &format!("{}?expand=author&fields=name,expand.author.name", records("posts")),
        &post,
    )?;
    ensure!(status == 200 && made == json!({"name": "p", "expand": {"author": {"name": "ann"}}}), "{made}");

    let (status, refused) = send(&guest, Method::POST, &format!("{}?expand=nobody", records("posts")), &post)?;
    ensure!(status == 400 && admin.count("posts")? == 1, "nothing is written: {refused}");

    let expand = [("expand", "author.team,editors.team,editors.posts_via_author")];
    let as_guest = list(&guest, "posts", &expand)?["items"][0]["expand"].clone();
    ensure!(as_guest["author"]["expand"]["team"]["name"] == "red", "{as_guest}");
    let editors = values(&json!({"items": as_guest["editors"]}), "name");
    ensure!(editors == ["bob", "ann"], "in the order of the field: {as_guest}");
    ensure!(as_guest["editors"][0]["expand"] == json!({}), "a hidden team: {as_guest}");
    ensure!(as_guest["editors"][1]["expand"]["posts_via_author"][0]["name"] == "p", "{as_guest}");
    let as_admin = list(&admin, "posts", &expand)?["items"][0]["expand"].clone();
    ensure!(as_admin["editors"][0]["expand"]["team"]["name"] == "secret", "{as_admin}");
    ensure!(list(&guest, "posts", &[("filter", "editors.team.name ?= 'secret'")])?["totalItems"] == 0);
    ensure!(list(&admin, "posts", &[("filter", "editors.team.name ?= 'secret'")])?["totalItems"] == 1);
    Ok(())
}

#[test]
fn a_view_is_listed_filtered_sorted_and_expanded_like_any_collection() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let (admin, guest) = (master.admin()?, master.client()?);
    fill(&admin)?;
    let query =
        "SELECT country AS id, country, count(*) AS cities, max(population) AS largest FROM cities GROUP BY country";
    make(
        &admin,
        &json!({"name": "sizes", "type": "view", "viewQuery": query, "listRule": "cities > 1", "viewRule": ""}),
    )?;
    let answer = list(&guest, "sizes", &[("sort", "-cities"), ("expand", "country"), ("perPage", "3")])?;
    let counts: Vec<i64> = values(&answer, "cities").iter().filter_map(|n| n.parse().ok()).collect();
    ensure!(counts.len() == 3 && counts.is_sorted_by(|a, b| a >= b) && counts[2] > 1, "{answer}");
    let first = &answer["items"][0];
    let id = first["id"].as_str().context("an id")?;
    let one = guest.get(&format!("{}/{id}?fields=cities", records("sizes")))?.ok()?.json()?;
    ensure!(one == json!({"cities": first["cities"]}), "{one}");
    let answer = list(&guest, "sizes", &[("filter", &format!("id = '{id}'"))])?;
    ensure!(answer["totalItems"] == 1, "{answer}");
    Ok(())
}
