//! A replica with another secret than the master's: nothing of the master is served, and both logs say what is wrong and
//! what to do. With the right secret it is a replica like any other.

use anyhow::{Context, Result, ensure};
use e2e::client::{SECRET, records};
use e2e::cluster::{ADMIN, READY};
use e2e::eventually;
use e2e::output::log_field;
use reqwest::Method;
use serde_json::json;
use vski_replication::names::route;
use vski_replication::token::{Claims, Secrets};

use super::cluster::Cluster;
use super::node::{Node, assert_equal};
use super::part::Part;

const WRONG: &str = "a-secret-of-somebody-else-with-more-than-32-characters";

/// In the master's only row, and nowhere else.
const CONFIDENTIAL: &str = "nobody else's business";

/// What the master says of a token that it refuses.
const REFUSED: &str = "replica authentication failed";

pub fn scenario(cluster: &Cluster) -> Result<()> {
    let (mut master, replica) = (cluster.master()?, cluster.replica("r001")?);
    let mut replica = replica.env("JWT_SECRET", WRONG);
    cluster.expect("master", &[REFUSED]);
    cluster.expect("r001-agent", &["\"error_name\":\"unauthorized\""]);
    master.start_ready()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text")])?;
    admin.create_record("posts", &json!({"title": CONFIDENTIAL}))?;

    replica.start()?;
    let agent = replica.agent.as_ref().context("an agent")?;
    let told = wait_line(agent, "sync failed")?;
    let field = |name| log_field(&told, name).unwrap_or_default();
    ensure!(field("error_name") == "unauthorized", "{told}");
    ensure!(field("error").contains("JWT_SECRET must be the same"), "{told}");
    ensure!(field("remedy").contains("set the master's JWT_SECRET here"), "{told}");
    let told = wait_line(&master.server, REFUSED)?;
    ensure!(log_field(&told, "id").as_deref() == Some("r001"), "the master does not say who: {told}");
    ensure!(
        log_field(&told, "peer").is_some_and(|peer| !peer.is_empty()),
        "the master does not say from where: {told}"
    );
    nothing_is_served(&replica)?;
    nothing_is_told(&master)?;

    replica.stop()?;
    let mut replica = replica.env("JWT_SECRET", SECRET);
    replica.start()?;
    assert_equal(&master, &[&replica]).context("with the right secret")
}

fn wait_line(part: &Part, text: &str) -> Result<String> {
    eventually(&format!("{} says {text:?}", part.name()), READY, || {
        Ok(part.lines().into_iter().find(|line| line.contains(text)))
    })
}

/// The replica answers every question, with nothing.
fn nothing_is_served(replica: &Node) -> Result<()> {
    let client = replica.client()?;
    let login = json!({"identity": ADMIN.0, "password": ADMIN.1});
    for (method, path, body) in [
        (Method::GET, records("posts"), None),
        (Method::GET, "/api/collections".to_owned(), None),
        (Method::GET, "/api/databases".to_owned(), None),
        (Method::GET, "/readyz".to_owned(), None),
        (Method::POST, "/api/admins/auth-with-password".to_owned(), Some(&login)),
    ] {
        let reply = client.send(method.clone(), &path, body)?;
        ensure!(reply.status >= 400, "{method} {path}: {reply:?}");
        ensure!(!reply.body.contains(CONFIDENTIAL), "{method} {path}: {reply:?}");
    }
    Ok(())
}

/// The master tells a stranger's token nothing, on any route of replicas.
fn nothing_is_told(master: &Node) -> Result<()> {
    let client = master.client()?.with_token(&Secrets::new(WRONG, None).mint(&Claims::replica("r001", 60)));
    for path in [route::STATUS, route::CHANGESET, route::SNAPSHOT, route::SCHEMA_SYNC] {
        let reply = client.get(&format!("{path}?db=default&version=0"))?;
        ensure!(reply.status == 401 && !reply.body.contains(CONFIDENTIAL), "{path}: {reply:?}");
    }
    Ok(())
}
