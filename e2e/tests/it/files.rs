//! Uploaded files on a master, its replica and that one's replica: the same bytes everywhere, or a status that says that
//! they are on their way; gone everywhere some time after their record.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, records};
use e2e::cluster::READY;
use e2e::form::Form;
use e2e::{Cluster, Node, content, eventually, process, storage};
use reqwest::Method;
use serde_json::{Value, json};

/// What an operator keeps and puts back.
mod backup;

/// Nodes that die in the middle.
mod crash;

/// What a form makes of a record.
mod forms;

/// Clients that go away in the middle.
mod hang_up;

/// What had not arrived before a promotion.
mod lost;

pub(crate) const DOCS: &str = "docs";

/// How long a file without a record stays in these tests.
pub(crate) const GRACE: &str = "1s";

/// A master, a replica of two processes, and a replica of that one; a collection whose records have files.
pub(crate) struct Chain {
    pub(crate) master: Node,
    pub(crate) parent: Node,
    pub(crate) child: Node,
}

impl Chain {
    pub(crate) fn start(cluster: &Cluster) -> Result<Self> {
        let mut master = cluster.master("master")?.env("FILE_GRACE", GRACE);
        master.start()?;
        make_collection(&master.admin()?)?;
        let mut parent = cluster.external("parent", &master)?.env("SYNC_MODE", "stream").env("FILE_GRACE", GRACE);
        parent.start()?;
        let mut child = cluster.embedded("child", &parent)?.env("FILE_GRACE", GRACE);
        child.start()?;
        [&parent, &child].into_iter().try_for_each(Node::wait_ready)?;
        Ok(Self { master, parent, child })
    }

    pub(crate) fn nodes(&self) -> [&Node; 3] {
        [&self.master, &self.parent, &self.child]
    }

    pub(crate) fn wait_equal(&self) -> Result<()> {
        let dirs = self.nodes().map(Node::dir);
        content::wait_all_equal(&dirs, READY)?;
        storage::wait_whole(&dirs, "default", READY)
    }
}

/// A collection that everybody may read, with one file and with several.
pub(crate) fn make_collection(admin: &Client) -> Result<()> {
    let fields = json!([
        {"name": "title", "type": "text"},
        {"name": "count", "type": "number"},
        {"name": "one", "type": "file", "maxSelect": 1, "maxSize": 30_000_000},
        {"name": "many", "type": "file", "maxSelect": 5},
    ]);
    let body = json!({"name": DOCS, "type": "base", "fields": fields, "listRule": "", "viewRule": ""});
    admin.send(Method::POST, "/api/collections", Some(&body))?.ok().map(drop)
}

pub(crate) fn upload(admin: &Client, file_name: &str, bytes: &[u8]) -> Result<Value> {
    let form = Form::new().text("title", file_name).file("one", file_name, bytes);
    form.send(admin, Method::POST, &records(DOCS))?.ok()?.json()
}

pub(crate) fn path(record: &Value, name: &Value) -> Result<String> {
    let (id, name) = (record["id"].as_str().context("an id")?, name.as_str().context("a file's name")?);
    Ok(format!("/api/files/{DOCS}/{id}/{name}"))
}

/// Asks until the file is there. Whatever is answered before is no broken body.
pub(crate) fn wait_file(node: &Node, path: &str, expected: &[u8]) -> Result<()> {
    let client = node.client()?;
    eventually(&format!("{} has {path}", node.name()), READY, || {
        let reply = client.get(path)?;
        if reply.status == 200 && reply.bytes != expected {
            return Ok(Some(Err(anyhow::anyhow!("a body of {} bytes, not {}", reply.bytes.len(), expected.len()))));
        }
        if reply.status == 503 && reply.header("retry-after").is_none() {
            return Ok(Some(Err(anyhow::anyhow!("503 without Retry-After: {}", reply.body))));
        }
        ensure!(reply.status == 200, "answered {}: {}", reply.status, reply.body);
        Ok(Some(Ok(())))
    })?
}

#[test]
fn a_file_is_the_same_on_the_master_its_replica_and_that_ones_replica() -> Result<()> {
    let cluster = Cluster::new()?;
    let chain = Chain::start(&cluster)?;
    let admin = chain.master.admin()?;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let record = upload(&admin, "../My Holiday.PNG", &bytes)?;
    let name = record["one"].as_str().context("one name")?;
    ensure!(name.starts_with("My_Holiday_") && name.ends_with(".png"), "{name}");
    let path = path(&record, &record["one"])?;
    for node in chain.nodes() {
        wait_file(node, &path, &bytes)?;
        assert_conditions(&node.client()?, &path, &bytes)?;
        let other = node.client()?.get(&path.replace(DOCS, "nothing"))?;
        ensure!(other.status == 404, "{}", other.status);
    }
    chain.wait_equal()?;
    e2e::cluster::assert_quiet(&chain.nodes(), &[])
}

