//! Databases are deleted softly: gone for everybody on all nodes, with their files and names kept, until restored.

use anyhow::{Result, ensure};
use e2e::cluster::READY;
use e2e::{Cluster, Node, content, eventually};
use reqwest::Method;
use serde_json::json;

const SHOP: &str = "shop";

fn delete(master: &Node) -> Result<()> {
    let reply = master.admin()?.send(Method::DELETE, "/api/databases/shop", None)?;
    ensure!(reply.status == 204 && reply.position()?.starts_with("default:"), "{reply:?}");
    Ok(())
}

fn wait_status(node: &Node, status: u16) -> Result<()> {
    let client = node.client()?.with_db(SHOP);
    eventually(&format!("{} answers {status} for shop", node.name()), READY, || {
        let reply = client.get("/api/collections/items/records")?;
        ensure!(reply.status == status, "{} {}", reply.status, reply.body);
        Ok(true)
    })
}

#[test]
fn a_deleted_database_is_gone_on_all_nodes_until_it_is_restored() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_database(SHOP)?;
    let shop = admin.with_db(SHOP);
    shop.create_collection("items", &[("title", "text")])?;
    shop.create_record("items", &json!({"title": "kept"}))?;
    let mut parent = cluster.external("parent", &master)?.env("SYNC_MODE", "stream");
    parent.start()?;
    let mut child = cluster.embedded("child", &parent)?;
    child.start()?;
    for node in [&parent, &child] {
        node.wait_ready()?;
        wait_status(node, 200)?;
    }

    delete(&master)?;
    [&master, &parent, &child].into_iter().try_for_each(|node| wait_status(node, 404))?;
    let list = admin.get("/api/databases")?.ok()?.json()?;
    ensure!(list["items"] == json!([{"name": "default"}]) && list["deleted"] == json!([SHOP]), "{list}");
    let again = admin.send(Method::DELETE, "/api/databases/shop", None)?;
    ensure!(again.status == 404, "{again:?}");
    let taken = admin.send(Method::POST, "/api/databases", Some(&json!({"name": "Shop"})))?;
    ensure!(taken.status == 400 && taken.body.contains("was deleted"), "{taken:?}");

    // Nobody forgets it by a restart, whether the master is there or not.
    parent.kill9()?;
    master.stop()?;
    parent.start()?;
    wait_status(&parent, 404)?;
    parent.wait_ready()?;
    master.start()?;
    wait_status(&master, 404)?;
    for node in [&master, &parent, &child] {
        ensure!(node.file(SHOP).exists(), "{} has thrown the file away", node.name());
    }

    let restored = admin.send(Method::POST, "/api/databases/shop/restore", None)?;
    ensure!(restored.status == 200, "{restored:?}");
    shop.create_record("items", &json!({"title": "new"}))?;
    content::wait_all_equal(&[master.dir(), parent.dir(), child.dir()], READY)?;
    for node in [&master, &parent, &child] {
        wait_status(node, 200)?;
        ensure!(node.client()?.with_db(SHOP).count("items")? == 2);
    }
    e2e::cluster::assert_quiet(&[&child], &["sync failed", "missing_on_master"])
}

#[test]
fn the_default_database_and_what_is_none_cannot_be_deleted() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    for (name, status) in [("default", 400), ("nothing", 404), ("..%2Fdefault", 404), ("stats", 404)] {
        let reply = admin.send(Method::DELETE, &format!("/api/databases/{name}"), None)?;
        ensure!(reply.status == status, "{name}: {reply:?}");
        let reply = admin.send(Method::POST, &format!("/api/databases/{name}/restore"), None)?;
        ensure!(reply.status == 404, "{name}: {reply:?}");
    }
    let guest = master.client()?.send(Method::DELETE, "/api/databases/shop", None)?;
    ensure!(guest.status == 401, "{guest:?}");
    Ok(())
}

#[test]
fn a_promoted_replica_knows_which_databases_are_deleted() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    master.admin()?.create_database(SHOP)?;
    let mut replica = cluster.external("replica", &master)?.env("SYNC_MODE", "stream");
    replica.start()?;
    replica.wait_ready()?;
    delete(&master)?;
    wait_status(&replica, 404)?;
    replica.sync()?;
    master.stop()?;
    replica.stop()?;
    let mut promote = replica.server.subcommand(&["promote", "--force"]);
    let done = e2e::process::run("promote", &mut promote, READY)?;
    ensure!(done.status.success(), "{done:?}");
    let mut replica = replica.env("REPLICA_MODE", "master");
    replica.server.start()?;
    let list = replica.admin()?.get("/api/databases")?.ok()?.json()?;
    ensure!(list["deleted"] == json!([SHOP]) && list["items"] == json!([{"name": "default"}]), "{list}");
    Ok(())
}
