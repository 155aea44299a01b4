//! A batch is stored whole or not at all, and each of its requests has the caller's rights.

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::cluster::READY;
use e2e::form::Form;
use e2e::{Cluster, Node, content, storage};
use reqwest::Method;
use serde_json::{Value, json};

fn master(cluster: &Cluster) -> Result<Node> {
    let mut master = cluster.master("master")?.env("FILE_GRACE", "1s").env("MAX_BATCH_REQUESTS", "5");
    master.start()?;
    let admin = master.admin()?;
    let open = json!({
        "name": "open", "listRule": "", "viewRule": "", "createRule": "", "updateRule": "", "deleteRule": "",
        "fields": [{"name": "title", "type": "text", "required": true}, {"name": "photo", "type": "file"}],
    });
    admin.send(Method::POST, "/api/collections", Some(&open))?.ok()?;
    admin.create_collection("closed", &[("title", "text")])?;
    Ok(master)
}

fn batch(client: &Client, requests: &Value) -> Result<(u16, Value)> {
    let reply = client.send(Method::POST, "/api/batch", Some(&json!({"requests": requests})))?;
    Ok((reply.status, reply.json()?))
}

fn make(collection: &str, body: &Value) -> Value {
    json!({"method": "POST", "url": format!("/api/collections/{collection}/records"), "body": body})
}

#[test]
fn a_batch_makes_changes_and_removes_records_in_one_entry() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let mut replica = cluster.external("replica", &master)?;
    replica.start()?;
    let client = master.client()?;
    let (a, b) = ("aaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbb");
    let before = master.client()?.status_of("default")?["version"].as_u64();
    let one = |method: &str, id: &str, body: Value| json!({"method": method, "url": format!("/api/collections/open/records/{id}"), "body": body});
    let put = |body: Value| json!({"method": "PUT", "url": "/api/collections/open/records", "body": body});
    let (status, answers) = batch(
        &client,
        &json!([
            make("open", &json!({"id": a, "title": "first"})),
            put(json!({"id": b, "title": "made"})),
            put(json!({"id": b, "title": "changed"})),
            one("PATCH", a, json!({"title": "second"})),
            one("DELETE", b, Value::Null),
        ]),
    )?;
    ensure!(status == 200, "{answers}");
    let titles: Vec<&Value> = (0..4).map(|at| &answers[at]["body"]["title"]).collect();
    ensure!(titles == ["first", "made", "changed", "second"], "{answers}");
    ensure!(answers[4] == json!({"status": 204, "body": null}), "{answers}");
    ensure!(client.status_of("default")?["version"].as_u64() == before.map(|version| version + 1), "one entry");
    ensure!(client.count("open")? == 1);
    replica.sync()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)
}

#[test]
fn a_refused_request_undoes_the_whole_batch_and_is_told() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let client = master.client()?;
    let good = make("open", &json!({"title": "good"}));
    for (bad, status, key) in [
        (make("open", &json!({"title": ""})), 400, Some("title")),
        (make("closed", &json!({"title": "x"})), 403, None),
        (make("nothing", &json!({})), 404, None),
        (json!({"method": "DELETE", "url": "/api/collections/open/records/ccccccccccccccc"}), 404, None),
        (json!({"method": "GET", "url": "/api/collections/open/records"}), 400, None),
        (json!({"method": "POST", "url": "/api/databases"}), 400, None),
    ] {
        let (answered, body) = batch(&client, &json!([good, bad]))?;
        ensure!(answered == 400, "{bad}: {answered} {body}");
        let failed = &body["data"]["requests"]["1"];
        ensure!(failed["code"] == "batch_request_failed" && failed["response"]["status"] == status, "{bad}: {body}");
        ensure!(key.is_none_or(|key| failed["response"]["data"][key]["code"].is_string()), "{bad}: {body}");
        ensure!(client.count("open")? == 0, "{bad} left something");
    }
    let many: Vec<Value> = (0..6).map(|_| good.clone()).collect();
    for requests in [json!([]), json!(many), json!("x")] {
        let (status, body) = batch(&client, &requests)?;
        ensure!(status == 400, "{requests}: {status} {body}");
    }
    let (status, _) = batch(&master.admin()?, &json!([good, make("closed", &json!({"title": "admin's"}))]))?;
    ensure!(status == 200 && client.count("open")? == 1 && client.count("closed")? == 1);
    Ok(())
}

#[test]
fn a_batch_takes_files_for_its_requests() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let client = master.client()?;
    let requests = json!({"requests": [
        make("open", &json!({"title": "a"})), make("open", &json!({"title": "b"})),
    ]});
    let form = Form::new()
        .text("@jsonPayload", &requests.to_string())
        .file("requests.0.photo", "a.txt", b"first")
        .file("requests[1].photo", "b.txt", b"second");
    let answers = form.send(&client, Method::POST, "/api/batch")?.ok()?.json()?;
    for (at, bytes) in [(0, "first"), (1, "second")] {
        let record = &answers[at]["body"];
        let (id, name) = (record["id"].as_str().context("an id")?, record["photo"].as_str().context("a name")?);
        ensure!(client.get(&format!("/api/files/open/{id}/{name}"))?.ok()?.body == bytes);
    }
    let stray = Form::new().text("@jsonPayload", &requests.to_string()).file("photo", "a.txt", b"nobody's");
    ensure!(stray.send(&client, Method::POST, "/api/batch")?.status == 400);
    storage::wait_whole(&[master.dir()], "default", READY)
}

#[test]
fn files_of_a_batch_that_cannot_be_allowed_are_not_waited_for() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let guest = master.client()?;
    let upload = |client: &Client, requests: &Value, key: &str| {
        let payload = json!({"requests": requests}).to_string();
        // Nothing ends this file: whoever reads it to its end finds that the form is broken.
        let form = Form::new().text("@jsonPayload", &payload).file(key, "a.bin", &[b'x'; 1000]);
        form.send_broken(client, Method::POST, "/api/batch")
    };
    let good = make("open", &json!({"title": "good"}));
    for (requests, key, told) in [
        (json!([good, make("closed", &json!({"title": "x"}))]), "requests.0.photo", "\"status\":403"),
        (json!([good, make("nothing", &json!({}))]), "requests.0.photo", "\"status\":404"),
        (json!([good]), "requests.1.photo", "belongs to no request"),
        (json!([{"method": "GET", "url": "/api/collections/open/records"}]), "requests.0.photo", "cannot be part"),
        (json!([good]), "requests.0.photo", "the form cannot be read"),
    ] {
        let reply = upload(&guest, &requests, key)?;
        ensure!(reply.status == 400 && reply.body.contains(told), "{requests}: {reply:?}");
    }
    let closed = json!([make("closed", &json!({"title": "x"}))]);
    let reply = upload(&master.admin()?, &closed, "requests.0.photo")?;
    ensure!(reply.status == 400 && reply.body.contains("the form cannot be read"), "an admin may: {reply:?}");
    let first = Form::new().file("requests.0.photo", "a.bin", b"x");
    let reply = first.send_broken(&guest, Method::POST, "/api/batch?db=default")?;
    ensure!(reply.body.contains("the form cannot be read"), "some collection takes files of guests: {reply:?}");
    master.admin()?.send(Method::DELETE, "/api/collections/open", None)?.ok()?;
    let reply = first.send_broken(&guest, Method::POST, "/api/batch")?;
    ensure!(reply.status == 403 && reply.body.contains("only admins may send files"), "{reply:?}");
    ensure!(storage::found(master.dir(), "default")?.is_empty(), "nothing stays");
    Ok(())
}
