//! What PocketBase's JavaScript client (0.26) puts on the wire for its calls, by its REST documentation and its source;
//! and the calls of the specification's SDK sample. Node is not needed.

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::cluster::{ADMIN, assert_quiet};
use e2e::{Cluster, Node};
use reqwest::Method;
use serde_json::{Value, json};

use super::pair;

/// A client as JavaScript's: the token as it is, without `Bearer`, and a language.
pub(super) struct Script {
    pub(super) client: Client,
}

impl Script {
    pub(super) fn new(node: &Node) -> Result<Self> {
        let client = node.client()?.with_header("accept-language", "en-US")?;
        Ok(Self { client: client.with_header("content-type", "application/json")? })
    }

    pub(super) fn with_token(&self, token: &str) -> Result<Self> {
        Ok(Self { client: self.client.with_header("authorization", token)? })
    }

    /// A call with a body of JSON, or with none, and its answer: JSON, or null if it is empty.
    pub(super) fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let text = body.map(Value::to_string).unwrap_or_default();
        let reply = self.client.send_text(method, path, &text)?;
        let json = if reply.body.is_empty() { Value::Null } else { reply.json()? };
        Ok((reply.status, json))
    }

    pub(super) fn done(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) = self.send(method.clone(), path, body)?;
        ensure!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        Ok(answer)
    }

    pub(super) fn login(&self, collection: &str, identity: &str, password: &str) -> Result<Self> {
        let body = json!({"identity": identity, "password": password});
        let path = format!("/api/collections/{collection}/auth-with-password");
        let answer = self.done(Method::POST, &path, Some(&body))?;
        ensure!(answer["record"]["collectionName"] == collection, "{answer}");
        self.with_token(answer["token"].as_str().context("a token")?)
    }
}

/// As `encodeURIComponent` does.
pub(super) fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

pub(super) fn admin(node: &Node) -> Result<Script> {
    Script::new(node)?.login("_superusers", ADMIN.0, ADMIN.1)
}

/// Authors, their posts, and who may log in.
fn make_collections(admin: &Script) -> Result<()> {
    let make = |body: Value| admin.done(Method::POST, "/api/collections", Some(&body));
    let rule = "@request.auth.id != ''";
    let authors = make(json!({
        "name": "authors", "type": "auth", "listRule": "", "viewRule": "", "createRule": "", "updateRule": "id = @request.auth.id",
        "fields": [{"name": "name", "type": "text"}],
    }))?;
    let author = json!({"name": "author", "type": "relation", "collectionId": authors["id"], "maxSelect": 1});
    make(json!({
        "name": "posts", "type": "base", "listRule": "", "viewRule": "", "createRule": rule, "updateRule": rule, "deleteRule": rule,
        "fields": [{"name": "title", "type": "text", "required": true}, {"name": "body", "type": "editor"}, author,
            {"name": "tags", "type": "select", "values": ["a", "b", "c"], "maxSelect": 3}, {"name": "meta", "type": "json"}],
    }))?;
    Ok(())
}

