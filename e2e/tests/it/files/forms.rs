use anyhow::{Context, Result, ensure};
use e2e::client::records;
use e2e::cluster::READY;
use e2e::form::Form;
use e2e::{Cluster, eventually, storage};
use reqwest::Method;
use serde_json::{Value, json};

use super::{DOCS, GRACE, make_collection};

fn names(record: &Value) -> Result<Vec<String>> {
    let names = record["many"].as_array().context("a list")?;
    names.iter().map(|name| Ok(name.as_str().context("a name")?.to_owned())).collect()
}

#[test]
fn a_form_creates_and_changes_a_record_as_pocketbases_clients_send_it() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?.env("FILE_GRACE", GRACE);
    master.start()?;
    let admin = master.admin()?;
    make_collection(&admin)?;
    let form = Form::new()
        .text("title", "123")
        .text("count", "42")
        .file("many", "a.txt", b"a")
        .file("many", "b.txt", b"b")
        .file("one", "", b"");
    let record = form.send(&admin, Method::POST, &records(DOCS))?.ok()?.json()?;
    ensure!(record["title"] == "123" && record["count"] == 42 && record["one"] == "", "{record}");
    let [a, b] = names(&record)?.try_into().ok().context("two files")?;

    let path = format!("{}/{}", records(DOCS), record["id"].as_str().context("an id")?);
    let change = Form::new()
        .text("@jsonPayload", &json!({"title": "new", "many-": [a]}).to_string())
        .file("many+", "c.txt", b"c");
    let record = change.send(&admin, Method::PATCH, &path)?.ok()?.json()?;
    let [kept, c] = names(&record)?.try_into().ok().context("two files")?;
    ensure!(kept == b && c.starts_with("c_") && record["title"] == "new" && record["count"] == 42, "{record}");

    let foreign = admin.send(Method::PATCH, &path, Some(&json!({"many": [a]})))?;
    ensure!(foreign.status == 400 && foreign.json()?["data"]["many"]["code"] == "validation_invalid_file");
    let record = admin.send(Method::PATCH, &path, Some(&json!({"many": [b]})))?.ok()?.json()?;
    ensure!(names(&record)? == [b], "{record}");
    let record = admin.send(Method::PATCH, &path, Some(&json!({"many": null})))?.ok()?.json()?;
    ensure!(names(&record)?.is_empty(), "{record}");
    storage::wait_whole(&[master.dir()], "default", READY)
}

#[test]
fn files_of_a_refused_request_are_not_kept() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?.env("FILE_GRACE", "1h");
    master.start()?;
    let admin = master.admin()?;
    make_collection(&admin)?;
    let large = vec![b'x'; (5 << 20) + 1];
    let too_large = Form::new().file("many", "small.txt", b"small").file("many", "large.txt", &large);
    let refused = too_large.send(&admin, Method::POST, &records(DOCS))?;
    ensure!(refused.status == 400, "{refused:?}");
    ensure!(refused.json()?["data"]["many"]["code"] == "validation_file_size_limit", "{}", refused.body);
    let no_field = Form::new().file("nothing", "a.txt", b"a").send(&admin, Method::POST, &records(DOCS))?;
    ensure!(no_field.status == 400, "{}", no_field.body);
    let guest = Form::new().file("one", "a.txt", b"a").send(&master.client()?, Method::POST, &records(DOCS))?;
    ensure!(guest.status == 403, "{}", guest.body);
    for (kind, body) in [("multipart/form-data", "x"), ("multipart/form-data; boundary=b", "--b\r\nbroken")] {
        let reply = admin.send_bytes(Method::POST, &records(DOCS), kind, body.into())?;
        ensure!(reply.status == 400, "{kind}: {} {}", reply.status, reply.body);
    }
    ensure!(storage::found(master.dir(), "default")?.is_empty(), "{:?}", storage::found(master.dir(), "default")?);
    Ok(())
}

#[test]
fn a_protected_file_is_shown_to_whom_the_view_rule_lets_see_its_record() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    let secret = json!({"name": "secrets", "fields": [{"name": "paper", "type": "file", "protected": true}]});
    admin.send(Method::POST, "/api/collections", Some(&secret))?.ok()?;
    let form = Form::new().file("paper", "paper.html", b"<script>alert(1)</script>");
    let record = form.send(&admin, Method::POST, &records("secrets"))?.ok()?.json()?;
    let (id, name) = (record["id"].as_str().context("an id")?, record["paper"].as_str().context("a name")?);
    let path = format!("/api/files/secrets/{id}/{name}");
    let mut replica = cluster.external("replica", &master)?.env("SYNC_MODE", "stream");
    replica.start()?;
    replica.wait_ready()?;

    ensure!(master.client()?.send(Method::POST, "/api/files/token", None)?.status == 401);
    let token = admin.send(Method::POST, "/api/files/token", None)?.ok()?.json()?;
    let token = token["token"].as_str().context("a token")?;
    for node in [&master, &replica] {
        let client = node.client()?;
        eventually("the file is shown with the token", READY, || {
            let shown = client.get(&format!("{path}?token={token}"))?;
            ensure!(shown.status == 200 && shown.bytes == b"<script>alert(1)</script>", "{shown:?}");
            ensure!(shown.header("cache-control") == Some("private, no-cache"), "{shown:?}");
            let disposition = shown.header("content-disposition").context("a disposition")?;
            ensure!(disposition.starts_with("attachment"), "a page is never shown: {disposition}");
            Ok(true)
        })?;
        for token in ["", "?token=", "?token=x", &format!("?token={}", admin.token().context("a login")?)] {
            ensure!(client.get(&format!("{path}{token}"))?.status == 404, "{token}");
        }
        let other = client.with_token(token).get("/api/collections")?;
        ensure!([401, 403].contains(&other.status), "a token for files does nothing else: {}", other.status);
    }
    Ok(())
}
