//! What HAProxy, Nginx and Traefik all have to do: the order of the routes, and reads that survive whatever happens to the
//! nodes behind them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, records};
use e2e::docker::docker;
use e2e::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use super::images::Images;
use super::kept::head;
use super::plain::NO_ADMIN;
use super::project::{ADMIN, Project, READY};
use super::quiet::proxy;
use super::{broken, stranger};
use e2e::reads::{NODES, Reads, Tells, read};

/// How long a read may take while a node fails: the 5 s that the files give a node, twice because two may have failed,
/// and what a busy machine adds. Where a file sets no limit, load balancers wait for a minute or for ever.
pub const FAULT_LIMIT: Duration = Duration::from_secs(30);

/// How far behind a replica may be before it gets no reads: by checks, or by its own refusal.
const ACTIVE_MAX_LAG: (&str, &str) = ("LB_MAX_LAG", "12s");
const PASSIVE_MAX_LAG: (&str, &str) = ("MAX_LAG_SECONDS", "12");

/// The same, as a client asks a node.
const MAX_LAG: &str = "/readyz?max_lag=12s";

/// Plain reads that show who takes part: each of three readers is missed by all of them by chance never.
const SPREAD: usize = 60;

/// A WebSocket's key and the answer to it, from RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What nodes say of these faults: a fresh master lacks an admin, and agents lose it when it is killed.
const EXPECTED: [&str; 2] = [NO_ADMIN, "sync failed"];

/// A topology behind a load balancer, with an admin and some rows.
pub struct Balanced {
    pub project: Project,
    pub service: &'static str,
    /// Talks to the load balancer, as the admin.
    pub admin: Client,
}

pub fn haproxy(images: &Images) -> Result<()> {
    scenario("haproxy", images)
}

pub fn nginx(images: &Images) -> Result<()> {
    scenario("nginx", images)
}

pub fn traefik(images: &Images) -> Result<()> {
    scenario("traefik", images)
}

fn scenario(service: &'static str, images: &Images) -> Result<()> {
    let max_lag = if service == "nginx" { PASSIVE_MAX_LAG } else { ACTIVE_MAX_LAG };
    let mut balanced = Balanced::up(service, images, &[max_lag])?;
    broken::scenario(&mut balanced).with_context(|| format!("{service}: a broken line is noticed"))?;
    let step = |name: &str, step: fn(&Balanced) -> Result<()>| {
        let began = std::time::Instant::now();
        step(&balanced).with_context(|| format!("{service}: {name}"))?;
        println!("    {service}: {name}: {:.1} s", began.elapsed().as_secs_f64());
        anyhow::Ok(())
    };
    // On a busy machine a node may answer a check too late, and is not asked for a moment: then others answer for it.
    step("routes", |balanced| eventually("all routes are right", READY, || routes(balanced).map(|()| true)))?;
    step("reading one's own writes", own_writes)?;
    step("a node is killed and comes back elsewhere", killed)?;
    step("a node is paused", paused)?;
    step("the master is paused", paused_master)?;
    step("a stranger has a dead node's address at once", stranger::scenario)?;
    step("a stale replica leaves", stale)?;
    step("no master", no_master)?;
    step("upgrades and client addresses", upgrades)?;
    step("the master is back", master_back)?;
    balanced.project.assert_quiet(&[&EXPECTED[..], proxy(service)].concat())?;
    balanced.project.succeeded();
    Ok(())
}

impl Balanced {
    /// Starts `compose/<service>.yaml` and fills a collection, all through the load balancer.
    pub fn up(service: &'static str, images: &Images, settings: &[(&str, &str)]) -> Result<Self> {
        let project = Project::up(&format!("{service}.yaml"), Some(service), images, settings)?;
        project.make_admin()?;
        let client = project.client(service, 8080)?;
        let admin =
            eventually("the load balancer knows the master", READY, || client.login(ADMIN.0, ADMIN.1).map(Some))?;
        admin.create_collection("posts", &[("n", "number")])?;
        (0..10).try_for_each(|n| admin.create_record("posts", &json!({"n": n})).map(drop))?;
        for node in NODES {
            let direct = project.client(node, 3001)?;
            eventually(&format!("{node} has all rows"), READY, || Ok(direct.count("posts")? == 10))?;
        }
        let balanced = Self { project, service, admin };
        balanced.wait_routed()?;
        Ok(balanced)
    }

    /// Waits until the load balancer has found all nodes fit.
    pub fn wait_routed(&self) -> Result<()> {
        for node in NODES {
            let client = self.of(node)?;
            eventually(&format!("{node} is routed to"), READY, || Ok(who(&client, Method::GET)? == node))?;
        }
        Ok(())
    }

