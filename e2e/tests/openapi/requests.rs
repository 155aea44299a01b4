use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::Node;
use e2e::client::{Client, replica_token};
use e2e::cluster::assert_quiet;
use e2e::load::seed;
use e2e::manifests::repository;
use e2e::process::{self, Finished};

use crate::world::World;

/// What an answer is checked for.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";

/// Operations that would end the servers' use for all the others, or their roles.
const DESTRUCTIVE: [&str; 4] = [
    // The master would take no more writes: every later answer would be 503.
    "/api/replica/handover",
    // The replica would stop following; a release is for good.
    "/api/replica/release",
    // These answer 502 and 409 by what the agent finds, which no request decides.
    "/api/replica/sync",
    "/api/replica/verify",
];

/// Log lines that bad requests may cause.
const EXPECTED: [&str; 2] = ["replica authentication failed", "a replica's position is not in this log"];

/// What requests are drawn from, unless VSKI_SEED says otherwise.
const SEED: u64 = 20_261_126;

/// What Python says where it has lost count of its own recursion.
const TOOLS_FAULT: &str = "AST constructor recursion depth mismatch";

/// Beyond its time schemathesis ends what it has begun.
const GRACE: Duration = Duration::from_secs(300);

struct Run<'a> {
    node: &'a Node,
    token: Option<String>,
    /// Requests of each operation, in each phase.
    examples: u32,
    seconds: u32,
    /// Options that choose operations.
    chosen: &'a [&'a str],
}

pub fn as_guest(world: &World) -> Result<()> {
    run(world, &Run { node: &world.master, token: None, examples: 10, seconds: 15, chosen: &[] })
}

pub fn as_admin(world: &World) -> Result<()> {
    let chosen = ["--exclude-tag", "replication"];
    run(world, &Run { node: &world.master, token: world.admin.token(), examples: 30, seconds: 60, chosen: &chosen })
}

pub fn as_replica(world: &World) -> Result<()> {
    let chosen = ["--include-tag", "replication"];
    let token = Some(replica_token("schemathesis"));
    run(world, &Run { node: &world.master, token, examples: 15, seconds: 15, chosen: &chosen })
}

pub fn to_a_replica(world: &World) -> Result<()> {
    run(world, &Run { node: &world.replica, token: world.admin.token(), examples: 15, seconds: 20, chosen: &[] })
}

/// Has schemathesis send requests, and shows what it found. Its requests are the same each time, but for VSKI_SEED.
fn run(world: &World, run: &Run<'_>) -> Result<()> {
    let seed = if std::env::var_os("VSKI_SEED").is_some() { seed()? } else { SEED };
    let mut ended = ask(world, run, seed)?;
    // Python 3.11 may end so while schemathesis draws values, whatever is answered.
    if !ended.status.success() && ended.stdout.iter().chain(&ended.stderr).any(|line| line.contains(TOOLS_FAULT)) {
        println!("schemathesis met a fault of Python ({TOOLS_FAULT}): again, with another seed");
        ended = ask(world, run, seed + 1)?;
    }
    let Finished { status, stdout, stderr } = ended;
    ensure!(status.success(), "schemathesis: {status}\n{}\n{}", stdout.join("\n"), stderr.join("\n"));
    println!("{}", stdout.join("\n"));
    lives(run.node)?;
    assert_quiet(&[run.node], &EXPECTED)
}

fn ask(world: &World, run: &Run<'_>, seed: u64) -> Result<Finished> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools");
    let mut command = process::command(repository().join("target/tools/schemathesis/bin/schemathesis"));
    // It keeps notes where it runs.
    command.current_dir(world.directory()).env("SCHEMATHESIS_HOOKS", "openapi_hooks").env("PYTHONPATH", &tools);
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("WORLD", world.known()).env("NO_PROXY", "*");
    options(&mut command, run, seed);
    let limit = Duration::from_secs(run.seconds.into()) + GRACE;
    process::run("schemathesis", &mut command, limit)
}

fn options(command: &mut Command, run: &Run<'_>, seed: u64) {
    command.args(["run", &format!("{}/api/openapi.json", run.node.server.url())]);
    command.args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--warnings", "off", "--no-color"]);
    command.args(["--max-examples", &run.examples.to_string(), "--max-time", &run.seconds.to_string()]);
    command.args(["--workers", "1", "--request-timeout", "60", "--continue-on-failure", "--no-shrink"]);
    command.args(["--generation-database", "none", "--suppress-health-check", "all"]);
    command.args(["--seed", &seed.to_string()]);
    if let Some(token) = &run.token {
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    for path in DESTRUCTIVE {
        command.args(["--exclude-path", path]);
    }
    command.args(run.chosen);
}

/// It answers as before.
fn lives(node: &Node) -> Result<()> {
    let client: Client = node.client()?;
    let reply = client.get("/readyz").context("it does not answer any more")?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.body);
    Ok(())
}
