use anyhow::{Context, Result, ensure};
use e2e::client::{Client, collection, records};
use e2e::{Cluster, Node};
use reqwest::Method;
use serde_json::{Value, json};

fn started(cluster: &Cluster) -> Result<(Node, Client)> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    Ok((master, admin))
}

/// Sends JSON and returns status and body.
fn call(client: &Client, method: Method, path: &str, body: &Value) -> Result<(u16, Value)> {
    let reply = client.send(method, path, Some(body))?;
    let json = if reply.body.is_empty() { Value::Null } else { reply.json()? };
    Ok((reply.status, json))
}

#[test]
fn a_record_lives_through_create_view_update_list_and_delete() -> Result<()> {
    let cluster = Cluster::new()?;
    let (_master, admin) = started(&cluster)?;
    admin.create_collection("posts", &[("title", "text"), ("n", "number"), ("on", "bool"), ("any", "json")])?;
    let made =
        admin.create_record("posts", &json!({"title": "größe", "n": i64::MAX, "on": true, "any": {"a": [1, null]}}))?;
    let id = made["id"].as_str().context("an id")?;
    ensure!(id.len() == 15 && made["collectionName"] == "posts", "{made}");
    ensure!(made["n"] == json!(i64::MAX) && made["any"] == json!({"a": [1, null]}), "{made}");
    ensure!(admin.record("posts", id)? == Some(made.clone()));
    let updated = admin.update_record("posts", id, &json!({"n": -0.5}))?;
    ensure!(updated["title"] == "größe" && updated["n"] == json!(-0.5) && updated["created"] == made["created"]);
    let later = admin.create_record("posts", &json!({}))?;
    ensure!(later["id"].as_str() > Some(id), "ids follow creation");
    ensure!(later["title"] == "" && later["n"] == 0 && later["on"] == false && later["any"].is_null(), "{later}");
    admin.delete_record("posts", id)?;
    ensure!(admin.record("posts", id)?.is_none());
    let (status, gone) = call(&admin, Method::DELETE, &format!("{}/{id}", records("posts")), &Value::Null)?;
    ensure!(status == 404 && gone["error"].as_str().is_some_and(|text| text.contains(id)), "{gone}");
    Ok(())
}

#[test]
fn lists_come_in_pages_with_totals() -> Result<()> {
    let cluster = Cluster::new()?;
    let (_master, admin) = started(&cluster)?;
    admin.create_collection("posts", &[("n", "number")])?;
    for n in 0..7 {
        admin.create_record("posts", &json!({"n": n}))?;
    }
    let page = |query: &str| admin.get(&format!("{}{query}", records("posts")))?.ok()?.json();
    let second = page("?page=2&perPage=3")?;
    let numbers: Vec<_> = second["items"].as_array().context("items")?.iter().map(|item| item["n"].clone()).collect();
    ensure!(numbers == [json!(3), json!(4), json!(5)], "{second}");
    ensure!(second["totalItems"] == 7 && second["totalPages"] == 3 && second["page"] == 2 && second["perPage"] == 3);
    ensure!(page("?page=9&perPage=3")?["items"] == json!([]));
    ensure!(page("?perPage=5000")?["perPage"] == 1000);
    ensure!(page("?skipTotal=1")?["totalItems"] == -1);
    for wrong in ["?page=x", "?filter=n%3E", "?sort=-m"] {
        ensure!(admin.get(&format!("{}{wrong}", records("posts")))?.status == 400, "{wrong}");
    }
    Ok(())
}

#[test]
fn rules_open_a_collection_to_everyone_or_to_admins_only() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = started(&cluster)?;
    let guest = master.client()?;
    let mut open = collection("open", &[("n", "number")]);
    for rule in ["listRule", "viewRule", "createRule", "updateRule", "deleteRule"] {
        open[rule] = json!("");
    }
    call(&admin, Method::POST, "/api/collections", &open)?;
    call(&admin, Method::POST, "/api/collections", &json!({"name": "closed", "fields": []}))?;
    let made = guest.create_record("open", &json!({"n": 1}))?;
    let id = made["id"].as_str().context("an id")?;
    guest.update_record("open", id, &json!({"n": 2}))?;
    guest.delete_record("open", id)?;
    let kept = admin.create_record("closed", &json!({}))?;
    let record = format!("{}/{}", records("closed"), kept["id"].as_str().context("an id")?);
    for (method, path) in [
        (Method::GET, records("closed")),
        (Method::POST, records("closed")),
        (Method::GET, record.clone()),
        (Method::PATCH, record.clone()),
        (Method::DELETE, record),
    ] {
        let (status, answer) = call(&guest, method.clone(), &path, &json!({}))?;
        ensure!(status == 403, "{method} {path}: {status} {answer}");
    }
    let filter = json!({"name": "wrong", "fields": [], "listRule": "n > 1"});
    let (status, answer) = call(&admin, Method::POST, "/api/collections", &filter)?;
    ensure!(status == 400 && answer["data"]["listRule"]["message"].is_string(), "{answer}");
    Ok(())
}

