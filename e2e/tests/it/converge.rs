//! Whatever parted a replica from its master, it becomes equal again by fetching what differs, in one transaction, and
//! goes on serving meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::READY;
use e2e::faults::{self, Fault};
use e2e::{Cluster, Node, content, eventually};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::json;

use crate::agent_crash::{assert_met, die_at, fail_at};

const RECORDS: u64 = 3_000;

/// How long tens of thousands of records may take, on a busy machine.
const MOST: Duration = Duration::from_secs(240);

/// A master with [`RECORDS`] posts and a replica of two processes that has them too.
fn pair(cluster: &Cluster) -> Result<(Node, Node)> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text"), ("n", "number")])?;
    let lines: Vec<String> = (0..RECORDS)
        .map(|n| json!({"title": format!("post number {n} with some text in it"), "n": n}).to_string())
        .collect();
    import(cluster, &master, &lines)?;
    let mut replica = cluster.external("replica", &master)?.env("SYNC_MODE", "stream");
    replica.start()?;
    wait_level(&master, &replica)?;
    Ok((master, replica))
}

fn import(cluster: &Cluster, master: &Node, lines: &[String]) -> Result<()> {
    let file = cluster.path().join("posts.ndjson");
    std::fs::write(&file, lines.join("\n"))?;
    let mut command = master.server.subcommand(&["import", "--collection", "posts"]);
    let done = e2e::process::run("import", command.arg(&file), MOST)?;
    ensure!(done.status.success(), "import: {}", done.stderr.join("\n"));
    Ok(())
}

fn wait_level(master: &Node, replica: &Node) -> Result<()> {
    replica.wait_ready()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], MOST)
}

/// Changes a database's file as an operator with a shell would.
fn edit(file: &std::path::Path, sql: &str) -> Result<()> {
    let conn = Connection::open(file)?;
    conn.busy_timeout(READY)?;
    conn.execute_batch(sql).with_context(|| sql.to_owned())
}

#[test]
fn rows_that_were_changed_on_the_replica_are_found_at_the_first_conflict_and_mended() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica) = pair(&cluster)?;
    edit(
        &replica.file("default"),
        "UPDATE posts SET title = 'mine' WHERE n < 5; DELETE FROM posts WHERE n BETWEEN 100 AND 150",
    )?;
    let admin = master.admin()?;
    let id = admin.all_records("posts")?[2]["id"].as_str().context("an id")?.to_owned();
    admin.update_record("posts", &id, &json!({"title": "the master's"}))?;
    wait_level(&master, &replica)?;
    replica.wait_told("the copy has converged", 1)?;
    let lost = std::fs::read_dir(replica.dir().join(".vski/lost"))?.next().context("a report")??;
    let text = std::fs::read_to_string(lost.path())?;
    ensure!(text.lines().count() == 5 && text.contains("\"mine\""), "{text}");
    admin.create_record("posts", &json!({"title": "afterwards"}))?;
    wait_level(&master, &replica).context("entries are followed again")
}

#[test]
fn a_change_by_another_program_on_the_master_reaches_the_replica() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica) = pair(&cluster)?;
    edit(&master.file("default"), "UPDATE posts SET n = -n WHERE n % 100 = 0; DELETE FROM posts WHERE n = 7")?;
    master.admin()?.create_record("posts", &json!({"title": "notices it"}))?;
    wait_level(&master, &replica)?;
    ensure!(replica.client()?.count("posts")? == RECORDS, "one deleted, one created");
    ensure!(!replica.alarms(&["diverged", "converged"]).iter().any(|line| line.contains("panicked")));
    Ok(())
}

#[test]
fn a_table_that_cannot_be_reached_is_set_aside_with_its_rows_and_copied_anew() -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, replica) = pair(&cluster)?;
    master.stop()?;
    edit(
        &master.file("default"),
        "ALTER TABLE posts RENAME COLUMN title TO headline;
         UPDATE _collections SET fields = replace(fields, '\"title\"', '\"headline\"')",
    )?;
    master.start()?;
    wait_level(&master, &replica)?;
    let first = replica.client()?.get("/api/collections/posts/records?perPage=1")?.ok()?.json()?;
    ensure!(first["items"][0]["headline"].is_string() && first["totalItems"] == RECORDS, "{first}");
    let conn = vski_replication::connection::reader(&replica.file("default"))?;
    let kept: String = conn.query_row(
        "SELECT name FROM sqlite_master WHERE name LIKE '\\_vski\\_kept\\_posts%' ESCAPE '\\' AND type = 'table'",
        [],
        |row| row.get(0),
    )?;
    let rows: i64 = conn.query_row(&format!("SELECT count(title) FROM {kept}"), [], |row| row.get(0))?;
    ensure!(u64::try_from(rows)? == RECORDS, "{rows} rows are kept in {kept}");
    Ok(())
}

#[test]
fn readers_see_the_whole_old_state_or_the_whole_new_one() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica) = pair(&cluster)?;
    let file = replica.file("default");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| -> Result<u64> {
            let (conn, mut reads) = (vski_replication::connection::reader(&file)?, 0);
            while !done.load(Ordering::Relaxed) {
                let (least, most): (i64, i64) =
                    conn.query_row("SELECT min(n), max(n) FROM posts", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
                ensure!(least == most || (least, most) == (0, 2_999), "half a state: {least} and {most}");
                reads += 1;
            }
            Ok(reads)
        });
        edit(&master.file("default"), "UPDATE posts SET n = 5000")?;
        master.admin()?.create_record("posts", &json!({"title": "notices it", "n": 5000}))?;
        let level = wait_level(&master, &replica);
        done.store(true, Ordering::Relaxed);
        level?;
        let reads = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        ensure!(reads > 10, "only {reads} reads while it converged");
        Ok(())
    })
}

