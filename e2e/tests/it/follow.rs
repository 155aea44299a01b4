use anyhow::{Result, ensure};
use e2e::client::collection;
use e2e::cluster::assert_quiet;
use e2e::load::{self, Load};
use e2e::{Cluster, Node};
use serde_json::json;

use crate::trio::{POSTS, Trio};

/// Writes that happen between two schema changes.
const SOME: u64 = 50;

#[test]
fn new_fields_collections_and_databases_arrive_on_every_replica_under_load() -> Result<()> {
    let cluster = Cluster::new()?;
    follow(&Trio::start(&cluster, Node::start)?)
}

#[test]
fn a_server_that_starts_before_its_agent_serves_as_soon_as_there_is_something() -> Result<()> {
    let cluster = Cluster::new()?;
    follow(&Trio::start(&cluster, Node::start_server_first)?)
}

fn follow(trio: &Trio) -> Result<()> {
    let load = Load::start(trio.admin.clone(), POSTS, load::seed()?);
    load.wait_for(SOME)?;
    let mut wider = collection(POSTS, &load::FIELDS);
    let fields = wider["fields"].as_array_mut().into_iter();
    fields.for_each(|fields| fields.push(json!({"name": "likes", "type": "number"})));
    trio.admin.update_collection(POSTS, &json!({"fields": wider["fields"]}))?;
    load.wait_for(SOME)?;
    trio.admin.create_collection("authors", &[("name", "text"), ("active", "bool"), ("profile", "json")])?;
    trio.admin.create_record("authors", &json!({"name": "Ada", "active": true, "profile": {"born": 1815}}))?;
    load.wait_for(SOME)?;
    trio.admin.create_database("shop")?;
    let shop = trio.admin.with_db("shop");
    shop.create_collection("items", &[("price", "number")])?;
    shop.create_record("items", &json!({"price": 12.5}))?;
    load.wait_for(SOME)?;
    let ledger = load.stop()?;

    trio.wait_equal()?;
    let expected = trio.admin.count(POSTS)?;
    for node in trio.nodes() {
        ledger.check(&node.client()?)?;
        ensure!(node.client()?.count(POSTS)? == expected, "{}: another number of posts", node.name());
        ensure!(node.client()?.count("authors")? == 1, "{}: no author", node.name());
        let item = &node.client()?.with_db("shop").all_records("items")?[0];
        ensure!(item["price"] == 12.5, "{}: {item}", node.name());
        let by_parameter = node.client()?.get("/api/collections/items/records?db=shop")?.ok()?.json()?;
        ensure!(by_parameter["totalItems"] == 1, "{}: {by_parameter}", node.name());
    }
    assert_quiet(&trio.nodes(), &[])
}
