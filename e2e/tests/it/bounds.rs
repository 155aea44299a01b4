//! Memory that does not grow with the database: what a first copy, a converge and a verify need is the same for a small
//! database and for one that is five times as large.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::memory::Watch;
use e2e::{Cluster, Node, content, eventually, process};
use rusqlite::{Connection, params};

const MOST: Duration = Duration::from_secs(240);

/// Own memory that neither process may need, bytes.
const MEMORY: u64 = 64 << 20;

/// Bytes of a row's text, about.
const FAT: usize = 600;

/// Rows that are so long that a range holds one or two.
const WIDE_ROWS: usize = 24;
const WIDE_BYTES: usize = 1_000_000;

/// A master with `rows` posts and some wide rows, and another table with as many short ones.
fn filled(cluster: &Cluster, rows: u64) -> Result<(Node, Client)> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("text", "text"), ("n", "number")])?;
    admin.create_collection("tags", &[("n", "number")])?;
    master.stop()?;
    let mut conn = Connection::open(master.file("default"))?;
    let transaction = conn.transaction()?;
    {
        let mut post = transaction.prepare(
            "INSERT INTO posts (id, text, n, created, updated) VALUES (?1, ?2, ?3, '2026-01-01', '2026-01-01')",
        )?;
        let mut tag = transaction
            .prepare("INSERT INTO tags (id, n, created, updated) VALUES (?1, ?2, '2026-01-01', '2026-01-01')")?;
        for n in 0..i64::try_from(rows)? {
            post.execute(params![format!("{n:015}"), format!("{n:06}{}", "f".repeat(FAT)), n])?;
            tag.execute(params![format!("{n:015}"), n])?;
        }
        for n in 0..WIDE_ROWS {
            post.execute(params![format!("w{n:014}"), format!("{n:06}{}", "w".repeat(WIDE_BYTES)), 0])?;
        }
    }
    transaction.commit()?;
    // Anew, with a token from before: a login needs 19 MiB of its own, whatever the size of the database.
    master.start()?;
    Ok((master, admin))
}

/// Ends both watches; fails where one has seen too much.
fn within(what: &str, watches: [(&str, Watch); 2]) -> Result<()> {
    for (name, watch) in watches {
        let peak = watch.peak()?;
        println!("{what}, {name}: {:.1} MB", peak as f64 / 1e6);
        ensure!(peak < MEMORY, "{what}: the {name} has had {peak} bytes");
    }
    Ok(())
}

fn watched(master: &mut Node, replica: &mut Node) -> Result<[(&'static str, Watch); 2]> {
    let agent = replica.agent.as_mut().context("an agent of its own")?.process()?.pid();
    Ok([("master", Watch::begin(master.server.process()?.pid())), ("agent", Watch::begin(agent))])
}

fn bounded(rows: u64) -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, admin) = filled(&cluster, rows)?;
    let mut replica = cluster.external("replica", &master)?.env("SYNC_MODE", "stream");
    replica.start()?;
    let watches = watched(&mut master, &mut replica)?;
    eventually("the first copy is there", MOST, || Ok(replica.client()?.get("/readyz")?.status == 200))?;
    within(&format!("first copy of {rows}"), watches)?;

    // Here and there a row is changed, a third of one table is gone, all wide rows differ, and the
    // other table is one empty range there that holds every row here.
    let watches = watched(&mut master, &mut replica)?;
    let conn = Connection::open(master.file("default"))?;
    conn.busy_timeout(MOST)?;
    conn.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         UPDATE posts SET n = -n WHERE n % 500 = 7;
         DELETE FROM posts WHERE n BETWEEN {} AND {};
         UPDATE posts SET text = 'x' || text WHERE id > 'w';
         DELETE FROM tags;
         COMMIT",
        rows / 3,
        2 * rows / 3,
    ))?;
    admin.create_record("posts", &serde_json::json!({"text": "notices it", "n": 1}))?;
    eventually("it converged", MOST, || {
        Ok(content::read(&master.file("default"))? == content::read(&replica.file("default"))?)
    })?;
    within(&format!("converge of {rows}"), watches)?;

    let watches = watched(&mut master, &mut replica)?;
    let agent = replica.agent.as_ref().context("an agent of its own")?;
    let verified = process::run("verify", &mut agent.subcommand(&["verify"]), MOST)?;
    ensure!(verified.status.success(), "{verified:?}");
    within(&format!("verify of {rows}"), watches)
}

#[test]
fn a_database_of_some_megabytes_needs_less_than_64_mib() -> Result<()> {
    bounded(30_000)
}

#[test]
fn a_database_five_times_as_large_needs_less_than_64_mib_too() -> Result<()> {
    bounded(150_000)
}
