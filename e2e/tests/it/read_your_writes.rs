use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::client::{Client, Reply, records};
use e2e::cluster::READY;
use e2e::program::Program;
use e2e::{Cluster, Node, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// Write-then-read pairs, shared by so many clients.
const PAIRS: u64 = 1_000;
const CLIENTS: u64 = 4;

/// How long the agent is frozen, and then let run, again and again.
const FROZEN: Duration = Duration::from_millis(15);

fn started(cluster: &Cluster) -> Result<(Node, Client)> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("n", "number")])?;
    Ok((master, admin))
}

/// A replica of two processes that streams, so that its agent alone can be frozen.
fn replica(cluster: &Cluster, name: &str, master: &Node, settings: &[(&str, &str)]) -> Result<Node> {
    let replica = cluster.external(name, master)?.env("SYNC_MODE", "stream");
    let mut replica = settings.iter().fold(replica, |replica, (name, value)| replica.env(name, *value));
    replica.start()?;
    replica.wait_ready()?;
    Ok(replica)
}

fn write(client: &Client, method: Method, path: &str, body: &Value) -> Result<Reply> {
    client.send(method, path, Some(body))?.ok()
}

/// Freezes and thaws the agent until told to stop.
fn stutter(agent: &mut Program, stop: &Receiver<()>) -> Result<()> {
    let process = agent.process()?;
    loop {
        process.pause()?;
        let stopped = stop.recv_timeout(FROZEN).is_ok();
        process.resume()?;
        if stopped || stop.recv_timeout(FROZEN).is_ok() {
            return Ok(());
        }
    }
}

/// Creates, changes and deletes records on the master, and looks for each change on the replica: at once, which may
/// miss it, and then with its position, which may not.
fn pairs(admin: &Client, replica: &Client, missed: &AtomicU64) -> Result<()> {
    let mut id = String::new();
    for number in 0..PAIRS / CLIENTS {
        let (method, path) = match number % 3 {
            0 => (Method::POST, records("posts")),
            1 => (Method::PATCH, format!("{}/{id}", records("posts"))),
            _ => (Method::DELETE, format!("{}/{id}", records("posts"))),
        };
        let written = write(admin, method.clone(), &path, &json!({"n": number}))?;
        if method == Method::POST {
            written.json()?["id"].as_str().context("an id")?.clone_into(&mut id);
        }
        let wanted = (method != Method::DELETE).then_some(number);
        let sees = |client: &Client| -> Result<bool> {
            Ok(client.record("posts", &id)?.map(|record| record["n"].as_u64()) == wanted.map(Some))
        };
        if !sees(replica)? {
            missed.fetch_add(1, Ordering::Relaxed);
        }
        let position = written.position()?;
        ensure!(sees(&replica.with_min_position(position))?, "{method} at {position} was not seen");
    }
    Ok(())
}

#[test]
fn a_read_that_names_its_write_never_misses_it_on_a_replica_that_lags() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = started(&cluster)?;
    let mut replica = replica(&cluster, "replica", &master, &[("MIN_POSITION_WAIT", "15s")])?;
    let (client, missed) = (replica.client()?, AtomicU64::new(0));
    let agent = replica.agent.as_mut().context("an agent of its own")?;
    let (stop, stopped) = channel();
    std::thread::scope(|scope| -> Result<()> {
        let frozen = scope.spawn(move || stutter(agent, &stopped));
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| pairs(&admin, &client, &missed))).collect();
        let ended: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        // Ended by itself: its own error is told below.
        let _ = stop.send(());
        frozen.join().map_err(|_| anyhow!("a thread panicked"))??;
        ended.into_iter().try_for_each(|client| client.map_err(|_| anyhow!("a client panicked"))?)
    })?;
    let missed = missed.into_inner();
    println!("{missed} of {PAIRS} reads without the position missed their write");
    ensure!(missed > 0, "the replica did not lag, so nothing was shown");
    Ok(())
}

