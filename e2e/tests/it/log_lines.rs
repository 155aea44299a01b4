//! The log lines that operators look for, provoked for real and read from the processes, as text and as JSON.

use anyhow::{Context, Result, ensure};
use e2e::client::{SECRET, replica_token};
use e2e::cluster::READY;
use e2e::output::log_field;
use e2e::program::Program;
use e2e::{Cluster, Node, content, eventually};
use rusqlite::Connection;
use serde_json::json;
use vski_replication::names::{header, route};
use vski_replication::token::{Claims, Secrets};

/// Waits for a line with this message, and returns it.
fn line(program: &Program, level: &str, message: &str) -> Result<String> {
    eventually(&format!("{level} {message:?}"), READY, || {
        let said = |line: &String| line.contains(message) && line.contains(level);
        Ok(program.lines().into_iter().find(said))
    })
}

/// A field of a line: of its JSON, or as `name=value` in its text, quoted or not.
fn field(line: &str, name: &str) -> Result<String> {
    if line.starts_with('{') {
        return log_field(line, name).with_context(|| format!("no {name} in {line}"));
    }
    let rest = line.split(&format!(" {name}=")).nth(1).with_context(|| format!("no {name} in {line}"))?;
    if let Some(quoted) = rest.strip_prefix('"') {
        return Ok(quoted.split("\" ").next().unwrap_or(quoted).trim_end_matches('"').to_owned());
    }
    let is_next =
        |word: &str| word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase()));
    let words: Vec<&str> = rest.split(' ').take_while(|word| !is_next(word)).collect();
    Ok(words.join(" "))
}

/// A master with a post and a replica of two processes that has it, both logging in `format`.
fn pair(cluster: &Cluster, format: &str) -> Result<(Node, Node)> {
    let mut master = cluster.master(&format!("master-{format}"))?;
    master.start()?;
    master.admin()?.create_collection("posts", &[("title", "text"), ("n", "number")])?;
    master.admin()?.create_record("posts", &json!({"title": "a", "n": 1}))?;
    let mut replica = cluster.external(&format!("replica-{format}"), &master)?;
    replica.server.start()?;
    start_agent(&mut replica, format)?;
    replica.wait_ready()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    Ok((master, replica))
}

/// Starts the agent with that log format. Its announcement is read from JSON only, so its port is asked instead.
fn start_agent(replica: &mut Node, format: &str) -> Result<()> {
    let agent = replica.agent.as_mut().context("an agent")?;
    agent.launch(&[("LOG_FORMAT", format)])?;
    let client = e2e::client::Client::new(&agent.url())?;
    eventually("the agent answers", READY, || Ok(client.get("/livez").is_ok_and(|reply| reply.status == 200)))
}

fn agent(replica: &Node) -> Result<&Program> {
    replica.agent.as_ref().context("an agent")
}

fn edit(node: &Node, sql: &str) -> Result<()> {
    let conn = Connection::open(node.file("default"))?;
    conn.busy_timeout(READY)?;
    conn.execute_batch(sql).with_context(|| sql.to_owned())
}

#[test]
fn another_schema_on_the_replica_is_told_with_both_hashes() -> Result<()> {
    let cluster = Cluster::new()?;
    for format in ["text", "json"] {
        let (master, replica) = pair(&cluster, format)?;
        edit(&replica, "CREATE INDEX mine ON posts (n)")?;
        master.admin()?.create_record("posts", &json!({"title": "b", "n": 2}))?;
        let line = line(agent(&replica)?, "INFO", "schema mismatch")?;
        let (local, wanted) = (field(&line, "local")?, field(&line, "master")?);
        ensure!(field(&line, "db")? == "default" && local != wanted, "{line}");
        ensure!(local.len() == 64 && wanted.len() == 64, "{line}");
        content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    }
    Ok(())
}

#[test]
fn a_migration_that_sqlite_refuses_is_told_with_the_statement_and_sqlites_message() -> Result<()> {
    let cluster = Cluster::new()?;
    for format in ["text", "json"] {
        let (master, mut replica) = pair(&cluster, format)?;
        replica.agent.as_mut().context("an agent")?.stop()?;
        // On the master no two titles are equal; here they are, so the index cannot be made.
        edit(
            &replica,
            "CREATE INDEX mine ON posts (n);
             INSERT INTO posts (id, title, created, updated) SELECT 'x', title, created, updated FROM posts",
        )?;
        let file = cluster.path().join("unique.sql");
        std::fs::write(&file, "CREATE UNIQUE INDEX one_title ON posts (title)")?;
        let mut sql = master.server.subcommand(&["sql", "--db", "default"]);
        let done = e2e::process::run("sql", sql.arg(&file), READY)?;
        ensure!(done.status.success(), "{done:?}");
        start_agent(&mut replica, format)?;
        let line = line(agent(&replica)?, "ERROR", "schema migration failed")?;
        ensure!(field(&line, "db")? == "default", "{line}");
        let statement = field(&line, "statement")?.replace("\\\"", "\"");
        ensure!(statement.contains("CREATE UNIQUE INDEX one_title ON posts (title)"), "{line}");
        ensure!(field(&line, "error")?.contains("UNIQUE constraint failed: posts.title"), "{line}");
        content::wait_all_equal(&[master.dir(), replica.dir()], READY).context("and then it converges")?;
    }
    Ok(())
}

