use anyhow::{Context, Result, ensure};
use e2e::client::{Client, records};
use e2e::cluster::{READY, assert_quiet};
use e2e::{Cluster, content};
use reqwest::Method;
use serde_json::{Value, json};

use super::{field, id, make, started};
use crate::verify::verify;

/// Every kind of change, one after another.
fn change_everything(admin: &Client) -> Result<()> {
    let send = |method, path: &str, body: &Value| admin.send(method, path, Some(body))?.ok();
    let countries = make(
        admin,
        &json!({"name": "countries", "viewRule": "", "listRule": "",
        "fields": [field("name", "text", json!({"required": true}))],
        "indexes": ["CREATE UNIQUE INDEX idx_name ON countries (name)"]}),
    )?;
    let cities = json!({"name": "cities", "listRule": "", "fields": [
        field("name", "text", json!({})),
        field("country", "relation", json!({"collectionId": countries["id"], "cascadeDelete": true})),
        field("tags", "select", json!({"values": ["old", "new"], "maxSelect": 2})),
    ]});
    make(admin, &cities)?;
    make(
        admin,
        &json!({"name": "by_country", "type": "view", "listRule": "", "viewQuery":
        "SELECT n.id, n.name, count(c.id) AS cities FROM countries n LEFT JOIN cities c ON c.country = n.id GROUP BY n.id"}),
    )?;
    make(admin, &json!({"name": "users", "type": "auth"}))?;
    let password = "correct horse";
    admin.create_record("users", &json!({"email": "a@b.com", "password": password, "passwordConfirm": password}))?;
    let country = |name: &str| id(&admin.create_record("countries", &json!({"name": name}))?);
    let (peru, chile) = (country("Peru")?, country("Chile")?);
    for (name, country) in [("Lima", &peru), ("Cusco", &peru), ("Arica", &chile)] {
        admin.create_record("cities", &json!({"name": name, "country": country, "tags": ["old"]}))?;
    }
    // Fields added and hidden, an index that comes and one that goes.
    let mut wider = cities["fields"].clone();
    wider.as_array_mut().context("fields")?.push(field("size", "number", json!({"min": 1})));
    let indexes = json!(["CREATE INDEX idx_size ON cities (size, name)"]);
    admin.update_collection("cities", &json!({"fields": wider, "indexes": indexes}))?;
    admin.update_collection("countries", &json!({"indexes": []}))?;
    admin.update_collection("cities", &json!({"fields": cities["fields"]}))?;
    // A deletion, and the name used again.
    let old = make(admin, &json!({"name": "logs", "fields": [field("line", "text", json!({}))]}))?;
    admin.create_record("logs", &json!({"line": "kept"}))?;
    send(Method::DELETE, "/api/collections/logs", &Value::Null)?;
    make(admin, &json!({"name": "logs", "listRule": "", "fields": [field("level", "number", json!({}))]}))?;
    admin.create_record("logs", &json!({"level": 3}))?;
    let import = json!({"collections": [
        {"name": "imported", "listRule": "", "fields": [field("to", "relation", json!({"collectionId": countries["id"]}))]},
        {"name": "countries", "fields": [field("code", "text", json!({"max": 2}))]},
    ]});
    send(Method::PUT, "/api/collections/import", &import)?;
    admin.create_record("imported", &json!({"to": peru}))?;
    admin.delete_record("countries", &peru)?;
    make(admin, &json!({"name": "emptied", "listRule": "", "fields": []}))?;
    admin.create_record("emptied", &json!({}))?;
    send(Method::DELETE, "/api/collections/emptied/truncate", &Value::Null)?;
    ensure!(admin.get(&format!("/api/collections/{}", id(&old)?))?.status == 404);
    Ok(())
}

#[test]
fn every_change_of_collections_and_records_arrives_on_replicas() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = started(&cluster)?;
    let mut early = cluster.embedded("early", &master)?;
    early.start()?;
    early.wait_ready()?;
    change_everything(&admin)?;
    let mut late = cluster.external("late", &master)?;
    late.start()?;
    late.wait_ready()?;
    content::wait_all_equal(&[master.dir(), early.dir(), late.dir()], READY)?;
    let expected = everything_read(&admin)?;
    for node in [&early, &late] {
        let client = node.client()?;
        ensure!(client.count("cities")? == 1 && client.count("logs")? == 1 && client.count("emptied")? == 0);
        let imported = &client.all_records("imported")?[0];
        ensure!(imported["to"] == "", "the reference went with its record: {imported}");
        let view = client.all_records("by_country")?;
        ensure!(view.len() == 1 && view[0]["name"] == "Chile" && view[0]["cities"] == 1, "{view:?}");
        ensure!(everything_read(&node.admin()?)? == expected, "{}: another catalogue or records", node.name());
        let verified = verify(node, &[])?;
        ensure!(verified.status.code() == Some(0), "{}: {:?} {:?}", node.name(), verified.stdout, verified.stderr);
    }
    assert_quiet(&[&master, &early, &late], &[])
}

/// The catalogue and all records, as an admin reads them.
fn everything_read(admin: &Client) -> Result<Vec<Value>> {
    let mut read = vec![admin.get("/api/collections?perPage=1000")?.ok()?.json()?];
    let names: Vec<String> = read[0]["items"]
        .as_array()
        .context("items")?
        .iter()
        .filter_map(|c| Some(c["name"].as_str()?.to_owned()))
        .collect();
    for name in names {
        read.push(admin.get(&records(&name))?.ok()?.json()?);
    }
    Ok(read)
}