#[test]
fn every_write_answers_where_it_stands_and_nothing_else_does() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = started(&cluster)?;
    let (shop, ann) = (admin.with_db("shop"), json!({"email": "ann@example.com", "password": "a long password"}));
    let mut last = std::collections::BTreeMap::new();
    let mut check = |db: &str, reply: &Reply| -> Result<()> {
        let status = admin.status_of(db)?;
        let number = |key: &str| status[key].as_u64().context(format!("{key} in {status}"));
        let (generation, version) = (number("generation")?, number("version")?);
        let expected = format!("{db}:{generation}-{}:{version}", status["epoch"].as_str().context("an epoch")?);
        ensure!(reply.position()? == expected, "{} instead of {expected}", reply.position()?);
        let before = last.insert(db.to_owned(), version);
        ensure!(before.is_none_or(|before| before < version), "{db}: {version} after {before:?}");
        Ok(())
    };
    check("shop", &write(&admin, Method::POST, "/api/databases", &json!({"name": "shop"}))?)?;
    let items = json!({"name": "items", "fields": [{"name": "n", "type": "number"}]});
    check("shop", &write(&shop, Method::POST, "/api/collections", &items)?)?;
    check("shop", &write(&shop, Method::PATCH, "/api/collections/items", &json!({"listRule": ""}))?)?;
    let made = write(&admin, Method::POST, &records("posts"), &json!({"n": 1}))?;
    check("default", &made)?;
    let record = format!("{}/{}", records("posts"), made.json()?["id"].as_str().context("an id")?);
    check("default", &write(&admin, Method::PATCH, &record, &json!({"n": 2}))?)?;
    check("default", &write(&admin, Method::DELETE, &record, &Value::Null)?)?;
    check("default", &write(&admin, Method::POST, "/api/collections/posts/import", &json!({"n": 3}))?)?;
    check("default", &write(&admin, Method::POST, "/api/admins", &ann)?)?;

    for (method, path, body) in [
        (Method::GET, records("posts"), Value::Null),
        (Method::POST, records("posts"), json!({"unknown": 1})),
        (Method::POST, "/api/admins/auth-with-password".to_owned(), ann),
    ] {
        let reply = admin.send(method, &path, Some(&body))?;
        ensure!(reply.header("x-vski-position").is_none(), "{path}: {:?}", reply.headers);
    }
    let own = master.admin()?.with_min_position(&format!(
        "default:1-{}:1",
        admin.status_of("default")?["epoch"].as_str().context("an epoch")?
    ));
    own.get(&records("posts"))?.ok().map(drop)
}

#[test]
fn a_position_is_heeded_by_reads_of_its_database_only_and_refused_where_it_cannot_be() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = started(&cluster)?;
    admin.create_database("shop")?;
    admin.with_db("shop").create_collection("posts", &[("n", "number")])?;
    let replica = replica(&cluster, "replica", &master, &[("MIN_POSITION_WAIT", "100ms")])?;
    let positions = ["default", "shop"].map(|db| -> Result<String> {
        let made = write(&admin.with_db(db), Method::POST, &records("posts"), &json!({"n": 1}))?;
        Ok(made.position()?.to_owned())
    });
    let [default, shop] = positions;
    let (default, shop) = (default?, shop?);
    let (epoch, _) = default.rsplit_once(':').context("a version")?;
    let never = format!("{epoch}:1000000");
    let (foreign, newer) = ("default:1-ffffffffffffffff:1", "default:2-ffffffffffffffff:1");
    eventually("the replica holds both writes", READY, || {
        let client = replica.client()?;
        Ok(client.count("posts")? == 1 && client.with_db("shop").count("posts")? == 1)
    })?;
    for (node, on_master) in [(&master, true), (&replica, false)] {
        let client = node.client()?;
        let status = |db: &str, positions: &str| -> Result<u16> {
            let reply = client.with_db(db).with_min_position(positions).get(&records("posts"))?;
            let retry_after = reply.header("retry-after").is_some();
            ensure!(retry_after == (reply.status == 503), "{}: {:?}", reply.status, reply.headers);
            Ok(reply.status)
        };
        for (db, positions, expected) in [
            ("default", default.clone(), 200),
            ("default", format!("{default}, {shop}"), 200),
            ("shop", format!("{shop},{default}"), 200),
            ("shop", format!("{never},{foreign}"), 200),
            ("default", format!("{epoch}:0"), 200),
            ("default", never.clone(), if on_master { 412 } else { 503 }),
            ("default", format!("{default},{never}"), if on_master { 412 } else { 503 }),
            ("default", foreign.to_owned(), 412),
            ("default", newer.to_owned(), if on_master { 412 } else { 503 }),
            ("default", "default".to_owned(), 400),
            ("shop", format!("{shop},default:7"), 400),
            ("shop", String::new(), 400),
        ] {
            let found = status(db, &positions).with_context(|| format!("{} of {db}: {positions}", node.name()))?;
            ensure!(found == expected, "{}: {db} with {positions:?} answered {found}", node.name());
        }
        if on_master {
            let beyond = client.with_min_position(&never).get(&records("posts"))?;
            ensure!(beyond.body.contains("beyond this master's head"), "{}", beyond.body);
        }
        let unguarded = client.with_min_position("nonsense");
        unguarded.get("/health")?.ok()?;
        unguarded.get("/readyz")?.ok()?;
    }
    Ok(())
}

