use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use e2e::client::Client;
use e2e::{Cluster, Node};
use reqwest::Method;
use serde_json::{Value, json};

/// Everything that requests are sent to.
pub struct World {
    // Before the directories, which must go last.
    pub master: Node,
    pub replica: Node,
    pub admin: Client,
    /// Record ids by collection.
    collections: BTreeMap<String, Vec<String>>,
    cluster: Cluster,
}

/// Collections that may be deleted.
const SPARE: [&str; 3] = ["spare1", "spare2", "spare3"];

impl World {
    /// A master with a base, an auth and a view collection, and a replica that has all of it.
    pub fn start() -> Result<Self> {
        let cluster = Cluster::new()?;
        let mut master = cluster.master("master")?.env("LOGIN_ATTEMPTS_PER_ADDRESS", "0");
        master.start()?;
        let admin = master.admin()?;
        let collections = fill(&admin)?;
        let mut replica = cluster.embedded("replica", &master)?.env("LOGIN_ATTEMPTS_PER_ADDRESS", "0");
        replica.start()?;
        replica.wait_ready()?;
        Ok(Self { master, replica, admin, collections, cluster })
    }

    /// Where its data lie, and what else the scenarios write.
    pub fn directory(&self) -> &Path {
        self.cluster.path()
    }

    /// What the hooks of e2e/tools/openapi_hooks.py put into requests.
    pub fn known(&self) -> String {
        json!({ "collections": self.collections, "spare": SPARE, "db": "default" }).to_string()
    }
}

fn fill(admin: &Client) -> Result<BTreeMap<String, Vec<String>>> {
    let rules = json!({ "listRule": "", "viewRule": "", "createRule": "", "updateRule": "", "deleteRule": null });
    let with_rules = |mut collection: Value| {
        let rules = rules.as_object().cloned().unwrap_or_default();
        collection.as_object_mut().expect("an object").extend(rules);
        collection
    };
    let users = make(
        admin,
        &with_rules(json!({ "name": "users", "type": "auth", "fields": [{ "name": "name", "type": "text" }] })),
    )?;
    let fields = json!([
        { "name": "title", "type": "text" },
        { "name": "body", "type": "editor" },
        { "name": "stars", "type": "number" },
        { "name": "open", "type": "bool" },
        { "name": "mail", "type": "email" },
        { "name": "link", "type": "url" },
        { "name": "day", "type": "date" },
        { "name": "kind", "type": "select", "values": ["a", "b", "c"], "maxSelect": 2 },
        { "name": "data", "type": "json" },
        { "name": "author", "type": "relation", "collectionId": users },
    ]);
    make(admin, &with_rules(json!({ "name": "posts", "fields": fields })))?;
    let query = "SELECT id, title, stars FROM posts";
    let view = json!({ "name": "titles", "type": "view", "viewQuery": query, "listRule": "", "viewRule": "" });
    make(admin, &view)?;
    for name in SPARE {
        make(admin, &json!({ "name": name, "fields": [{ "name": "a", "type": "text" }] }))?;
    }
    let password = "correct horse battery";
    let user = json!({ "email": "reader@example.com", "password": password, "passwordConfirm": password, "name": "R" });
    let user = text(&admin.create_record("users", &user)?, "id")?;
    let mut posts = Vec::new();
    for n in 0..5 {
        let post =
            json!({ "title": format!("post {n}"), "stars": n, "kind": ["a"], "data": { "n": n }, "author": user });
        posts.push(text(&admin.create_record("posts", &post)?, "id")?);
    }
    let collections = [("posts", posts.clone()), ("users", vec![user]), ("titles", posts)];
    Ok(collections.into_iter().map(|(name, ids)| (name.to_owned(), ids)).collect())
}

/// Makes a collection, and returns its id.
fn make(admin: &Client, collection: &Value) -> Result<String> {
    text(&admin.send(Method::POST, "/api/collections", Some(collection))?.ok()?.json()?, "id")
}

fn text(value: &Value, key: &str) -> Result<String> {
    Ok(value[key].as_str().with_context(|| format!("no {key} in {value}"))?.to_owned())
}
