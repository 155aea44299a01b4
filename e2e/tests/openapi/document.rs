use anyhow::{Context, Result, ensure};
use e2e::Node;
use e2e::client::Client;
use reqwest::Method;
use serde_json::json;

use crate::world::World;

/// A method and a path as the document has it.
type Operation = (Method, String);

/// Operations that a replica takes although they are no reads.
const TAKEN: [&str; 3] = ["/auth-with-password", "/auth-refresh", "/api/replica/"];

fn operations(node: &Node) -> Result<Vec<Operation>> {
    let document = node.client()?.get("/api/openapi.json")?.ok()?.json()?;
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().context("no paths")? {
        for method in item.as_object().context("a path is no object")?.keys() {
            found.push((method.to_uppercase().parse()?, path.clone()));
        }
    }
    Ok(found)
}

/// A path that one can ask for: nothing is there under these names.
fn filled(path: &str) -> String {
    path.replace("{collection}", "nothing")
        .replace("{id}", "nothing")
        .replace("{name}", "nothing")
        .replace("{record}", "nothing")
}

fn ask(client: &Client, (method, path): &Operation) -> Result<e2e::client::Reply> {
    let body = (*method != Method::GET).then(|| json!({}));
    client.send(method.clone(), &filled(path), body.as_ref())
}

pub fn served(world: &World) -> Result<()> {
    for node in [&world.master, &world.replica] {
        let client = node.client()?;
        let reply = client.get("/api/openapi.json")?.ok()?;
        ensure!(reply.header("content-type") == Some("application/json"), "{:?}", reply.headers);
        let document = reply.json()?;
        ensure!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")), "{document}");
        let schemes: Vec<&str> = document["components"]["securitySchemes"]
            .as_object()
            .map(|schemes| schemes.keys().map(String::as_str).collect())
            .unwrap_or_default();
        ensure!(schemes == ["token", "apiKey", "replica", "operator"], "{schemes:?}");
        check_page(&client)?;
    }
    let syncs = |operations: Vec<Operation>| operations.iter().any(|(_, path)| path == "/api/replica/sync");
    ensure!(!syncs(operations(&world.master)?) && syncs(operations(&world.replica)?), "only a replica syncs");
    Ok(())
}

/// Its policy lets it talk to this server only, and run only what is in it.
fn check_page(client: &Client) -> Result<()> {
    let page = client.get("/api/docs")?.ok()?;
    let policy = page.header("content-security-policy").context("no policy")?;
    ensure!(policy.starts_with("default-src 'none'; connect-src 'self'; style-src 'nonce-"), "{policy}");
    let nonce = policy.split_once("script-src '").and_then(|(_, rest)| rest.split('\'').next()).context("no nonce")?;
    let nonce = nonce.trim_start_matches("nonce-");
    ensure!(page.body.contains(&format!("<script nonce=\"{nonce}\">")), "the script has another nonce");
    ensure!(page.body.contains("fetch('openapi.json')"), "the page does not read the document");
    for elsewhere in ["http://", "https://", " src=", "@import", "innerHTML"] {
        ensure!(!page.body.contains(elsewhere), "the page has {elsewhere}");
    }
    let other = client.get("/api/docs")?;
    ensure!(other.header("content-security-policy") != Some(policy), "a nonce is used once");
    Ok(())
}

pub fn routes(world: &World) -> Result<()> {
    for node in [&world.master, &world.replica] {
        let client = node.client()?;
        let operations = operations(node)?;
        ensure!(operations.len() > 25, "only {operations:?}");
        for operation in &operations {
            let reply = ask(&client, operation)?;
            ensure!(reply.status != 405, "{operation:?} of {}: {}", node.name(), reply.body);
            ensure!(!reply.body.contains("there is no route"), "{operation:?} of {}: {}", node.name(), reply.body);
        }
    }
    Ok(())
}

pub fn writes_on_a_replica(world: &World) -> Result<()> {
    let mut refused = 0;
    let is_taken = |path: &str| path.starts_with(TAKEN[2]) || TAKEN.iter().any(|end| path.ends_with(end));
    for client in
        [world.replica.client()?, world.replica.client()?.with_token(&world.admin.token().context("a token")?)]
    {
        for operation in operations(&world.master)? {
            if operation.0 == Method::GET || is_taken(&operation.1) {
                continue;
            }
            let reply = ask(&client, &operation)?;
            ensure!(reply.status == 403, "{operation:?}: {} {}", reply.status, reply.body);
            ensure!(reply.body == r#"{"error": "replica is read-only", "code": 403}"#, "{operation:?}: {}", reply.body);
            refused += 1;
        }
    }
    ensure!(refused > 30, "only {refused} writes");
    Ok(())
}