#[test]
fn a_position_that_does_not_come_in_time_is_503_or_a_way_to_the_master() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = started(&cluster)?;
    let wait = ("MIN_POSITION_WAIT", "300ms");
    let mut refusing = replica(&cluster, "refusing", &master, &[wait])?;
    let mut redirecting = replica(&cluster, "redirecting", &master, &[wait, ("MIN_POSITION_FALLBACK", "redirect")])?;
    for replica in [&mut refusing, &mut redirecting] {
        replica.agent.as_mut().context("an agent")?.kill9()?;
    }
    let position = write(&admin, Method::POST, &records("posts"), &json!({"n": 1}))?.position()?.to_owned();
    let path = format!("{}?perPage=7&skipTotal=1", records("posts"));

    let began = Instant::now();
    let refused = refusing.client()?.with_min_position(&position).get(&path)?;
    ensure!(refused.status == 503 && refused.header("retry-after").is_some(), "{} {}", refused.status, refused.body);
    ensure!(began.elapsed() >= Duration::from_millis(300), "it did not wait");
    ensure!(refusing.client()?.get(&path)?.ok()?.json()?["items"] == json!([]), "without it: what there is");

    let sent_on = redirecting.client()?.with_min_position(&position).get(&path)?;
    let location = sent_on.header("location").context("a Location")?;
    ensure!(sent_on.status == 307 && location == format!("{}{path}", master.server.url()), "{location}");
    let there = master.client()?.with_min_position(&position).get(&path)?.ok()?.json()?;
    ensure!(there["items"][0]["n"] == 1, "{there}");

    // A database that the replicas have not heard of is waited for as well.
    let shop = write(&admin, Method::POST, "/api/databases", &json!({"name": "shop"}))?.position()?.to_owned();
    let catalogue = "/api/collections?db=shop";
    ensure!(refusing.admin()?.get(catalogue)?.status == 404);
    ensure!(refusing.admin()?.with_min_position(&shop).get(catalogue)?.status == 503);
    ensure!(redirecting.admin()?.with_min_position(&shop).get(catalogue)?.status == 307);
    let metrics = refusing.client()?.get("/metrics")?.ok()?.body;
    for line in ["vski_min_position_timeouts_total 2", "vski_min_position_wait_seconds_count 2"] {
        ensure!(metrics.lines().any(|found| found == line), "no {line}");
    }
    for (replica, path, position) in [(&mut refusing, path.as_str(), position), (&mut redirecting, catalogue, shop)] {
        replica.agent.as_mut().context("an agent")?.start()?;
        let client = replica.admin()?.with_min_position(&position);
        eventually("the write has come", READY, || client.get(path)?.ok().map(|_| true))?;
    }
    Ok(())
}

/// How often a process has a file open.
fn open_files(pid: u32, file: &Path) -> Result<usize> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).context("list open files")?;
    let is_it = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_link(entry.ok()?.path()).ok();
    Ok(open.filter_map(is_it).filter(|found| found == file).count())
}

#[test]
fn a_read_that_waits_does_not_hold_up_a_stop() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = started(&cluster)?;
    let mut replica = replica(&cluster, "replica", &master, &[("MIN_POSITION_WAIT", "60s")])?;
    replica.agent.as_mut().context("an agent")?.kill9()?;
    let position = write(&admin, Method::POST, &records("posts"), &json!({"n": 1}))?.position()?.to_owned();
    let waiting = replica.client()?.with_min_position(&position);
    replica.client()?.count("posts")?;
    let (pid, file) = (replica.server.process()?.pid(), replica.file("default").canonicalize()?);
    let before = open_files(pid, &file)?;
    let reading = std::thread::spawn(move || waiting.get(&records("posts")));
    eventually("the log is watched", READY, || Ok(open_files(pid, &file)? > before))?;
    // A read that held up the stop would be cut off without an answer.
    replica.server.stop()?;
    let reply = reading.join().map_err(|_| anyhow!("the client panicked"))??;
    ensure!(reply.status == 503 && reply.body.contains("shutting down"), "{} {}", reply.status, reply.body);
    Ok(())
}