#[test]
fn a_sync_that_fails_is_told_with_the_errors_name_and_its_remedy() -> Result<()> {
    let cluster = Cluster::new()?;
    for format in ["text", "json"] {
        let (mut master, replica) = pair(&cluster, format)?;
        master.stop()?;
        let line = line(agent(&replica)?, "ERROR", "sync failed")?;
        ensure!(field(&line, "error_name")? == "master_unreachable", "{line}");
        ensure!(field(&line, "error")?.contains("reach the master"), "{line}");
        ensure!(field(&line, "remedy")?.contains("start the master"), "{line}");
        let state = replica.wait_state("default", "retrying")?;
        ensure!(state.last_error.is_some_and(|last| last.name == "master_unreachable"), "node.db tells it too");
        let metrics = e2e::client::Client::new(&agent(&replica)?.url())?.get("/metrics")?.ok()?.body;
        let counted = r#"vski_sync_errors_total{db="default",error="master_unreachable",state="retrying"}"#;
        ensure!(metrics.contains(counted), "{metrics}");
        let mut status = agent(&replica)?.subcommand(&["status"]);
        let told = e2e::process::run("status", &mut status, READY)?.stdout.join("\n");
        ensure!(told.contains("default: master_unreachable, ") && told.contains("remedy: start the master"), "{told}");
        // The server looks into node.db now and then.
        eventually("the server tells it, too", READY, || {
            let ready = replica.client()?.get("/readyz")?.ok()?.json()?;
            Ok(ready["dbs"][0]["lastError"]["name"] == "master_unreachable")
        })?;
    }
    Ok(())
}

#[test]
fn something_else_at_the_masters_address_is_named() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = cluster.master("master")?;
    // Any HTTP server that is no VSKI node will do: here one that knows one page.
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever asks may have gone; the test sees what the agent makes of it.
            let _ = welcome(stream);
        }
    });
    let mut replica = cluster.external("replica", &master)?.env("MASTER_URL", format!("http://{address}"));
    replica.start()?;
    let line = line(agent(&replica)?, "ERROR", "sync failed")?;
    ensure!(field(&line, "error_name")? == "no_vski_master", "{line}");
    let told = "does not answer as a VSKI master: status 200, content type text/html";
    ensure!(field(&line, "error")?.contains(told) && field(&line, "remedy")?.contains("MASTER_URL"), "{line}");
    replica.wait_state("default", "retrying").map(drop)
}

/// Reads a request's head and answers with a page.
fn welcome(mut stream: std::net::TcpStream) -> std::io::Result<()> {
    use std::io::{BufRead, Write};
    let mut lines = std::io::BufReader::new(stream.try_clone()?).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let page = "<html>welcome</html>";
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{page}", page.len())
}

#[test]
fn a_replica_that_the_master_refuses_is_told_with_reason_id_and_peer() -> Result<()> {
    let cluster = Cluster::new()?;
    for format in ["text", "json"] {
        let mut master = cluster.master(&format!("master-{format}"))?;
        master.server.launch(&[("LOG_FORMAT", format)])?;
        let client = master.client()?;
        eventually("the master answers", READY, || Ok(client.get("/livez").is_ok_and(|reply| reply.status == 200)))?;
        let mut stranger = cluster
            .external(&format!("stranger-{format}"), &master)?
            .env("JWT_SECRET", "another one of 32 characters or more");
        stranger.start()?;
        let line = line(&master.server, "WARN", "replica authentication failed")?;
        ensure!(field(&line, "id")? == format!("stranger-{format}"), "{line}");
        ensure!(field(&line, "peer")?.starts_with("127.0.0.1:"), "{line}");
        ensure!(field(&line, "reason")?.contains("JWT_SECRET"), "{line}");
        ensure!(!line.contains(SECRET), "a secret is told: {line}");
        let told = self::line(agent(&stranger)?, "ERROR", "sync failed")?;
        ensure!(field(&told, "error_name")? == "unauthorized", "{told}");
        ensure!(
            client.get(route::STATUS)?.status == 401
                && client.with_token(&replica_token("e2e")).get(route::STATUS)?.status == 200
        );
        let expired = Secrets::new(SECRET, None).mint(&Claims { exp: 1, ..Claims::replica("late", 60) });
        let reply = client.with_token(&expired).get(route::STATUS)?;
        ensure!(reply.status == 401 && reply.header(header::REPLICA_MODE) == Some("master"), "{reply:?}");
        self::line(&master.server, "expired", "replica authentication failed")?;
        stranger.stop()?;
    }
    Ok(())
}
