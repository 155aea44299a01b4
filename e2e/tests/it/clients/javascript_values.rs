//! What PocketBase's JavaScript client (of 0.40) does without the server: it reads tokens, writes values into filters, makes
//! numbers of a form's texts in a batch, and looks into `expand`. Each was seen to work with the client itself.

use anyhow::{Context, Result, ensure};
use e2e::cluster::{ADMIN, assert_quiet};
use e2e::{Cluster, Node};
use reqwest::Method;
use serde_json::{Value, json};

use super::javascript::{Script, admin, encode};

fn master(cluster: &Cluster) -> Result<Node> {
    let mut master = cluster.master("master")?;
    master.start()?;
    Ok(master)
}

/// The claims in a token, as `atob` shows them.
fn claims(token: &Value) -> Result<Value> {
    let middle = token.as_str().and_then(|token| token.split('.').nth(1)).context("a token of three parts")?;
    let digit =
        |byte: u8| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".iter().position(|b| *b == byte);
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_usize, 0);
    for byte in middle.bytes() {
        (bits, count) = ((bits << 6) | digit(byte).context("base64")?, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff)?);
        }
    }
    Ok(serde_json::from_slice(&bytes)?)
}

#[test]
fn tokens_tell_the_javascript_client_who_is_a_superuser_and_who_a_record() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let (guest, admin) = (Script::new(&master)?, admin(&master)?);
    let login = json!({"identity": ADMIN.0, "password": ADMIN.1});
    for path in ["/api/admins", "/api/collections/_superusers"] {
        let answer = guest.done(Method::POST, &format!("{path}/auth-with-password"), Some(&login))?;
        let told = claims(&answer["token"])?;
        // authStore.isSuperuser
        ensure!(told["type"] == "auth" && told["collectionId"] == "pbc_3142635823", "{told}");
        ensure!(
            told["id"] == answer["record"]["id"] && answer["record"]["collectionName"] == "_superusers",
            "{answer}"
        );
        let slim = guest.done(Method::POST, &format!("{path}/auth-with-password?fields=record.email"), Some(&login))?;
        ensure!(slim == json!({"record": {"email": ADMIN.0}}), "{slim}");
    }
    let users = json!({"name": "users", "type": "auth", "createRule": "", "viewRule": "id = @request.auth.id"});
    let users = admin.done(Method::POST, "/api/collections", Some(&users))?;
    let ann = json!({"email": "ann@example.com", "password": "ann-password", "passwordConfirm": "ann-password"});
    let ann = guest.done(Method::POST, "/api/collections/users/records", Some(&ann))?;
    let body = json!({"identity": "ann@example.com", "password": "ann-password"});
    let answer = guest.done(Method::POST, "/api/collections/users/auth-with-password", Some(&body))?;
    let told = claims(&answer["token"])?;
    // authStore.isAuthRecord
    ensure!(told["type"] == "auth" && told["collectionId"] == users["id"] && told["id"] == ann["id"], "{told}");
    let me = admin.done(Method::POST, "/api/collections/_superusers/auth-refresh?fields=record.id", None)?;
    let path = format!("/api/collections/_superusers/records/{}", me["record"]["id"].as_str().context("an id")?);
    let shown = admin.done(Method::GET, &format!("{path}?fields=email,nothing"), None)?;
    ensure!(shown == json!({"email": ADMIN.0}), "{shown}");
    assert_quiet(&[&master], &[])
}

#[test]
fn values_in_a_filter_of_the_javascript_client_are_found_as_they_are() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let admin = admin(&master)?;
    let fields = json!([{"name": "name", "type": "text"}, {"name": "number", "type": "number"}]);
    let notes = json!({"name": "notes", "listRule": "", "fields": fields});
    admin.done(Method::POST, "/api/collections", Some(&notes))?;
    let records = "/api/collections/notes/records";
    let values = [
        "plain",
        "it's",
        "a \"quoted\" one",
        "C:\\new\\temp",
        "ends\\",
        "\\",
        "two\\\\",
        "two\nlines",
        "a\ttab",
        "\\n",
        "\\' || 1=1 || 'x",
        "\" || 1=1 || \"",
        "`tick`",
        "%",
    ];
    for (number, value) in values.iter().enumerate() {
        admin.done(Method::POST, records, Some(&json!({"name": value, "number": number})))?;
    }
    for (number, value) in values.iter().enumerate() {
        // pb.filter("name = {:name} && number < {:number}", {name, number: 99}): texts are written by JSON.stringify().
        let filter = format!("name = {} && number < 99", json!(value));
        let path = format!("{records}?filter={}", encode(&filter));
        let found = Script::new(&master)?.done(Method::GET, &path, None)?;
        ensure!(found["totalItems"] == 1 && found["items"][0]["number"] == number, "{filter}: {found}");
    }
    assert_quiet(&[&master], &[])
}