#[test]
fn what_the_javascript_client_sends_is_understood_by_master_and_replica() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica) = pair(&cluster)?;
    let admin = admin(&master)?;
    make_collections(&admin)?;
    let guest = Script::new(&master)?;
    let ann = json!({"email": "ann@example.com", "password": "ann-password", "passwordConfirm": "ann-password", "name": "Ann"});
    let ann_id = guest.done(Method::POST, "/api/collections/authors/records", Some(&ann))?["id"].clone();
    let ann = guest.login("authors", "ann@example.com", "ann-password")?;

    // create(), update() and delete(), with options that became parameters.
    let path = format!("/api/collections/posts/records?expand=author&fields={}", encode("*,expand.author.name"));
    for title in ["First", "It's \"second\"", "Third & last"] {
        let body = json!({"title": title, "body": "<p>Some <b>text</b> that is long</p>", "author": ann_id, "tags": ["a", "b"], "meta": {"x": [1, null]}});
        let made = ann.done(Method::POST, &path, Some(&body))?;
        ensure!(
            made["expand"] == json!({"author": {"name": "Ann"}}) && made["meta"] == json!({"x": [1, null]}),
            "{made}"
        );
    }
    let spare = ann.done(Method::POST, "/api/collections/posts/records", Some(&json!({"title": "Spare"})))?;
    let spare = format!("/api/collections/posts/records/{}", spare["id"].as_str().context("an id")?);
    let changed = ann.done(Method::PATCH, &spare, Some(&json!({"tags+": "c", "title": "Changed"})))?;
    ensure!(changed["tags"] == json!(["c"]) && changed["title"] == "Changed", "{changed}");
    ensure!(ann.send(Method::DELETE, &spare, None)? == (204, Value::Null), "a delete answers nothing");
    let (status, refusal) = ann.send(Method::POST, "/api/collections/posts/records", Some(&json!({})))?;
    ensure!(status == 400 && refusal["data"]["title"]["code"] == "validation_required", "{refusal}");
    ensure!(refusal["status"] == 400 && refusal["message"].is_string(), "{refusal}");

    // authRefresh() sends no body; listAuthMethods() asks for some keys; impersonate() is an admin's.
    let refreshed = ann.done(Method::POST, "/api/collections/authors/auth-refresh", None)?;
    ensure!(refreshed["record"]["id"] == ann_id && refreshed["token"].is_string(), "{refreshed}");
    let methods = format!("/api/collections/authors/auth-methods?fields={}", encode("mfa,otp,password,oauth2"));
    let methods = guest.done(Method::GET, &methods, None)?;
    ensure!(methods["password"]["enabled"] == true && methods["oauth2"]["providers"] == json!([]), "{methods}");
    ensure!(methods.as_object().is_some_and(|keys| keys.len() == 4), "{methods}");
    let path = format!("/api/collections/authors/impersonate/{}", ann_id.as_str().context("an id")?);
    let borrowed = admin.done(Method::POST, &path, Some(&json!({"duration": 60})))?;
    let borrowed = guest.with_token(borrowed["token"].as_str().context("a token")?)?;
    borrowed.done(Method::POST, "/api/collections/posts/records", Some(&json!({"title": "Borrowed"})))?;

    let replica = Script { client: there(&ann, &replica, &master)? };
    for node in [&ann, &replica] {
        a_scripts_reads(node)?;
    }
    collection_calls(&admin)?;
    assert_quiet(&[&master], &[])
}