#[test]
fn a_converge_that_is_killed_anywhere_begins_again_and_keeps_what_it_fetched() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, mut replica) = pair(&cluster)?;
    for (number, Fault { label, can_fail }) in faults::of_group("converge")?.into_iter().enumerate() {
        let part = |master: &Node| {
            edit(&master.file("default"), &format!("UPDATE posts SET n = n + 1 WHERE n % {} = 0", number + 2))?;
            master.admin()?.create_record("posts", &json!({"title": label}))
        };
        replica.agent.as_mut().context("an agent")?.stop()?;
        part(&master)?;
        die_at(replica.agent.as_mut().context("an agent")?, &label)?;
        ensure!(replica.client()?.get("/api/collections/posts/records")?.status == 200, "{label}: it no longer serves");
        replica.agent.as_mut().context("an agent")?.start()?;
        wait_level(&master, &replica).with_context(|| format!("after {label}"))?;
        if can_fail {
            replica.agent.as_mut().context("an agent")?.stop()?;
            part(&master)?;
            fail_at(&mut replica, &label)?;
            // A request ends the pause before it converges again.
            replica.sync()?;
            wait_level(&master, &replica).with_context(|| format!("failed at {label}"))?;
            assert_met(&replica, &label)?;
        }
    }
    replica.verify()
}

#[test]
fn bytes_that_are_fetched_grow_with_the_difference_and_not_with_the_database() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica) = pair(&cluster)?;
    let more: Vec<String> = (RECORDS..RECORDS + 60_000)
        .map(|n| json!({"title": format!("post number {n} with quite some text in it, as a post has: {}", "text ".repeat(20)), "n": n}).to_string())
        .collect();
    import(&cluster, &master, &more)?;
    wait_level(&master, &replica)?;
    edit(&master.file("default"), "UPDATE posts SET n = -n WHERE n % 100 = 0")?;
    master.admin()?.create_record("posts", &json!({"title": "notices it"}))?;
    wait_level(&master, &replica)?;
    replica.wait_told("the copy has converged", 1)?;
    let metrics = e2e::client::Client::new(&replica.agent.as_ref().context("an agent")?.url())?.get("/metrics")?.body;
    let line = metrics.lines().find(|line| line.starts_with("vski_sync_converge_bytes_total")).context("the metric")?;
    let fetched: u64 = line.rsplit(' ').next().context("a value")?.parse()?;
    let size = master.client()?.with_token(&e2e::client::replica_token("e2e")).status_of("default")?["size"]
        .as_u64()
        .context("a size")?;
    ensure!(fetched * 10 < size, "{fetched} of {size} bytes were fetched for 1 % of changed rows");
    Ok(())
}

#[test]
fn a_damaged_file_is_set_aside_and_fetched_anew_under_a_running_server() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, mut replica) = pair(&cluster)?;
    replica.agent.as_mut().context("an agent")?.stop()?;
    ensure!(replica.client()?.count("posts")? == RECORDS, "the server has the file open");
    // Nothing of it may survive in the write-ahead log.
    edit(&replica.file("default"), "PRAGMA wal_checkpoint(TRUNCATE)")?;
    std::fs::write(replica.file("default"), vec![0xA5; 20_000])?;
    replica.agent.as_mut().context("an agent")?.start()?;
    eventually("the replica serves again what its master has", READY, || {
        Ok(replica.client()?.get("/api/collections/posts/records?perPage=1")?.json()?["totalItems"] == RECORDS)
    })?;
    wait_level(&master, &replica)?;
    let kept: Vec<_> = std::fs::read_dir(replica.dir().join(".vski/lost"))?.collect::<Result<_, _>>()?;
    ensure!(kept.iter().any(|file| file.file_name().to_string_lossy().ends_with(".db")), "{kept:?}");
    let reply = replica.client()?.send(Method::POST, "/api/collections/posts/records", Some(&json!({})))?;
    ensure!(reply.status == 403);
    Ok(())
}

#[test]
fn a_replica_that_fell_off_the_log_heals_while_it_is_read() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?.env("RETENTION_BYTES", "20KiB");
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text"), ("n", "number")])?;
    let generation = |n: u64| -> Vec<String> {
        (0..1_000).map(|_| json!({"title": "text ".repeat(10), "n": n}).to_string()).collect()
    };
    import(&cluster, &master, &generation(1))?;
    let mut replica = cluster.external("replica", &master)?;
    replica.start()?;
    wait_level(&master, &replica)?;
    replica.agent.as_mut().context("an agent")?.stop()?;
    let left = e2e::offline::position(&replica.file("default"))?;

    (2..10).try_for_each(|n| import(&cluster, &master, &generation(n)))?;
    let path = format!(
        "{}?db=default&epoch={}&version={}&chain={}",
        vski_replication::names::route::CHANGESET,
        left.epoch,
        left.version,
        left.chain
    );
    let peer = master.client()?.with_token(&e2e::client::replica_token("replica"));
    eventually("the master has pruned what the replica needs", READY, || Ok(peer.get(&path)?.status == 410))?;
    let client = replica.client()?;
    replica.agent.as_mut().context("an agent")?.start()?;
    eventually("every answer is whole, and at last the new one", READY, || {
        let total = client.get("/api/collections/posts/records?perPage=1")?.ok()?.json()?["totalItems"].as_u64();
        ensure!(total == Some(1_000) || total == Some(9_000), "half a state: {total:?}");
        Ok(total == Some(9_000))
    })?;
    wait_level(&master, &replica)
}
