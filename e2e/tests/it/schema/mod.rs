//! Collections of every kind and fields of every type, as clients see them, and how their changes travel.

/// Values: taken, refused, changed by modifiers.
mod values;

/// Every kind of change, on a replica.
mod travel;

use anyhow::{Context, Result};
use e2e::client::Client;
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

/// Makes a collection of everything.
fn make(client: &Client, collection: &Value) -> Result<Value> {
    client.send(Method::POST, "/api/collections", Some(collection))?.ok()?.json()
}

/// The id of a record or collection.
fn id(json: &Value) -> Result<String> {
    Ok(json["id"].as_str().context("an id")?.to_owned())
}

/// A field's JSON with options.
fn field(name: &str, kind: &str, options: Value) -> Value {
    let mut field = json!({"name": name, "type": kind});
    if let (Some(field), Value::Object(options)) = (field.as_object_mut(), options) {
        field.extend(options);
    }
    field
}
