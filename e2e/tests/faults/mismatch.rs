//! Somebody changes rows in a replica's volume behind everybody's back. `verify` finds them, names the error, and changes
//! nothing; with `--repair` the replica is the master's copy again, and the other replica was never in doubt.

use anyhow::{Context, Result, ensure};
use e2e::{docker, load};

use super::cluster::{Cluster, as_root};
use super::node::{Node, assert_equal};
use super::rows;

const ROWS: u64 = 1000;

/// What an agent says of rows that it is told to mend.
const UNEQUAL: &str = "\"error_name\":\"unequal\"";

/// `verify` found what it looks for.
const DIFFERS: i64 = 3;

pub fn scenario(cluster: &Cluster) -> Result<()> {
    let (mut master, mut one, mut two) = (cluster.master()?, cluster.replica("r001")?, cluster.replica("r002")?);
    cluster.expect("r001-agent", &[UNEQUAL, "the copy has converged with the master"]);
    master.start_ready()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &load::FIELDS)?;
    rows::insert(&admin, "posts", 0, ROWS)?;
    for replica in [&mut one, &mut two] {
        replica.start_ready()?;
    }
    assert_equal(&master, &[&one, &two])?;

    meddle(&one)?;
    let looked = one.agent_command(&["verify"])?;
    ensure!(looked.code == DIFFERS, "{looked:?}");
    let told = &looked.stdout;
    ensure!(told.contains("table posts differs in ") && told.contains("999 rows here, 1000 there"), "{looked:?}");
    ensure!(looked.stderr.contains("diverged: table posts differs in "), "the error's name: {looked:?}");
    ensure!(one.client()?.count("posts")? == ROWS - 1, "looking changes nothing");
    two.verify().context("the other replica")?;

    let mended = one.agent_command(&["verify", "--repair"])?;
    ensure!(mended.code == 0, "{mended:?}");
    let told = one.agent()?.lines().iter().any(|line| line.contains(UNEQUAL));
    ensure!(told, "the agent's log does not name what it mended");
    assert_equal(&master, &[&one, &two]).context("mended")?;
    rows::insert(&admin, "posts", ROWS, ROWS)?;
    assert_equal(&master, &[&one, &two]).context("it follows")
}

/// Changes a row and deletes another in the file itself, as an administrator does with the sqlite3 shell.
fn meddle(replica: &Node) -> Result<()> {
    let sql = "UPDATE posts SET note = 'not by the master' WHERE n = 7; DELETE FROM posts WHERE n = 9";
    let mut shell = as_root("sqlite3");
    // The agent may be writing at this moment.
    shell.args(["-batch", "-bail", "-cmd", ".timeout 30000"]).arg(replica.dir()?.join("default.db")).arg(sql);
    docker::finish(&mut shell).map(drop)
}
