use anyhow::{Context, Result, ensure};
use e2e::Cluster;
use e2e::client::records;
use reqwest::Method;
use serde_json::{Value, json};

use super::{call, field, id, make, started};

/// A collection with a field of each type.
fn everything() -> Value {
    json!({"name": "all", "createRule": "", "viewRule": "", "fields": [
        field("text", "text", json!({"min": 2, "max": 5, "pattern": "^[a-z]*$"})),
        field("editor", "editor", json!({})),
        field("number", "number", json!({"min": -5, "max": 100})),
        field("bool", "bool", json!({})),
        field("email", "email", json!({"onlyDomains": ["example.com"]})),
        field("url", "url", json!({})),
        field("date", "date", json!({"min": "2020-01-01"})),
        field("stamp", "autodate", json!({"onCreate": true, "onUpdate": true})),
        field("one", "select", json!({"values": ["a", "b"]})),
        field("some", "select", json!({"values": ["a", "b", "c"], "maxSelect": 3})),
        field("json", "json", json!({"maxSize": 50})),
        field("secret", "password", json!({"min": 8})),
        field("note", "text", json!({"hidden": true})),
    ]})
}

#[test]
fn every_type_keeps_its_values_and_tells_what_it_refuses() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = started(&cluster)?;
    make(&admin, &everything())?;
    let body = json!({"text": "abc", "editor": "<b>x</b>", "number": "12.5", "bool": "true", "email": "a@example.com",
        "url": "https://example.com/a", "date": "2026-01-31T10:00:00+01:00", "stamp": "2000-01-01", "one": ["b"],
        "some": ["c", "a", "c"], "json": {"a": [1, null]}, "secret": "a secret of mine", "note": "for admins"});
    let made = admin.create_record("all", &body)?;
    for (name, expected) in [
        ("text", json!("abc")),
        ("number", json!(12.5)),
        ("bool", json!(true)),
        ("date", json!("2026-01-31 09:00:00.000Z")),
        ("one", json!("b")),
        ("some", json!(["c", "a"])),
        ("json", json!({"a": [1, null]})),
        ("note", json!("for admins")),
    ] {
        ensure!(made[name] == expected, "{name}: {made}");
    }
    ensure!(made.get("secret").is_none() && made["stamp"].as_str() > Some("2001"), "{made}");
    ensure!(admin.record("all", &id(&made)?)? == Some(made.clone()));
    let shown = master.client()?.record("all", &id(&made)?)?.context("a record")?;
    ensure!(shown.get("note").is_none() && shown["text"] == "abc", "{shown}");

    let wrong = json!({"text": "x", "number": 101, "bool": "maybe", "email": "a@other.com", "url": "x y", "date": "2019-12-31",
        "one": "c", "some": ["a", "x"], "json": "x".repeat(60), "secret": "short", "unknown": 1});
    let (status, answer) = call(&admin, Method::POST, &records("all"), &wrong)?;
    for (name, code) in [
        ("text", "validation_min_text_constraint"),
        ("number", "validation_max_number_constraint"),
        ("bool", "validation_invalid_type"),
        ("email", "validation_email_domain_not_allowed"),
        ("url", "validation_invalid_url"),
        ("date", "validation_min_greater_equal_than_required"),
        ("one", "validation_invalid_value"),
        ("some", "validation_invalid_value"),
        ("json", "validation_json_size_limit"),
        ("secret", "validation_min_text_constraint"),
        ("unknown", "validation_unknown_field"),
    ] {
        ensure!(status == 400 && answer["data"][name]["code"] == code, "{name}: {answer}");
        ensure!(answer["data"][name]["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    }
    let (status, answer) = call(
        &admin,
        Method::POST,
        "/api/collections",
        &json!({"name": "bad", "fields": [field("x", "text", json!({"pattern": "("}))]}),
    )?;
    ensure!(status == 400 && answer["data"]["fields[0].pattern"]["message"].is_string(), "{answer}");
    Ok(())
}

#[test]
fn modifiers_add_to_what_is_there_and_take_from_it() -> Result<()> {
    let cluster = Cluster::new()?;
    let (_master, admin) = started(&cluster)?;
    make(&admin, &everything())?;
    let made = admin.create_record("all", &json!({"number+": 3, "some+": "b"}))?;
    ensure!(made["number"] == 3 && made["some"] == json!(["b"]), "{made}");
    let id = id(&made)?;
    let changed = admin.update_record("all", &id, &json!({"number-": 1, "some+": ["c", "b"], "one+": "a"}))?;
    ensure!(changed["number"] == 2 && changed["some"] == json!(["c", "b"]) && changed["one"] == "a", "{changed}");
    let changed = admin.update_record("all", &id, &json!({"+some": "a", "number+": "0.5", "one-": "a"}))?;
    ensure!(changed["number"] == 2.5 && changed["some"] == json!(["a", "c", "b"]) && changed["one"] == "", "{changed}");
    let changed = admin.update_record("all", &id, &json!({"some-": ["c", "a"]}))?;
    ensure!(changed["some"] == json!(["b"]) && changed["number"] == 2.5, "{changed}");
    let path = format!("{}/{id}", records("all"));
    for (wrong, name) in
        [(json!({"number+": 200}), "number"), (json!({"some+": "x"}), "some"), (json!({"text+": "x"}), "text+")]
    {
        let (status, answer) = call(&admin, Method::PATCH, &path, &wrong)?;
        ensure!(status == 400 && answer["data"][name].is_object(), "{wrong}: {answer}");
    }
    Ok(())
}

#[test]
fn the_catalogue_answers_in_pocketbases_form() -> Result<()> {
    let cluster = Cluster::new()?;
    let (_master, admin) = started(&cluster)?;
    make(&admin, &json!({"name": "users", "type": "auth", "fields": [field("name", "text", json!({}))]}))?;
    make(&admin, &everything())?;
    let users = admin.get("/api/collections/users")?.ok()?.json()?;
    let names: Vec<_> =
        users["fields"].as_array().context("fields")?.iter().filter_map(|f| f["name"].as_str()).collect();
    let expected = ["id", "password", "tokenKey", "email", "emailVisibility", "verified", "name", "created", "updated"];
    ensure!(names == expected, "{users}");
    ensure!(users["passwordAuth"] == json!({"enabled": true, "identityFields": ["email"]}) && users["authRule"] == "");
    ensure!(users["authToken"]["duration"] == 604_800 && users["manageRule"].is_null(), "{users}");
    let list = |query: &str| admin.get(&format!("/api/collections{query}"))?.ok()?.json();
    let sorted = list("?sort=-name&perPage=1&page=2")?;
    ensure!(sorted["items"][0]["name"] == "all" && sorted["totalItems"] == 2 && sorted["totalPages"] == 2, "{sorted}");
    let filtered = list("?filter=name%3D%22users%22")?;
    ensure!(filtered["items"] == json!([users]) && filtered["totalItems"] == 1, "{filtered}");
    ensure!(admin.get("/api/collections?filter=x%3D1")?.status == 400);
    // What it answers can be sent back.
    ensure!(call(&admin, Method::PATCH, "/api/collections/users", &users)?.0 == 200);
    let export = json!({"collections": list("?perPage=1000")?["items"]});
    ensure!(call(&admin, Method::PUT, "/api/collections/import", &export)?.0 == 204);
    ensure!(call(&admin, Method::PUT, "/api/collections/users", &export)?.0 == 405);
    Ok(())
}

#[test]
fn an_auth_record_keeps_its_password_and_its_address_is_its_own() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = started(&cluster)?;
    make(&admin, &json!({"name": "users", "type": "auth"}))?;
    let ann = json!({"email": "ann@example.com", "password": "correct horse", "passwordConfirm": "correct horse"});
    let made = admin.create_record("users", &ann)?;
    ensure!(made.get("password").is_none() && made.get("tokenKey").is_none() && made["verified"] == false, "{made}");
    ensure!(!made.to_string().contains("argon2"), "{made}");
    let again = json!({"email": "ANN@example.com", "password": "another horse", "passwordConfirm": "another horse"});
    let (status, answer) = call(&admin, Method::POST, &records("users"), &again)?;
    ensure!(status == 400 && answer["data"]["email"]["code"] == "validation_not_unique", "{answer}");
    let mistaken = json!({"email": "b@example.com", "password": "correct horse", "passwordConfirm": "another"});
    let (status, answer) = call(&admin, Method::POST, &records("users"), &mistaken)?;
    ensure!(status == 400 && answer["data"]["passwordConfirm"]["code"] == "validation_values_mismatch", "{answer}");
    let (status, answer) = call(&admin, Method::POST, &records("users"), &json!({}))?;
    ensure!(status == 400 && answer["data"]["email"].is_object() && answer["data"]["password"].is_object(), "{answer}");
    let row = e2e::shell::sqlite3(&master.file("default"), "SELECT passwordHash, tokenKey FROM users")?;
    ensure!(row.starts_with("$argon2id$") && row.trim().rsplit('|').next().is_some_and(|key| key.len() >= 32), "{row}");
    admin.update_record("users", &id(&made)?, &json!({"password": "new horse", "passwordConfirm": "new horse"}))?;
    let later = e2e::shell::sqlite3(&master.file("default"), "SELECT passwordHash, tokenKey FROM users")?;
    let key = |row: &str| row.trim().rsplit('|').next().map(str::to_owned);
    ensure!(later != row && key(&later) != key(&row), "a new password ends all tokens");
    Ok(())
}
