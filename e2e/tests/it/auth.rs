use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::cluster::READY;
use e2e::{Cluster, Node, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// Admins, listed and managed by API.
mod admins;

/// API keys for machines.
mod keys;

/// Records of auth collections.
mod records;

/// How often somebody may log in.
mod limits;

/// A master, a replica that follows it, and the master's admin.
fn pair(cluster: &Cluster) -> Result<(Node, Node, Client)> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let mut replica = cluster.embedded("replica", &master)?;
    replica.start()?;
    replica.wait_ready()?;
    let admin = master.admin()?;
    Ok((master, replica, admin))
}

/// Sends JSON and returns status and body.
fn call(client: &Client, method: Method, path: &str, body: &Value) -> Result<(u16, Value)> {
    let reply = client.send(method, path, Some(body))?;
    let json = if reply.body.is_empty() { Value::Null } else { reply.json()? };
    Ok((reply.status, json))
}

/// The same, of a call that is allowed.
fn done(client: &Client, method: Method, path: &str, body: &Value) -> Result<Value> {
    let (status, answer) = call(client, method.clone(), path, body)?;
    ensure!((200..300).contains(&status), "{method} {path}: {status} {answer}");
    Ok(answer)
}

/// Waits until a client is answered so.
fn answered(client: &Client, path: &str, status: u16) -> Result<()> {
    eventually(&format!("{path} answers {status}"), READY, || {
        let reply = client.get(path)?;
        ensure!(reply.status == status, "{} {}", reply.status, reply.body);
        Ok(true)
    })
}

/// What stands at a key, as text.
fn text(value: &Value, key: &str) -> Result<String> {
    Ok(value[key].as_str().with_context(|| format!("no {key} in {value}"))?.to_owned())
}
