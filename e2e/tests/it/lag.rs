use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, Reply, records, replica_token};
use e2e::cluster::{ADMIN, READY};
use e2e::{Cluster, Node, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// An idle stream is asked every two seconds, and node.db written once a second.
const IDLE_LAG: f64 = 5.0;

/// How long an idle replica is watched.
const WATCHED: Duration = Duration::from_secs(8);

/// Above [`IDLE_LAG`], so that only what a test does makes a replica stale.
const MAX_LAG: &str = "5";

fn started(cluster: &Cluster) -> Result<Node> {
    let mut master = cluster.master("master")?.env("MAX_LAG_SECONDS", "1");
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("n", "number")])?;
    admin.create_record("posts", &json!({"n": 1}))?;
    Ok(master)
}

fn metric(client: &Client, series: &str) -> Result<f64> {
    let text = client.get("/metrics")?.ok()?.body;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.with_context(|| format!("no {series}"))?.parse().context("a number")
}

fn lag_of_default(readyz: &Value) -> Option<f64> {
    readyz["dbs"].as_array()?.iter().find(|db| db["name"] == "default")?["lagSeconds"].as_f64()
}

#[test]
fn an_idle_streaming_replica_stays_fresh_and_knows_its_clock() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = started(&cluster)?;
    let mut embedded = cluster.embedded("embedded", &master)?;
    let mut external = cluster.external("external", &master)?.env("SYNC_MODE", "stream");
    for replica in [&mut embedded, &mut external] {
        replica.start()?;
        replica.wait_ready()?;
    }
    let pace = master.client()?.with_token(&replica_token("e2e"));
    for client in [embedded.client()?, external.client()?] {
        eventually("the lag is known and the clocks are compared", READY, || {
            let body = client.get("/readyz?max_lag=5s")?.ok()?.json()?;
            let skew = body["clockSkewSeconds"].as_f64().context("no clockSkewSeconds")?;
            ensure!(skew.abs() < 1.0, "nodes on one machine have one clock: {skew}");
            Ok(true)
        })?;
    }
    // A machine that stands still for seconds makes every replica stale: then it is watched anew.
    eventually("both replicas stay fresh for a while", READY, || {
        let started = Instant::now();
        while started.elapsed() < WATCHED {
            for client in [embedded.client()?, external.client()?] {
                let body = client.get("/readyz?max_lag=5s")?.ok()?.json()?;
                ensure!(lag_of_default(&body).is_some_and(|lag| lag < IDLE_LAG), "{body}");
                ensure!(metric(&client, "vski_replica_lag_seconds{db=\"default\"}")? < IDLE_LAG);
            }
            // A long poll that nothing ends: the time until the next look.
            pace.get("/api/replica/status?known=default&wait=1")?.ok()?;
        }
        Ok(true)
    })?;
    Ok(())
}

/// A data read, its HEAD, the catalogue, and readiness with a bound: all 503 with Retry-After, or all 200.
fn wait_for_reads(replica: &Node, token: &str, wanted: u16) -> Result<()> {
    let client = replica.client()?.with_token(token);
    eventually(&format!("reads of data answer {wanted}"), READY, || {
        for (method, path) in [
            (Method::GET, records("posts")),
            (Method::HEAD, records("posts")),
            (Method::GET, "/api/collections".to_owned()),
            (Method::GET, "/api/collections/posts".to_owned()),
            (Method::GET, format!("/readyz?max_lag={MAX_LAG}s")),
            (Method::GET, format!("/readyz?max_lag={MAX_LAG}000ms")),
        ] {
            let Reply { status, headers, body, .. } = client.send(method, &path, None)?;
            ensure!(status == wanted, "{path}: {status} {body}");
            ensure!(status == 200 || headers.contains_key("retry-after"), "{path}: no Retry-After");
        }
        Ok(true)
    })
}

/// What has nothing to do with how old the data are.
fn assert_the_rest_works(replica: &Node) -> Result<()> {
    let client = replica.client()?;
    for path in ["/readyz", "/readyz?max_lag=24h", "/health", "/api/health", "/livez", "/metrics"] {
        client.get(path)?.ok().context(path)?;
    }
    client.login(ADMIN.0, ADMIN.1)?;
    client.with_token(&replica_token("e2e")).get("/api/replica/status")?.ok()?;
    ensure!(client.send(Method::POST, &records("posts"), None)?.status == 403);
    ensure!(metric(&client, "vski_replica_lag_seconds{db=\"default\"}")? > MAX_LAG.parse()?);
    let stale = client.get(&records("posts"))?;
    ensure!(stale.status == 503 && stale.body.contains("s behind its master"), "{}", stale.body);
    Ok(())
}

#[test]
fn a_replica_whose_agent_is_frozen_or_dead_or_whose_master_is_gone_says_so_and_heals() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = started(&cluster)?;
    let mut replica = cluster.external("replica", &master)?.env("SYNC_MODE", "stream").env("MAX_LAG_SECONDS", MAX_LAG);
    replica.start()?;
    replica.wait_ready()?;
    let token = master.admin()?.token().context("a token")?;
    wait_for_reads(&replica, &token, 200)?;

    replica.agent.as_mut().context("an agent")?.process()?.pause()?;
    let client = replica.client()?;
    eventually("a second is noticed", READY, || Ok(client.get("/readyz?max_lag=1s")?.status == 503))?;
    wait_for_reads(&replica, &token, 503)?;
    assert_the_rest_works(&replica)?;
    replica.agent.as_mut().context("an agent")?.process()?.resume()?;
    wait_for_reads(&replica, &token, 200)?;

    replica.agent.as_mut().context("an agent")?.kill9()?;
    wait_for_reads(&replica, &token, 503)?;
    assert_the_rest_works(&replica)?;
    replica.server.stop()?;
    replica.server.start()?;
    wait_for_reads(&replica, &token, 503).context("after a restart of the server alone")?;
    replica.agent.as_mut().context("an agent")?.start()?;
    wait_for_reads(&replica, &token, 200)?;

    master.kill9()?;
    wait_for_reads(&replica, &token, 503)?;
    assert_the_rest_works(&replica)?;
    master.start()?;
    wait_for_reads(&replica, &token, 200)
}

#[test]
fn a_master_is_never_behind_and_a_lag_that_is_none_is_refused() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = started(&cluster)?;
    let admin = master.admin()?;
    for path in ["/readyz?max_lag=0s", "/readyz?max_lag=0", &records("posts"), "/api/collections"] {
        admin.get(path)?.ok().context(path.to_owned())?;
    }
    let mut replica = cluster.embedded("replica", &master)?;
    replica.start()?;
    replica.wait_ready()?;
    for client in [admin, replica.client()?] {
        for wrong in ["", "soon", "5x", "-1s", "1.5s", "5%20s"] {
            let reply = client.get(&format!("/readyz?max_lag={wrong}"))?;
            ensure!(reply.status == 400 && reply.body.contains("max_lag"), "{wrong}: {} {}", reply.status, reply.body);
        }
    }
    Ok(())
}
