use std::os::unix::process::ExitStatusExt;

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, records};
use e2e::cluster::READY;
use e2e::faults::{self, Fault};
use e2e::form::Form;
use e2e::program::Program;
use e2e::{Cluster, Node, content, eventually, load, storage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Chain, DOCS, GRACE, make_collection, path, upload, wait_file};
use crate::agent_crash::{assert_met, die_at, fail_at};

/// Nodes that are killed, one after another.
const ROUNDS: usize = 20;

/// A master and a replica of two processes.
fn pair(cluster: &Cluster) -> Result<(Node, Node)> {
    let mut master = cluster.master("master")?.env("FILE_GRACE", GRACE);
    master.start()?;
    make_collection(&master.admin()?)?;
    let mut replica = cluster.external("replica", &master)?.env("SYNC_MODE", "stream").env("FILE_GRACE", GRACE);
    replica.start()?;
    replica.wait_ready()?;
    Ok((master, replica))
}

fn all() -> Result<Vec<Fault>> {
    let mut all = faults::of_group("file")?;
    all.extend(faults::of_group("fetch")?);
    Ok(all)
}

/// Makes work for the agent at a label: a file to fetch, a directory to make, a file to remove.
fn provoke(master: &Node, replica: &Node, label: &str, bytes: &[u8]) -> Result<Value> {
    let record = upload(&master.admin()?, "new.txt", bytes)?;
    let folder = replica.dir().join("storage");
    match label {
        "file:folder" if folder.exists() => std::fs::remove_dir_all(folder)?,
        "file:unlink" => std::fs::write(folder.join("default/orphan_0123456789.txt"), "nobody's")?,
        _ => {}
    }
    Ok(record)
}

#[test]
fn a_crash_or_a_failure_while_a_file_is_fetched_never_shows_half_of_it() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, mut replica) = pair(&cluster)?;
    let dirs = [master.dir().to_owned(), replica.dir().to_owned()];
    let dirs = [dirs[0].as_path(), dirs[1].as_path()];
    upload(&master.admin()?, "old.txt", b"old")?;
    storage::wait_whole(&dirs, "default", READY)?;
    let bytes = vec![7; 3 << 20];
    for Fault { label, can_fail } in all()? {
        replica.agent.as_mut().context("an agent")?.stop()?;
        let record = provoke(&master, &replica, &label, &bytes)?;
        die_at(replica.agent.as_mut().context("an agent")?, &label)?;
        let reply = replica.client()?.get(&path(&record, &record["one"])?)?;
        let whole = reply.status == 200 && reply.bytes == bytes;
        ensure!(whole || [404, 503].contains(&reply.status), "{label}: {} {}", reply.status, reply.body);
        replica.agent.as_mut().context("an agent")?.start()?;
        storage::wait_whole(&dirs, "default", READY).with_context(|| format!("killed at {label}"))?;
        if can_fail {
            replica.agent.as_mut().context("an agent")?.stop()?;
            provoke(&master, &replica, &label, &bytes)?;
            fail_at(&mut replica, &label)?;
            storage::wait_whole(&dirs, "default", READY).with_context(|| format!("failed at {label}"))?;
            eventually("the failure is told", READY, || assert_met(&replica, &label).map(|()| true))?;
        }
    }
    content::wait_all_equal(&dirs, READY)
}