#[test]
fn a_schema_only_grows_and_a_hidden_field_comes_back_with_its_values() -> Result<()> {
    let cluster = Cluster::new()?;
    let (_master, admin) = started(&cluster)?;
    admin.create_collection("posts", &[("a", "text"), ("b", "number")])?;
    let id = admin.create_record("posts", &json!({"a": "x", "b": 7}))?["id"].as_str().context("an id")?.to_owned();
    let fields = |list: Value| admin.update_collection("posts", &json!({"fields": list}));
    let (a, b, c) = (
        json!({"name": "a", "type": "text"}),
        json!({"name": "b", "type": "number"}),
        json!({"name": "c", "type": "bool"}),
    );
    fields(json!([a, c]))?;
    let without = admin.record("posts", &id)?.context("the record")?;
    ensure!(without.get("b").is_none() && without["c"] == false, "{without}");
    fields(json!([a, b, c]))?;
    ensure!(admin.record("posts", &id)?.context("the record")?["b"] == 7);
    for wrong in [
        json!({"fields": [{"name": "a", "type": "number"}]}),
        json!({"name": "renamed"}),
        json!({"fields": [{"name": "id", "type": "text"}]}),
        json!({"fields": [a, a]}),
        json!({"fields": [{"name": "x y", "type": "text"}]}),
        json!({"fields": [{"name": "x", "type": "unknown"}]}),
        json!({"fields": "none"}),
        json!({"colour": "red"}),
    ] {
        let (status, answer) = call(&admin, Method::PATCH, "/api/collections/posts", &wrong)?;
        ensure!(status == 400 && !answer["data"].as_object().context("data")?.is_empty(), "{wrong}: {answer}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_a_collection_a_database_or_a_record_is_refused_with_the_reason() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = started(&cluster)?;
    admin.create_collection("posts", &[("n", "number")])?;
    for name in ["", "1a", "a b", "a;b", "_vski_log", "_collections", "sqlite_x", "Posts", "ä", &"a".repeat(64)] {
        let (status, answer) = call(&admin, Method::POST, "/api/collections", &json!({"name": name}))?;
        ensure!(status == 400 && answer["data"]["name"].is_object(), "{name:?}: {answer}");
    }
    for name in ["", "..", "a/b", "default", "Default", "stats", "workflows", "_vski"] {
        let (status, answer) = call(&admin, Method::POST, "/api/databases", &json!({"name": name}))?;
        ensure!(status == 400 && answer["data"]["name"].is_object(), "{name:?}: {answer}");
    }
    for body in [
        json!({"n": "x"}),
        json!({"n": [1]}),
        json!({"m": 1}),
        json!({"id": "short"}),
        json!({"id": 7}),
        json!([1]),
        json!(null),
    ] {
        let (status, answer) = call(&admin, Method::POST, &records("posts"), &body)?;
        ensure!(status == 400 && answer["error"] == answer["message"] && answer["code"] == 400, "{body}: {answer}");
    }
    let id = "aaaaaaaaaaaaaaa";
    admin.create_record("posts", &json!({"id": id}))?;
    let (status, answer) = call(&admin, Method::POST, &records("posts"), &json!({"id": id}))?;
    ensure!(status == 400 && answer["data"]["id"]["code"] == "validation_not_unique", "{answer}");
    ensure!(admin.with_db("nowhere").get(&records("posts"))?.status == 404);
    ensure!(admin.with_db("../default").get(&records("posts"))?.status == 404);
    ensure!(admin.get("/api/collections/nowhere/records")?.status == 404);
    ensure!(master.client()?.get("/api/collections")?.status == 401);
    Ok(())
}

#[test]
fn odd_requests_get_an_answer_in_our_envelope_and_never_reach_another_database() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = started(&cluster)?;
    admin.create_collection("posts", &[("n", "number"), ("j", "json")])?;
    for (path, status) in [
        ("/api/collections/%ff/records", 400),
        ("/api/collections/posts/records?page=x", 400),
        ("/api/collections/posts/records?db=a&db=b", 400),
        ("/nowhere", 404),
    ] {
        let reply = admin.get(path)?;
        ensure!(
            reply.status == status && reply.json()?["error"].is_string(),
            "{path}: {} {}",
            reply.status,
            reply.body
        );
    }
    let private = json!({"j": {"a": {"$serde_json::private::RawValue": "[1,2]"}}});
    ensure!(call(&admin, Method::POST, &records("posts"), &private)?.0 == 400);
    let replica = admin.with_token(&e2e::client::replica_token("e2e"));
    ensure!(replica.get("/api/replica/schema-sync?db=default&version=99999")?.status == 404);
    ensure!(replica.get("/api/replica/schema-sync?db=default&version=1")?.json()?["schemaVersion"] == 1);
    let nowhere = json!({"db": "default", "position": format!("1-0011223344556677:999:{}", "0".repeat(64))});
    ensure!(call(&replica, Method::POST, "/api/replica/session", &nowhere)?.0 == 409);

    // A header whose bytes are no ASCII names no database.
    let address = master.server.url().replace("http://", "");
    let mut connection = std::net::TcpStream::connect(&address)?;
    let head = "GET /api/collections/posts/records HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-dbname: kund";
    std::io::Write::write_all(&mut connection, &[head.as_bytes(), b"\xc3\xa9\r\n\r\n"].concat())?;
    let answer = std::io::read_to_string(connection)?;
    ensure!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    Ok(())
}

#[test]
fn each_database_has_its_own_catalogue() -> Result<()> {
    let cluster = Cluster::new()?;
    let (_master, admin) = started(&cluster)?;
    admin.create_database("shop")?;
    let shop = admin.with_db("shop");
    admin.create_collection("posts", &[("a", "text")])?;
    shop.create_collection("posts", &[("b", "number")])?;
    shop.create_record("posts", &json!({"b": 1}))?;
    ensure!(admin.count("posts")? == 0 && shop.count("posts")? == 1);
    ensure!(admin.get(&format!("{}?db=shop", records("posts")))?.ok()?.json()?["totalItems"] == 1);
    let names = admin.get("/api/databases")?.ok()?.json()?;
    ensure!(names["items"] == json!([{"name": "default"}, {"name": "shop"}]), "{names}");
    Ok(())
}

#[test]
fn a_login_works_at_both_paths_on_every_node_and_ends_with_a_new_password() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = started(&cluster)?;
    let mut replica = cluster.embedded("replica", &master)?;
    replica.start()?;
    replica.wait_ready()?;
    let (email, password) = e2e::cluster::ADMIN;
    for node in [&master, &replica] {
        let client = node.client()?;
        for path in ["/api/admins/auth-with-password", "/api/collections/_superusers/auth-with-password"] {
            for body in
                [json!({"identity": email, "password": password}), json!({"email": email, "password": password})]
            {
                let (status, answer) = call(&client, Method::POST, path, &body)?;
                ensure!(
                    status == 200 && answer["token"].is_string() && answer["admin"] == answer["record"],
                    "{answer}"
                );
                ensure!(answer["admin"]["email"] == email && !answer.to_string().contains("argon2"), "{answer}");
            }
            let wrong = json!({"identity": email, "password": "wrong password"});
            ensure!(call(&client, Method::POST, path, &wrong)?.0 == 400);
        }
        let bearer = client.with_token(&replica.admin()?.token().context("a token")?);
        ensure!(bearer.get("/api/collections")?.status == 200);
        ensure!(call(&bearer, Method::POST, "/api/admins/auth-refresh", &Value::Null)?.0 == 200);
    }
    call(&admin, Method::POST, "/api/admins", &json!({"email": email, "password": "another password"}))?;
    ensure!(admin.get("/api/collections")?.status == 403, "older tokens have ended");
    master.client()?.login(email, "another password")?;
    Ok(())
}