/// The replica's client, which waits for what was written.
fn there(ann: &Script, replica: &Node, master: &Node) -> Result<Client> {
    let marker =
        ann.client.send_text(Method::POST, "/api/collections/posts/records", r#"{"title": "Marker"}"#)?.ok()?;
    let token = master.client()?.send(
        Method::POST,
        "/api/collections/authors/auth-with-password",
        Some(&json!({"identity": "ann@example.com", "password": "ann-password"})),
    )?;
    let token = token.ok()?.json()?["token"].as_str().context("a token")?.to_owned();
    let there = Script::new(replica)?.with_token(&token)?;
    Ok(there.client.with_min_position(marker.position()?))
}

fn a_scripts_reads(node: &Script) -> Result<()> {
    let posts = "/api/collections/posts/records";
    // getFullList(): until a page is not full.
    let page =
        |at: u32| node.done(Method::GET, &format!("{posts}?page={at}&perPage=3&skipTotal=1&sort=-created"), None);
    let (first, second) = (page(1)?, page(2)?);
    ensure!(first["totalItems"] == -1 && first["items"].as_array().map(Vec::len) == Some(3), "{first}");
    ensure!(second["items"].as_array().map(Vec::len) == Some(2) && second["perPage"] == 3, "{second}");
    // getFirstListItem(pb.filter("title = {:title}", {title: "It's \"second\""})), a date as pb.filter() writes it.
    let filter = "title = 'It\\'s \"second\"' && created > '2022-01-01 00:00:00.000Z' && author.name ~ 'an'";
    let path = format!("{posts}?page=1&perPage=1&filter={}&skipTotal=1", encode(filter));
    let found = node.done(Method::GET, &path, None)?;
    ensure!(found["items"][0]["title"] == "It's \"second\"", "{found}");
    // getList(1, 50, {...}) with a parameter of the caller's own; getOne().
    let fields = encode("id,title,body:excerpt(9,true),expand.author.name");
    let path =
        format!("{posts}?page=1&perPage=50&filter={}&expand=author&fields={fields}&own=x", encode("tags ?= 'a'"));
    let listed = node.done(Method::GET, &path, None)?;
    let item = &listed["items"][0];
    ensure!(item["body"] == "Some text..." && item["expand"]["author"]["name"] == "Ann", "{listed}");
    ensure!(listed["totalItems"] == 3 && listed["totalPages"] == 1, "{listed}");
    let one =
        node.done(Method::GET, &format!("{posts}/{}?expand=author", item["id"].as_str().context("an id")?), None)?;
    ensure!(one["expand"]["author"]["name"] == "Ann" && one["collectionName"] == "posts", "{one}");
    let health = node.done(Method::GET, "/api/health", None)?;
    ensure!(health["code"] == 200 && health["message"].is_string() && health["data"].is_object(), "{health}");
    Ok(())
}

/// `pb.collections`: list, view, change, import, truncate, delete.
fn collection_calls(admin: &Script) -> Result<()> {
    let listed = admin.done(Method::GET, "/api/collections?page=1&perPage=500&skipTotal=1&sort=name", None)?;
    let exported: Vec<Value> = listed["items"].as_array().context("items")?.clone();
    ensure!(exported.iter().any(|collection| collection["name"] == "posts"), "{listed}");
    let body = json!({"collections": exported, "deleteMissing": false});
    ensure!(admin.send(Method::PUT, "/api/collections/import", Some(&body))?.0 == 204, "an import answers nothing");
    let one = admin.done(Method::GET, "/api/collections/posts?fields=name,fields.name", None)?;
    let field = one["fields"][0].as_object().context("a field")?;
    ensure!(one["name"] == "posts" && field.keys().eq(["name"]) && one["id"].is_null(), "{one}");
    admin.done(Method::PATCH, "/api/collections/posts", Some(&json!({"listRule": null})))?;
    ensure!(admin.send(Method::DELETE, "/api/collections/posts/truncate", None)?.0 == 204);
    let left = admin.done(Method::GET, "/api/collections/posts/records", None)?;
    ensure!(left["totalItems"] == 0, "{left}");
    ensure!(admin.send(Method::DELETE, "/api/collections/posts", None)?.0 == 204);
    ensure!(admin.send(Method::GET, "/api/collections/posts", None)?.0 == 404);
    Ok(())
}

/// As a browser's FormData is sent: name, file name if it is a file, content.
fn send_form(
    script: &Script,
    method: Method,
    path: &str,
    parts: &[(&str, Option<&str>, &str)],
) -> Result<(u16, Value)> {
    let boundary = "----WebKitFormBoundary7MA4YWxkTrZu0gW";
    let part = |(name, file, content): &(&str, Option<&str>, &str)| {
        let file = file.map(|file| format!("; filename=\"{file}\"\r\nContent-Type: text/plain")).unwrap_or_default();
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{content}\r\n")
    };
    let body = parts.iter().map(part).collect::<String>() + &format!("--{boundary}--\r\n");
    let kind = format!("multipart/form-data; boundary={boundary}");
    let reply = script.client.with_header("content-type", &kind)?.send_text(method, path, &body)?;
    Ok((reply.status, reply.json()?))
}

#[test]
fn forms_files_and_batches_of_the_javascript_client_are_understood() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = admin(&master)?;
    let files = json!({"name": "files", "type": "file", "maxSelect": 5});
    let posts = json!({
        "name": "posts", "type": "base", "listRule": "", "viewRule": "", "createRule": "",
        "fields": [{"name": "title", "type": "text", "required": true}, {"name": "count", "type": "number"}, {"name": "open", "type": "bool"},
            {"name": "tags", "type": "select", "values": ["a", "b"], "maxSelect": 2}, files],
    });
    admin.done(Method::POST, "/api/collections", Some(&posts))?;
    let records = "/api/collections/posts/records";

    // create({title, count, open, tags: [...], files: [File, File]}): what is no file and no text goes as @jsonPayload.
    let form = [
        ("title", None, "With files"),
        ("count", None, "7"),
        ("open", None, "true"),
        ("@jsonPayload", None, r#"{"tags":["a","b"]}"#),
        ("files", Some("first.txt"), "one"),
        ("files", Some("second.txt"), "two"),
    ];
    let (status, made) = send_form(&Script::new(&master)?, Method::POST, records, &form)?;
    ensure!(status == 200 && made["count"] == 7 && made["open"] == true && made["tags"] == json!(["a", "b"]), "{made}");
    let names = made["files"].as_array().context("files")?.clone();
    ensure!(names.len() == 2, "{made}");
    let (id, first) = (made["id"].as_str().context("an id")?, names[0].as_str().context("a name")?);
    // pb.files.getURL(), with a thumbnail, which is the whole file here, and as a download.
    for parameters in ["", "?thumb=100x100", "?download=1"] {
        let file = master
            .client()?
            .get(&format!("/api/files/{}/{id}/{first}{parameters}", made["collectionId"].as_str().context("an id")?))?;
        ensure!(file.status == 200 && file.body == "one", "{parameters}: {file:?}");
    }
    ensure!(admin.done(Method::POST, "/api/files/token", None)?["token"].is_string());
    // update({"files-": [...], "files+": File}).
    let change =
        [("@jsonPayload", None, &*format!(r#"{{"files-":["{first}"]}}"#)), ("files+", Some("third.txt"), "three")];
    let (status, changed) = send_form(&admin, Method::PATCH, &format!("{records}/{id}"), &change)?;
    let left = changed["files"].as_array().map(Vec::len);
    ensure!(
        status == 200 && left == Some(2) && changed["files"][0] == names[1] && changed["title"] == "With files",
        "{changed}"
    );

    // createBatch(): always a form, options in the URL, files by the request's number.
    let requests = json!({"requests": [
        {"method": "POST", "url": format!("{records}?fields=title,files"), "body": {"title": "Batched"}},
        {"method": "PATCH", "url": format!("{records}/{id}"), "headers": {}, "body": {"count+": 1}},
        {"method": "PUT", "url": records, "body": {"id": "batchedpost0001", "title": "Upserted"}},
        {"method": "DELETE", "url": format!("{records}/batchedpost0001"), "body": {}},
    ]});
    let form = [("requests.0.files", Some("fourth.txt"), "four"), ("@jsonPayload", None, &*requests.to_string())];
    let (status, answers) = send_form(&admin, Method::POST, "/api/batch", &form)?;
    let statuses: Vec<_> = answers.as_array().into_iter().flatten().map(|answer| answer["status"].clone()).collect();
    ensure!(status == 200 && statuses == [200, 200, 200, 204], "{answers}");
    ensure!(answers[0]["body"]["title"] == "Batched" && answers[0]["body"]["id"].is_null(), "{answers}");
    ensure!(answers[1]["body"]["count"] == 8, "{answers}");
    let wrong = json!({"requests": [{"method": "POST", "url": records, "body": {"title": "Kept?"}}, {"method": "POST", "url": records, "body": {}}]});
    let (status, refusal) =
        send_form(&admin, Method::POST, "/api/batch", &[("@jsonPayload", None, &wrong.to_string())])?;
    ensure!(status == 400 && refusal["data"]["requests"]["1"].is_object(), "{refusal}");
    let path = format!("{records}?filter={}", encode("title = 'Kept?'"));
    ensure!(admin.done(Method::GET, &path, None)?["totalItems"] == 0, "a batch is done whole or not at all");
    assert_quiet(&[&master], &[])
}

#[test]
fn the_calls_of_the_specifications_sdk_sample_work() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica) = pair(&cluster)?;
    let posts =
        json!({"name": "posts", "fields": [{"name": "title", "type": "text"}, {"name": "content", "type": "text"}]});
    admin(&master)?.done(Method::POST, "/api/collections", Some(&posts))?;
    let login = |node: &Node, name: &str| -> Result<Script> {
        let (client, body) = (Script::new(node)?, json!({name: ADMIN.0, "password": ADMIN.1}));
        let answer = client.done(Method::POST, "/api/admins/auth-with-password", Some(&body))?;
        ensure!(answer["admin"]["email"] == ADMIN.0 && answer["record"] == answer["admin"], "{answer}");
        client.with_token(answer["token"].as_str().context("a token")?)
    };
    // admins.authWithPassword(), collection("posts").create() on the master.
    let write = login(&master, "email")?;
    let post = r#"{"title": "New Post", "content": "Hello World"}"#;
    let made = write.client.send_text(Method::POST, "/api/collections/posts/records", post)?.ok()?;
    // collection("posts").getList(1, 10) on the replica, by an admin's token that it made itself.
    let read = login(&replica, "identity")?;
    let answer = read.client.with_min_position(made.position()?);
    let answer = answer.get("/api/collections/posts/records?page=1&perPage=10")?.ok()?;
    let list = answer.json()?;
    ensure!(list["items"][0]["title"] == "New Post" && list["totalItems"] == 1, "{list}");
    // client.replicaId, which later requests send along.
    ensure!(answer.header("x-replica-id") == Some("r001"), "{:?}", answer.headers);
    let sticky = read.client.with_header("x-replica-id", "r001")?;
    ensure!(sticky.get("/api/collections/posts/records?page=1&perPage=10")?.status == 200);
    let refused = read.client.send_text(Method::POST, "/api/collections/posts/records", post)?;
    ensure!(refused.status == 403 && refused.body == r#"{"error": "replica is read-only", "code": 403}"#);
    assert_quiet(&[&master, &replica], &[])
}