#[test]
fn what_the_javascript_client_sends_and_expects_of_itself_is_taken_and_given() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster)?;
    let admin = admin(&master)?;
    let myself = json!({"name": "name", "type": "text"});
    let groups = admin.done(Method::POST, "/api/collections", Some(&json!({"name": "groups", "fields": [myself]})))?;
    let group = json!({"name": "group", "type": "relation", "collectionId": groups["id"], "maxSelect": 1});
    let fields = json!([myself, {"name": "info", "type": "json"}, {"name": "site", "type": "url"}, group]);
    admin.done(Method::POST, "/api/collections", Some(&json!({"name": "notes", "fields": fields})))?;
    let records = "/api/collections/notes/records";
    // create() without values sends no body; record.expand.group is looked at where nothing was found.
    let made = admin.done(Method::POST, &format!("{records}?expand=group"), None)?;
    ensure!(made["name"] == "" && made["expand"] == json!({}), "{made}");
    let path = format!("{records}/{}", made["id"].as_str().context("an id")?);
    ensure!(admin.done(Method::PATCH, &path, None)?["id"] == made["id"]);
    // A form's text of digits in a batch; JSON that was written twice; a record as it came.
    let body = json!({"name": 44100, "info": "{\"x\": [1]}"});
    let batch = json!({"requests": [{"method": "PATCH", "url": path, "body": body}]});
    let changed = admin.done(Method::POST, "/api/batch", Some(&batch))?[0]["body"].clone();
    ensure!(changed["name"] == "44100" && changed["info"] == json!({"x": [1]}), "{changed}");
    ensure!(admin.done(Method::PATCH, &path, Some(&changed))?["name"] == "44100");

    // PocketBase's codes, by which a page chooses its words.
    for (body, field, code) in [
        (json!({"id": "short"}), "id", "validation_min_text_constraint"),
        (json!({"id": "UPPERCASELETTER"}), "id", "validation_invalid_format"),
        (json!({"id": changed["id"]}), "id", "validation_not_unique"),
        (json!({"site": "no site"}), "site", "validation_invalid_url"),
    ] {
        let (status, refusal) = admin.send(Method::POST, records, Some(&body))?;
        ensure!(status == 400 && refusal["data"][field]["code"] == code, "{body}: {refusal}");
    }
    let other = json!({"id": "anotherid000000"});
    ensure!(admin.send(Method::PATCH, &path, Some(&other))?.1["data"]["id"]["code"] == "validation_pk_change");
    for (body, field, code) in [
        (json!({}), "name", "validation_required"),
        (json!({"name": "a b"}), "name", "validation_match_invalid"),
        (json!({"name": "NOTES"}), "name", "validation_collection_name_exists"),
        (json!({"name": "x", "type": "table"}), "type", "validation_in_invalid"),
    ] {
        let (status, refusal) = admin.send(Method::POST, "/api/collections", Some(&body))?;
        ensure!(status == 400 && refusal["data"][field]["code"] == code, "{body}: {refusal}");
    }

    // pb.settings, pb.logs, pb.backups, pb.crons, pb.realtime, getScaffolds(): absent, and the answer says why.
    for path in ["settings", "logs/stats", "backups", "crons", "realtime", "collections/meta/scaffolds"] {
        let (status, refusal) = admin.send(Method::GET, &format!("/api/{path}"), None)?;
        let message = refusal["message"].as_str().context("a message")?;
        ensure!(status == 404 && refusal["status"] == 404 && message.contains(": "), "{path}: {refusal}");
    }
    assert_quiet(&[&master], &[])
}
