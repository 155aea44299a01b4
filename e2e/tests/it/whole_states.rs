//! Whatever happens below them, readers of a replica see one state of the master after another, each of them whole. And
//! a master that comes back without its volume takes nothing away from anybody.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::cluster::READY;
use e2e::shell::sqlite3;
use e2e::{Cluster, Node, content, eventually, load, process};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;
use serde_json::json;

const ACCOUNTS: u64 = 40;
const EACH: i64 = 100;

/// Transfers, each of them one transaction on the master.
const TRANSFERS: u64 = 60;

fn accounts(cluster: &Cluster) -> Result<(Node, Node)> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("accounts", &[("n", "number"), ("balance", "number")])?;
    let lines: Vec<String> = (0..ACCOUNTS).map(|n| json!({"n": n, "balance": EACH}).to_string()).collect();
    let file = cluster.path().join("accounts.ndjson");
    std::fs::write(&file, lines.join("\n"))?;
    let mut import = master.server.subcommand(&["import", "--collection", "accounts"]);
    let imported = process::run("import", import.arg(file), READY)?;
    ensure!(imported.status.success(), "{imported:?}");
    let mut replica = cluster.external("replica", &master)?.env("SYNC_MODE", "stream");
    replica.start()?;
    replica.wait_ready()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    Ok((master, replica))
}

/// Moves money, through the running master in one transaction.
fn transfer(master: &Client, random: &mut StdRng) -> Result<()> {
    let (from, to, amount) =
        (random.random_range(0..ACCOUNTS), random.random_range(0..ACCOUNTS), random.random_range(1..50));
    let sql = format!(
        "UPDATE accounts SET balance = balance - {amount} WHERE n = {from};
         UPDATE accounts SET balance = balance + {amount} WHERE n = {to};"
    );
    master.sql(&sql)?.ok().map(drop)
}

/// Reads until told to stop; every read sees all accounts and all the money.
fn watch(conn: &Connection, done: &AtomicBool) -> Result<u64> {
    let (mut states, mut last) = (0, String::new());
    while !done.load(Ordering::Relaxed) {
        let (count, sum, state): (i64, i64, String) = conn.query_row(
            "SELECT count(*), CAST(sum(balance) AS INTEGER), group_concat(balance) FROM (SELECT balance FROM accounts ORDER BY n)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        ensure!(count == ACCOUNTS as i64 && sum == count * EACH, "half a state: {count} accounts with {sum}");
        states += u64::from(state != last);
        last = state;
    }
    Ok(states)
}

/// The same over HTTP: one page is one read.
fn watch_pages(client: &Client, done: &AtomicBool) -> Result<u64> {
    let mut pages = 0;
    while !done.load(Ordering::Relaxed) {
        let page = client.get("/api/collections/accounts/records?perPage=500")?.ok()?.json()?;
        let items = page["items"].as_array().context("items")?;
        let sum: f64 = items.iter().filter_map(|item| item["balance"].as_f64()).sum();
        ensure!(items.len() as u64 == ACCOUNTS && sum == (ACCOUNTS as i64 * EACH) as f64, "half a page: {page}");
        pages += 1;
    }
    Ok(pages)
}

#[test]
fn no_reader_sees_half_a_transaction_while_entries_come_the_agent_dies_and_the_copy_converges() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, mut replica) = accounts(&cluster)?;
    let mut random = StdRng::seed_from_u64(load::seed()?);
    let (file, done) = (replica.file("default"), AtomicBool::new(false));
    let (admin, pages) = (master.admin()?, replica.client()?);
    std::thread::scope(|scope| {
        let direct = scope.spawn(|| watch(&vski_replication::connection::reader(&file)?, &done));
        let paged = scope.spawn(|| watch_pages(&pages, &done));
        let happened = (1..=TRANSFERS).try_for_each(|number| {
            transfer(&admin, &mut random)?;
            if number % 20 == 0 {
                let agent = replica.agent.as_mut().context("an agent")?;
                agent.kill9().and_then(|()| agent.start())?;
            }
            if number % 30 == 0 {
                // Behind the master's back, and still no money is made: the replica has to converge.
                let swap = format!("UPDATE accounts SET balance = {} - balance", 2 * EACH);
                sqlite3(&master.file("default"), &swap)?;
            }
            Ok::<_, anyhow::Error>(())
        });
        // The last edit is noticed by the next write.
        let happened = happened.and_then(|()| transfer(&admin, &mut random));
        let level = happened.and_then(|()| content::wait_all_equal(&[master.dir(), replica.dir()], READY));
        done.store(true, Ordering::Relaxed);
        let states = direct.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        let pages = paged.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        level?;
        ensure!(states > 5 && pages > 5, "only {states} states and {pages} pages were seen");
        Ok(())
    })
}

#[test]
fn a_master_that_comes_back_on_an_empty_volume_is_foreign_and_its_replicas_serve_on() -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, mut external) = accounts(&cluster)?;
    let mut embedded = cluster.embedded("embedded", &master)?;
    embedded.start()?;
    embedded.wait_ready()?;
    let replicas = [&embedded, &external];
    let before = replicas.iter().map(|node| content::read(&node.file("default"))).collect::<Result<Vec<_>>>()?;
    master.kill9()?;
    std::fs::rename(master.dir(), cluster.path().join("lost volume"))?;
    master.start()?;
    master.admin()?.create_collection("accounts", &[("n", "number"), ("balance", "number")])?;
    for (node, before) in replicas.iter().zip(&before) {
        node.wait_state("default", "foreign_master")?;
        let client = node.client()?;
        ensure!(client.count("accounts")? == ACCOUNTS, "{} no longer serves", node.name());
        ensure!(client.get("/readyz")?.status == 200, "{} is taken out", node.name());
        ensure!(content::read(&node.file("default"))? == *before, "{} took something", node.name());
    }
    // Nor after a restart.
    external.kill9()?;
    external.start()?;
    external.wait_state("default", "foreign_master")?;
    ensure!(external.client()?.count("accounts")? == ACCOUNTS);

    // The volume is found again.
    master.kill9()?;
    std::fs::remove_dir_all(master.dir())?;
    std::fs::rename(cluster.path().join("lost volume"), master.dir())?;
    master.start()?;
    let mut random = StdRng::seed_from_u64(1);
    transfer(&master.admin()?, &mut random)?;
    for node in [&embedded, &external] {
        eventually("it is followed again", READY, || {
            let position = e2e::offline::position(&node.file("default"))?;
            Ok(position == e2e::offline::position(&master.file("default"))?)
        })?;
    }
    content::wait_all_equal(&[master.dir(), embedded.dir(), external.dir()], READY)
}