fn assert_conditions(client: &Client, path: &str, bytes: &[u8]) -> Result<()> {
    let whole = client.get(path)?;
    let etag = whole.header("etag").context("a tag")?.to_owned();
    let expected = BTreeMap::from([
        ("content-type", "image/png"),
        ("x-content-type-options", "nosniff"),
        ("accept-ranges", "bytes"),
        ("content-length", "3000000"),
    ]);
    for (header, value) in expected {
        ensure!(whole.header(header) == Some(value), "{header}: {:?}", whole.header(header));
    }
    let shown = whole.header("content-disposition").context("a disposition")?;
    ensure!(shown.starts_with("inline; filename="), "{shown}");
    let saved = client.get(&format!("{path}?download=1"))?;
    ensure!(saved.header("content-disposition").is_some_and(|kind| kind.starts_with("attachment")), "{saved:?}");

    let range = client.with_header("range", "bytes=1000-1999")?.get(path)?;
    ensure!(range.status == 206 && range.bytes == bytes[1000..2000], "{}", range.status);
    ensure!(range.header("content-range") == Some("bytes 1000-1999/3000000"), "{:?}", range.headers);
    let beyond = client.with_header("range", "bytes=9000000-")?.get(path)?;
    ensure!(beyond.status == 416, "{}", beyond.status);
    let known = client.with_header("if-none-match", &etag)?.get(path)?;
    ensure!(known.status == 304 && known.bytes.is_empty(), "{}", known.status);
    let stale = client.with_header("range", "bytes=0-9")?.with_header("if-range", "\"other\"")?.get(path)?;
    ensure!(stale.status == 200, "a range of other bytes: {}", stale.status);
    let head = client.send(Method::HEAD, path, None)?;
    ensure!(head.status == 200 && head.bytes.is_empty() && head.header("etag") == Some(&etag), "{head:?}");
    Ok(())
}

#[test]
fn a_deleted_records_files_go_from_all_nodes() -> Result<()> {
    let cluster = Cluster::new()?;
    let chain = Chain::start(&cluster)?;
    let admin = chain.master.admin()?;
    let (kept, gone) = (upload(&admin, "kept.txt", b"kept")?, upload(&admin, "gone.txt", b"gone")?);
    chain.wait_equal()?;
    admin.delete_record(DOCS, gone["id"].as_str().context("an id")?)?;
    chain.wait_equal()?;
    for node in chain.nodes() {
        ensure!(node.client()?.get(&path(&gone, &gone["one"])?)?.status == 404);
        wait_file(node, &path(&kept, &kept["one"])?, b"kept")?;
    }
    Ok(())
}

#[test]
fn a_replica_waits_for_a_file_that_its_master_has_lost() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut chain = Chain::start(&cluster)?;
    let admin = chain.master.admin()?;
    chain.parent.stop()?;
    let record = upload(&admin, "a.txt", b"some text")?;
    let file = chain.master.dir().join("storage/default").join(record["one"].as_str().context("a name")?);
    let aside = cluster.path().join("aside");
    std::fs::rename(&file, &aside)?;
    chain.parent.start()?;
    let path = path(&record, &record["one"])?;
    for node in [&chain.parent, &chain.child] {
        eventually("the record is here and its file is awaited", READY, || {
            let reply = node.client()?.get(&path)?;
            ensure!(reply.status == 503 && reply.header("retry-after").is_some(), "{} {}", reply.status, reply.body);
            Ok(true)
        })?;
    }
    ensure!(chain.master.client()?.get(&path)?.status == 404);
    eventually("the agent tells what is lost", READY, || {
        Ok(chain.parent.alarms(&[]).iter().any(|line| line.contains("file_lost")))
    })?;
    let agent = chain.parent.agent.as_ref().context("an agent")?.url();
    let metrics = Client::new(&agent)?.get("/metrics")?.ok()?.body;
    ensure!(metrics.contains("vski_sync_files_waiting{db=\"default\"} 1"), "{metrics}");
    let status = |words: &str, without: &str| {
        let program = chain.parent.agent.as_ref().context("an agent")?;
        let told = process::run("status", &mut program.subcommand(&["status"]), READY)?.stdout.join("\n");
        ensure!(told.contains(words) && !told.contains(without), "{told}");
        Ok(true)
    };
    eventually("the lost file is a lasting condition", READY, || status("default: file_lost, ", ", passed"))?;
    // What came back damaged is not taken.
    std::fs::write(&file, b"some TEXT")?;
    eventually("the agent tells what is damaged", READY, || {
        Ok(chain.parent.alarms(&[]).iter().any(|line| line.contains("file_differs")))
    })?;
    std::fs::rename(&aside, &file)?;
    [&chain.parent, &chain.child].into_iter().try_for_each(|node| wait_file(node, &path, b"some text"))?;
    eventually("the condition has passed", READY, || status(" ago, passed: ", "\u{0}"))?;
    chain.wait_equal()
}

#[test]
fn a_database_without_the_table_gets_it_at_the_masters_start_and_its_replica_follows() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut chain = Chain::start(&cluster)?;
    chain.master.stop()?;
    let conn = rusqlite::Connection::open(chain.master.file("default"))?;
    conn.execute_batch("DROP TABLE _files; PRAGMA wal_checkpoint(TRUNCATE)")?;
    drop(conn);
    chain.master.start()?;
    let record = upload(&chain.master.admin()?, "a.txt", b"text")?;
    wait_file(&chain.child, &path(&record, &record["one"])?, b"text")?;
    chain.wait_equal()
}
