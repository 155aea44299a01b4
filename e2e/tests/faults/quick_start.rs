//! The quick start of the specification, in containers: its commands and its variables. Only the master's address is
//! another, since `localhost` is each container's own; it is the one that the specification uses further down.

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, records};
use e2e::cluster::{ADMIN, READY};
use e2e::eventually;
use reqwest::Method;
use serde_json::json;

use super::cluster::Cluster;
use super::node::Node;

const SECRET: &str = "your-shared-secret";

pub fn scenario(cluster: &Cluster) -> Result<()> {
    let mut master = printed(cluster.master()?);
    for name in ["REPLICA_MODE", "REPLICA_ID"] {
        master.server.unset(name);
    }
    let mut replica = printed(cluster.embedded("replica")?).env("SYNC_INTERVAL", "5");
    for name in ["SYNC_MODE", "REPLICA_ID"] {
        replica.server.unset(name);
    }
    for name in ["master", "replica"] {
        cluster.expect(name, &["JWT_SECRET is shorter than 32 characters"]);
    }

    master.start_ready()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text"), ("content", "text")])?;
    admin.create_record("posts", &json!({"title": "Before", "content": "the replica came"}))?;
    replica.start_ready()?;
    let client = replica.client()?;
    ensure!(client.count("posts")? == 1, "the first sync brought what there was");
    admin.create_record("posts", &json!({"title": "After", "content": "by periodic sync"}))?;
    eventually("a record written later arrives", READY, || Ok(client.count("posts")? == 2))?;

    let refused = client.send(Method::POST, &records("posts"), Some(&json!({"title": "New Post"})))?;
    ensure!(refused.status == 403, "{refused:?}");
    ensure!(refused.json()? == json!({"error": "replica is read-only", "code": 403}), "{}", refused.body);
    told_by_headers(&master.client()?, &client)?;
    client.login(ADMIN.0, ADMIN.1).context("log in at the replica")?;
    replica.verify()
}

/// `vski-prod serve --port 3001` with `DATA_DIR=./data`. The image's working directory is the volume.
fn printed(node: Node) -> Node {
    let mut node = node.env("JWT_SECRET", SECRET).env("DATA_DIR", "./data");
    node.server.run(&["vski-prod", "serve", "--port", "3001"]);
    node
}

/// Ids are made by the nodes, since the quick start gives none.
fn told_by_headers(master: &Client, replica: &Client) -> Result<()> {
    let heads = [master, replica].map(|client| client.send(Method::HEAD, "/health", None));
    let [master, replica] = heads;
    let (master, replica) = (master?.ok()?, replica?.ok()?);
    let modes = [&master, &replica].map(|head| head.header("x-replica-mode"));
    ensure!(modes == [Some("master"), Some("replica")], "{modes:?}");
    let ids = [&master, &replica].map(|head| head.header("x-replica-id").unwrap_or_default());
    ensure!(ids[0] != ids[1] && ids.iter().all(|id| !id.is_empty()), "{ids:?}");
    let url = replica.header("x-master-url").context("no X-Master-Url")?;
    ensure!(url.trim_end_matches('/') == "http://master:3001", "{url}");
    Ok(())
}