    /// Starts the load balancer anew, with a file in place of its own, or with its own.
    pub fn replace(&mut self, file: Option<(&str, &str)>) -> Result<()> {
        self.project.up_again(self.service, file)?;
        let token = self.admin.token().context("a login")?;
        self.admin = self.project.client(self.service, 8080)?.with_token(&token);
        Ok(())
    }

    /// A client that asks for a node.
    pub fn of(&self, node: &str) -> Result<Client> {
        self.admin.with_header("x-replica-id", node)
    }

    /// Waits until both replicas are read again.
    pub fn caught_up(&self) -> Result<()> {
        for node in ["r001", "r002"] {
            self.project.wait_healthy(&format!("{node}-agent"))?;
            let client = self.of(node)?;
            eventually(&format!("{node} is read again"), READY, || Ok(who(&client, Method::GET)? == node))?;
        }
        Ok(())
    }

    /// Which nodes answer plain reads.
    fn spread(&self) -> Result<Vec<String>> {
        let path = records("posts");
        let mut nodes = (0..SPREAD).map(|_| read(&self.admin, &path)).collect::<Result<Vec<_>>>()?;
        nodes.sort_unstable();
        nodes.dedup();
        Ok(nodes)
    }
}

/// Who answers a request for the collection's records, whatever the answer is.
fn who(client: &Client, method: Method) -> Result<String> {
    // A body that a refusal leaves unread would end the connection, and the next request on it might fail.
    let body = (method == Method::POST).then(|| json!({"n": 1}));
    let reply = client.send(method, &records("posts"), body.as_ref())?;
    let node = reply.header("x-replica-id").with_context(|| format!("nobody's answer: {reply:?}"))?;
    Ok(node.to_owned())
}

/// A write or an upgrade goes to the master, whatever else it says; a known id or subdomain to its replica; an unknown
/// id to the master; the rest to all.
pub fn routes(balanced: &Balanced) -> Result<()> {
    let plain = &balanced.admin;
    let host = |host: &str| plain.with_header("host", host);
    for (what, client, node) in [
        ("id r001", balanced.of("r001")?, "r001"),
        ("id r002", balanced.of("r002")?, "r002"),
        ("subdomain r001", host("r001.example.com")?, "r001"),
        ("subdomain R002, with a port", host("R002.example.com:8080")?, "r002"),
        ("id before subdomain", host("r001.example.com")?.with_header("x-replica-id", "r002")?, "r002"),
        ("unknown id before subdomain", host("r001.example.com")?.with_header("x-replica-id", "r9")?, "master"),
        ("unknown id", balanced.of("r999")?, "master"),
        ("the master's id", balanced.of("master")?, "master"),
        ("a list of ids", balanced.of("r001, r002")?, "master"),
        ("subdomain r001 and an empty id", host("r001.example.com")?.with_header("x-replica-id", "")?, "r001"),
        ("id r002 and an empty Upgrade", balanced.of("r002")?.with_header("upgrade", "")?, "r002"),
    ] {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            let found = who(&client, method.clone())?;
            ensure!(found == node, "{method} with {what} was answered by {found}");
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let found = who(&client, method.clone())?;
            ensure!(found == "master", "{method} with {what} was answered by {found}");
        }
    }
    let answer = upgrade(&balanced.project.url(balanced.service, 8080)?, "X-Replica-Id: r001", "")?;
    ensure!(answer.to_ascii_lowercase().contains("x-replica-id: master"), "an upgrade with r001's id: {answer}");
    let posted = balanced.of("r001")?.create_record("posts", &json!({"n": 11})).context("POST with X-Replica-Id")?;
    ensure!(posted["n"] == 11, "{posted}");
    let nodes = balanced.spread()?;
    ensure!(nodes == NODES, "plain reads were answered by {nodes:?} only");
    internal(balanced)
}

/// What nodes and Prometheus ask of each other is not for clients.
fn internal(balanced: &Balanced) -> Result<()> {
    for path in ["/metrics", "/api/replica", "/api/replica/status", "/api/replica/sync"] {
        for method in [Method::GET, Method::POST] {
            let reply = balanced.of("r001")?.send(method.clone(), path, None)?;
            let refused = reply.status == 403 && reply.header("x-replica-id").is_none();
            ensure!(refused, "{method} {path} was answered: {reply:?}");
        }
    }
    let reply = balanced.admin.get("/api/replicas")?;
    ensure!(reply.header("x-replica-id").is_some(), "/api/replicas is none of them: {reply:?}");
    let direct = balanced.project.client("r001", 3001)?.get("/metrics")?;
    ensure!(direct.status == 200, "a node itself has no metrics: {direct:?}");
    Ok(())
}