#[test]
fn a_crash_or_a_failure_while_a_file_is_uploaded_leaves_no_row_without_it() -> Result<()> {
    let cluster = Cluster::new()?;
    let (mut master, replica) = pair(&cluster)?;
    let admin = master.admin()?;
    for (number, Fault { label, can_fail }) in faults::of_group("file")?.into_iter().enumerate() {
        let mut modes = vec![label.clone()];
        modes.extend(can_fail.then(|| format!("{label}=error")));
        for (at, fault) in modes.into_iter().enumerate() {
            let db = format!("shop{number}{at}");
            admin.create_database(&db)?;
            make_collection(&admin.with_db(&db))?;
            master.stop()?;
            if label == "file:unlink" {
                let folder = master.dir().join("storage/default");
                std::fs::create_dir_all(&folder)?;
                std::fs::write(folder.join("orphan_0123456789.txt"), "nobody's")?;
            }
            master.server.launch(&[("VSKI_FAULT", &fault)])?;
            master.server.wait_listening()?;
            // Whether an answer came before it died is all the same.
            let first = upload(&admin.with_db(&db), "a.txt", b"text");
            if fault == label {
                let status = master.server.wait_exit(READY).with_context(|| format!("it dies at {label}"))?;
                ensure!(status.signal() == Some(9), "{label}: it ended with {status}");
                master.start()?;
            } else if label != "file:unlink" {
                ensure!(first.is_err(), "{label} did not fail");
            }
            upload(&admin.with_db(&db), "b.txt", b"more text")?;
            for (db, dirs) in [(db.as_str(), [master.dir(), replica.dir()]), ("default", [master.dir(), replica.dir()])]
            {
                storage::wait_whole(&dirs, db, READY).with_context(|| format!("{db} at {fault}"))?;
            }
        }
    }
    Ok(())
}

/// What a writer does: uploads, replaced files, deletes. An answer that does not come leaves it open what happened.
fn work(admin: &Client, random: &mut StdRng, known: &mut Vec<String>) -> Result<()> {
    let bytes: Vec<u8> = (0..random.random_range(0..200_000_usize)).map(|n| (n % 253) as u8).collect();
    let form = Form::new().text("title", "round").file("one", "one.bin", &bytes).file("many", "m.txt", b"many");
    match random.random_range(0..4) {
        0 if !known.is_empty() => {
            let id = known.swap_remove(random.random_range(0..known.len()));
            drop(admin.send(Method::DELETE, &format!("{}/{id}", records(DOCS)), None));
        }
        1 if !known.is_empty() => {
            let id = &known[random.random_range(0..known.len())];
            drop(form.send(admin, Method::PATCH, &format!("{}/{id}", records(DOCS))));
        }
        _ => {
            if let Ok(reply) = form.send(admin, Method::POST, &records(DOCS))
                && reply.status == 200
            {
                known.push(reply.json()?["id"].as_str().context("an id")?.to_owned());
            }
        }
    }
    Ok(())
}

#[test]
fn whoever_is_killed_all_nodes_end_with_exactly_the_files_of_their_records() -> Result<()> {
    let mut random = StdRng::seed_from_u64(load::seed()?);
    let cluster = Cluster::new()?;
    let mut chain = Chain::start(&cluster)?;
    let admin = chain.master.admin()?;
    let mut known = Vec::new();
    for _ in 0..ROUNDS {
        for _ in 0..random.random_range(1..6) {
            work(&admin, &mut random, &mut known)?;
        }
        let victim: &mut Program = match random.random_range(0..3) {
            0 => &mut chain.master.server,
            1 => chain.parent.agent.as_mut().context("an agent")?,
            _ => &mut chain.child.server,
        };
        // While a request is on its way, for some of them.
        std::thread::scope(|scope| {
            let (mut other, mut more) = (StdRng::seed_from_u64(random.random()), Vec::new());
            let client = admin.clone();
            let writing = scope.spawn(move || work(&client, &mut other, &mut more));
            let killed = victim.kill9();
            writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
            killed
        })?;
        victim.start()?;
    }
    let last = upload(&admin, "last.txt", b"the last one")?;
    chain.nodes().into_iter().try_for_each(|node| wait_file(node, &path(&last, &last["one"])?, b"the last one"))?;
    chain.wait_equal()?;
    let status = admin.send(Method::GET, &format!("{}?perPage=1", records(DOCS)), None)?.ok()?.json()?;
    ensure!(status["totalItems"].as_u64() > Some(0), "{}", json!(status));
    Ok(())
}
