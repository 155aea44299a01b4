//! `docker compose -f compose/compose.yaml up` on a fresh clone, and what a new user does next.

use anyhow::{Context, Result, ensure};
use e2e::client::records;
use e2e::docker::docker;
use e2e::eventually;
use reqwest::Method;
use serde_json::json;

use super::images::Images;
use super::project::{ADMIN, Project, READY};

/// What a fresh master says on purpose.
const NO_ADMIN: &str = "there is no admin yet: make one with `vski-server admin upsert admin@example.com -";

/// Records that are written.
const ROWS: u64 = 50;

pub fn scenario(images: &Images) -> Result<()> {
    let project = Project::up("compose.yaml", None, images, &[])?;
    let log = project.compose(&["logs", "--no-color", "master"])?;
    ensure!(log.contains(NO_ADMIN), "the log does not say how to get the first login:\n{log}");
    project.make_admin()?;

    let admin = project.client("master", 3001)?.login(ADMIN.0, ADMIN.1)?;
    admin.create_collection("posts", &[("n", "number")])?;
    (0..ROWS).try_for_each(|n| admin.create_record("posts", &json!({"n": n})).map(drop))?;
    for replica in ["r001", "r002"] {
        let client = project.client(replica, 3001)?;
        eventually(&format!("{replica} has all rows"), READY, || Ok(client.count("posts")? == ROWS))?;
        let reply = client.get(&records("posts"))?;
        let names = ["x-replica-id", "x-replica-mode", "x-master-url"].map(|name| reply.header(name));
        ensure!(names == [Some(replica), Some("replica"), Some("http://master:3001")], "{names:?}");
        let refused = client.send(Method::POST, &records("posts"), Some(&json!({"n": 1})))?;
        ensure!(refused.body == r#"{"error": "replica is read-only", "code": 403}"#, "{}", refused.body);
        client.login(ADMIN.0, ADMIN.1).with_context(|| format!("log in on {replica}"))?;
    }
    project.verify()?;
    hardened(&project)?;
    kept(&project)?;
    project.assert_quiet(&[NO_ADMIN, "sync failed"])?;
    project.succeeded();
    Ok(())
}

/// Every container of ours runs as nobody in particular, with a root file system that it cannot change.
fn hardened(project: &Project) -> Result<()> {
    for service in ["master", "r001", "r001-agent", "r002", "r002-agent"] {
        let format = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} \
                      {{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}";
        let facts = docker(&["inspect", "--format", format, &project.container(service)?])?;
        let wanted = "65532:65532 true [ALL] [no-new-privileges:true] 536870912 1000000000";
        ensure!(facts.trim() == wanted, "{service}: {facts}");
    }
    Ok(())
}

/// Stopped and started again, everything is where it was, under the same secret: nobody has to log in anew.
fn kept(project: &Project) -> Result<()> {
    let admin = project.client("master", 3001)?.login(ADMIN.0, ADMIN.1)?;
    project.compose(&["down"])?;
    project.compose(&["up", "--detach", "--wait", "--no-build"])?;
    let token = admin.token().context("a token")?;
    for node in ["master", "r001", "r002"] {
        let client = project.client(node, 3001)?.with_token(&token);
        ensure!(client.count("posts")? == ROWS, "{node} lost rows");
        client.get("/api/collections")?.ok().with_context(|| format!("{node} has another secret"))?;
    }
    project.verify()
}