/// Both replicas stand still, and a read that names its write gets it all the same, also from a node's own address.
fn own_writes(balanced: &Balanced) -> Result<()> {
    let project = &balanced.project;
    project.compose(&["pause", "r001-agent", "r002-agent"])?;
    // A reader that keeps its position for itself misses what it wrote, and that is noticed.
    let forgetful = Reads::by(&balanced.admin, "posts", &[Some(Tells::Nothing)]);
    forgetful.wait_stale()?;
    let missed = forgetful.report()?;
    ensure!(missed.failures.is_empty() && missed.refused.is_empty(), "{missed:?}");
    let written = balanced.admin.send(Method::POST, &records("posts"), Some(&json!({"n": 77})))?.ok()?;
    let id = written.json()?["id"].as_str().context("an id")?.to_owned();
    let behind = project.client("r001", 3001)?.record("posts", &id)?;
    ensure!(behind.is_none(), "the replica was not behind, so nothing was shown");
    let cookie = written.header("set-cookie").context("a cookie")?.split(';').next().unwrap_or_default().to_owned();
    for (what, name, value) in [("header", "x-vski-min-position", written.position()?), ("cookie", "cookie", &cookie)] {
        for client in [balanced.admin.clone(), balanced.of("r001")?, balanced.of("r002")?] {
            let found = client.with_header(name, value)?.record("posts", &id)?;
            ensure!(found.is_some(), "a read with the position in a {what} missed its write");
        }
    }
    project.compose(&["unpause", "r001-agent", "r002-agent"])?;
    balanced.caught_up()
}

/// A replica dies, its address goes to a server that is no VSKI and answers everything, and it comes back elsewhere.
fn killed(balanced: &Balanced) -> Result<()> {
    let project = &balanced.project;
    let old = project.address("r001")?;
    let reads = Reads::start(&balanced.admin, "posts");
    project.kill("r001")?;
    // Nginx learns of it from the first read that fails: who gets the address before that would be asked.
    let to_r001 = balanced.of("r001")?;
    eventually("the load balancer has noticed", READY, || Ok(read(&to_r001, &records("posts"))? != "r001"))?;
    let stranger =
        eventually("its address is free", READY, || project.stranger("stranger", &["--ip", &old], &[]).map(Some))?;
    for _ in 0..20 {
        let node = read(&to_r001, &records("posts"))?;
        ensure!(node != "r001", "the dead answered");
    }
    project.compose(&["start", "r001"])?;
    ensure!(project.address("r001")? != old, "it has its old address, so nothing was shown");
    balanced.caught_up()?;
    reads.stop(FAULT_LIMIT)?;
    docker(&["rm", "--force", stranger.trim()]).map(drop)
}

/// A replica stops answering without being gone.
fn paused(balanced: &Balanced) -> Result<()> {
    let project = &balanced.project;
    let reads = Reads::start(&balanced.admin, "posts");
    project.compose(&["pause", "r002"])?;
    for _ in 0..3 {
        let node = read(&balanced.of("r002")?, &records("posts"))?;
        ensure!(node != "r002", "the paused one answered");
    }
    project.compose(&["unpause", "r002"])?;
    balanced.caught_up()?;
    reads.stop(FAULT_LIMIT).map(drop)
}

/// The master stops answering without being gone: reads go on, each within its limit. A reader that told of a write that
/// nobody else has may be refused, and no other.
fn paused_master(balanced: &Balanced) -> Result<()> {
    let project = &balanced.project;
    let plain = Reads::by(&balanced.admin, "posts", &[None, None]);
    let telling = Reads::by(&balanced.admin, "posts", &[Some(Tells::Header), Some(Tells::Cookie)]);
    project.compose(&["pause", "master"])?;
    let node = read(&balanced.of("master")?, &records("posts"))?;
    ensure!(node != "master", "the paused one answered");
    project.compose(&["unpause", "master"])?;
    let master = balanced.of("master")?;
    eventually("the master is read again", READY, || Ok(who(&master, Method::GET)? == "master"))?;
    balanced.caught_up()?;
    plain.stop(FAULT_LIMIT)?;
    telling.stop_without_master(FAULT_LIMIT).map(drop)
}

