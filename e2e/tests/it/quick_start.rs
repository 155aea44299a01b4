//! The texts are the specification's, character by character but for the ports, which other tests may be using.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, collection};
use e2e::cluster::{ADMIN, READY};
use e2e::process::{self, Process};
use e2e::program::free_port;
use e2e::{eventually, programs};
use reqwest::Method;
use serde_json::json;

const MASTER: &str = "JWT_SECRET=your-shared-secret DATA_DIR=./data vski-prod serve --port 3001";

const REPLICA: &str = r"REPLICA_MODE=replica \
MASTER_URL=http://localhost:3001 \
JWT_SECRET=your-shared-secret \
DATA_DIR=./data-replica \
SYNC_INTERVAL=5 \
vski-prod serve --port 3002";

/// Some sync intervals of the quick start, 5 s each.
const SYNCED: Duration = Duration::from_secs(30);

#[test]
fn the_quick_start_works_as_printed() -> Result<()> {
    let place = tempfile::tempdir()?;
    let (master_port, replica_port) = (free_port()?, free_port()?);
    let text = |text: &str| text.replace("3001", &master_port.to_string()).replace("3002", &replica_port.to_string());
    let _master = shell(place.path(), "quick start's master", &text(MASTER), &admin_variables())?;
    let master = Client::new(&format!("http://localhost:{master_port}"))?;
    wait_ready(&master)?;
    let admin = master.login(ADMIN.0, ADMIN.1)?;
    admin.create_collection("posts", &[("title", "text"), ("content", "text")])?;
    admin.create_record("posts", &json!({"title": "Before", "content": "the replica came"}))?;

    let _replica = shell(place.path(), "quick start's replica", &text(REPLICA), &[])?;
    let replica = Client::new(&format!("http://localhost:{replica_port}"))?;
    wait_ready(&replica)?;
    ensure!(replica.count("posts")? == 1, "the first sync brought what there was");
    admin.create_record("posts", &json!({"title": "After", "content": "by periodic sync"}))?;
    eventually("a record written later arrives", SYNCED, || Ok(replica.count("posts")? == 2))?;

    a_write_on_the_replica_is_refused(&replica)?;
    the_headers_tell_who_answers(&master, &replica, master_port)?;
    a_login_made_anywhere_is_valid_everywhere(&master, &replica)?;
    the_status_has_the_specified_keys(&master)
}

fn admin_variables() -> [(&'static str, &'static str); 2] {
    [("ADMIN_EMAIL", ADMIN.0), ("ADMIN_PASSWORD", ADMIN.1)]
}

/// Runs a text as a user does who pastes it into a terminal in `place`, with vski-prod installed.
fn shell(place: &Path, name: &str, text: &str, env: &[(&str, &str)]) -> Result<Process> {
    let bin = place.join("bin");
    std::fs::create_dir_all(&bin)?;
    let installed = bin.join("vski-prod");
    if !installed.exists() {
        symlink(programs::prod()?, installed)?;
    }
    let path = std::env::var("PATH").context("read PATH")?;
    let mut shell = process::command("sh");
    shell.args(["-c", text]).current_dir(place).envs(env.iter().copied());
    shell.env("PATH", format!("{}:{path}", bin.display()));
    Process::spawn_leader(name, &mut shell)
}

fn wait_ready(client: &Client) -> Result<()> {
    eventually("the server is ready", READY, || Ok(client.get("/readyz")?.status == 200))
}

/// The specification's second `curl` under "Read-Only Behavior".
fn a_write_on_the_replica_is_refused(replica: &Client) -> Result<()> {
    let post = json!({"title": "New Post"});
    let refused = replica.send(Method::POST, "/api/collections/posts/records", Some(&post))?;
    ensure!(refused.status == 403, "answered {}: {}", refused.status, refused.body);
    ensure!(refused.json()? == json!({"error": "replica is read-only", "code": 403}), "{}", refused.body);
    for (method, path) in [
        (Method::PUT, "/api/collections/posts/records/x"),
        (Method::PATCH, "/api/collections/posts"),
        (Method::DELETE, "/api/no-such-route"),
    ] {
        let status = replica.send(method.clone(), path, None)?.status;
        ensure!(status == 403, "{method} {path} answered {status}");
    }
    let made = replica.send(Method::POST, "/api/collections", Some(&collection("more", &[])))?;
    ensure!(made.status == 403, "answered {}", made.status);
    Ok(())
}

/// The specification's `curl -I` under "Headers".
fn the_headers_tell_who_answers(master: &Client, replica: &Client, master_port: u16) -> Result<()> {
    let head = replica.send(Method::HEAD, "/health", None)?;
    ensure!(head.status == 200 && head.body.is_empty(), "{head:?}");
    ensure!(head.header("X-Replica-Mode") == Some("replica"), "{head:?}");
    ensure!(head.header("X-Replica-Id").is_some_and(|id| !id.is_empty()), "{head:?}");
    let url = head.header("X-Master-Url").context("no X-Master-Url")?;
    ensure!(url.trim_end_matches('/') == format!("http://localhost:{master_port}"), "{url}");
    let head = master.send(Method::HEAD, "/health", None)?;
    ensure!(head.header("X-Replica-Mode") == Some("master"), "{head:?}");
    ensure!(head.header("X-Master-Url").is_none(), "{head:?}");
    Ok(())
}

fn a_login_made_anywhere_is_valid_everywhere(master: &Client, replica: &Client) -> Result<()> {
    for (login, read) in [(master, replica), (replica, master)] {
        let token = login.send(
            Method::POST,
            "/api/admins/auth-with-password",
            Some(&json!({"identity": ADMIN.0, "password": ADMIN.1})),
        )?;
        let token = token.ok()?.json()?["token"].as_str().context("a login without a token")?.to_owned();
        read.with_token(&token).get("/api/collections")?.ok()?;
    }
    Ok(())
}

/// The specification's `curl` under "Sync Status", with the token that our command prints.
fn the_status_has_the_specified_keys(master: &Client) -> Result<()> {
    let mut command = process::command(programs::server()?);
    command.args(["token", "replica"]).env("JWT_SECRET", "your-shared-secret");
    let printed = process::run("vski-server token", &mut command, READY)?;
    ensure!(printed.status.success(), "{printed:?}");
    let token = printed.stdout.first().with_context(|| format!("no token: {printed:?}"))?;
    let status = master.with_token(token).get("/api/replica/status")?.ok()?.json()?;
    let db = &status["dbs"][0];
    ensure!(db["name"] == "default", "{status}");
    ensure!(db["size"].as_u64().is_some_and(|size| size > 0), "{status}");
    ensure!(db["sha256"].as_str().is_some_and(|hash| hash.len() == 64), "{status}");
    ensure!(db["schemaVersion"].as_u64().is_some_and(|version| version > 0), "{status}");
    ensure!(master.get("/api/replica/status")?.status == 401, "without a token nothing is told");
    Ok(())
}