#[test]
fn every_response_names_its_node_and_browsers_may_read_that() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = started(&cluster)?;
    let mut replica = cluster.embedded("replica", &master)?.env("REPLICA_ID", "r001");
    replica.start()?;
    replica.wait_ready()?;
    let client = replica.client()?;
    for (method, path, status) in [
        (Method::GET, "/health", 200),
        (Method::HEAD, "/health", 200),
        (Method::GET, "/nowhere", 404),
        (Method::DELETE, "/nowhere", 403),
        (Method::PUT, "/health", 403),
        (Method::OPTIONS, "/api/collections/posts/records", 200),
        (Method::GET, "/api/replica/status", 401),
    ] {
        let reply = client.send(method.clone(), path, None)?;
        ensure!(reply.status == status, "{method} {path}: {}", reply.status);
        let master_url = reply.header("x-master-url").context("X-Master-Url")?;
        ensure!(reply.header("x-replica-mode") == Some("replica") && reply.header("x-replica-id") == Some("r001"));
        ensure!(master_url == master.server.url(), "{master_url}");
        let exposed = reply.header("access-control-expose-headers").unwrap_or_default();
        ensure!(method == Method::OPTIONS || exposed.contains("x-vski-position"), "{method} {path}: {exposed}");
    }
    let refused = client.send(Method::POST, "/api/collections/posts/records", Some(&json!({"title": "New Post"})))?;
    ensure!(refused.body == r#"{"error": "replica is read-only", "code": 403}"#, "{}", refused.body);
    let reply = admin.get("/health")?;
    ensure!(reply.header("x-replica-mode") == Some("master") && reply.header("x-master-url").is_none());
    Ok(())
}