/// A replica whose agent stands still gets no more reads once it is too far behind, and gets them again afterwards.
fn stale(balanced: &Balanced) -> Result<()> {
    let project = &balanced.project;
    project.compose(&["pause", "r001-agent"])?;
    let reads = Reads::start(&balanced.admin, "posts");
    let direct = project.client("r001", 3001)?;
    // Without a load balancer a reader is answered by whom it asks; one that has MAX_LAG_SECONDS refuses by itself.
    let plain: &[Option<Tells>] = if balanced.service == "nginx" { &[] } else { &[None] };
    let unguarded = Reads::by(&direct, "posts", plain);
    eventually("the replica is too far behind", READY, || Ok(direct.get(MAX_LAG)?.status == 503))?;
    reads.beyond("r001");
    unguarded.beyond("r001");
    let client = balanced.of("r001")?;
    eventually("the stale replica is left", READY, || Ok(read(&client, &records("posts"))? != "r001"))?;
    // Traefik checks for each of its services on its own.
    eventually("no read is a stale replica's", READY, || Ok(!balanced.spread()?.iter().any(|node| node == "r001")))?;
    reads.wait_watched(SPREAD)?;
    if balanced.service != "nginx" {
        unguarded.wait_stale()?;
        let told = unguarded.report()?;
        ensure!(told.failures.is_empty(), "{told:?}");
    }
    reads.fresh("r001");
    project.compose(&["unpause", "r001-agent"])?;
    balanced.caught_up()?;
    reads.stop(FAULT_LIMIT).map(drop)
}

/// Without the master reads go on and writes fail, once.
fn no_master(balanced: &Balanced) -> Result<()> {
    let reads = Reads::start(&balanced.admin, "posts");
    balanced.project.kill("master")?;
    for client in [balanced.admin.clone(), balanced.of("master")?, balanced.of("r999")?, balanced.of("r001")?] {
        let node = read(&client, &records("posts"))?;
        ensure!(node != "master", "the dead answered");
    }
    // A load balancer may close a connection that it has kept, instead of an answer.
    eventually("a write is refused", READY, || {
        let refused = balanced.admin.send(Method::POST, &records("posts"), Some(&json!({"n": 1})))?;
        ensure!(matches!(refused.status, 502..=504), "a write was answered {}: {}", refused.status, refused.body);
        Ok(true)
    })?;
    reads.stop_without_master(FAULT_LIMIT).map(drop)
}

/// In the master's place stands a server that upgrades and tells what it was asked.
fn upgrades(balanced: &Balanced) -> Result<()> {
    let project = &balanced.project;
    let accept = format!("Sec-WebSocket-Accept: {ACCEPT}");
    let fields = ["X-Replica-Mode: master", "X-Replica-Id: master", &accept];
    let stranger = project.stranger("echo", &["--network-alias", "master"], &fields)?;
    let url = project.url(balanced.service, 8080)?;
    let claimed = balanced.admin.with_header("x-forwarded-for", "203.0.113.7")?;
    let asked = eventually("writes reach the new master", READY, || {
        let reply = claimed.send(Method::POST, "/api/anything", Some(&Value::Null))?.ok()?;
        Ok(reply.body.starts_with("echo").then_some(reply.body))
    })?;
    let wanted = format!("x-forwarded-for: {}", project.gateway(balanced.service)?);
    let forwarded = asked.lines().map(str::to_ascii_lowercase).filter(|line| line.starts_with("x-forwarded-for:"));
    let forwarded: Vec<String> = forwarded.collect();
    ensure!(forwarded == [wanted.clone()], "{forwarded:?} instead of {wanted}");
    let answer = upgrade(&url, "X-Replica-Id: r001", "some bytes")?;
    ensure!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("some bytes"), "{answer}");
    docker(&["rm", "--force", stranger.trim()]).map(drop)
}

/// After all of it the nodes hold the same, and are routed to.
fn master_back(balanced: &Balanced) -> Result<()> {
    balanced.project.compose(&["start", "master"])?;
    balanced.project.wait_healthy("master")?;
    balanced.caught_up()?;
    balanced.project.equal(&["posts"])
}

/// Asks for a WebSocket. Returns the answer's head, and after a 101 the echo of `bytes`.
fn upgrade(url: &str, field: &str, bytes: &str) -> Result<String> {
    let address = url.strip_prefix("http://").context("an http URL")?;
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(FAULT_LIMIT))?;
    write!(
        connection,
        "GET /api/realtime HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{field}\r\n\r\n"
    )?;
    let mut answer = head(&mut connection)?;
    if answer.starts_with("HTTP/1.1 101 ") {
        connection.write_all(bytes.as_bytes())?;
        let mut echo = vec![0; bytes.len()];
        connection.read_exact(&mut echo).context("read the echo")?;
        answer.push_str(&String::from_utf8_lossy(&echo));
    }
    Ok(answer)
}
