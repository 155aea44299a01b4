//! An administrator's work on the file itself, with the real sqlite3 shell, on the running master and after a clean stop:
//! replicas prove equal afterwards, and what was dropped on the master is kept aside on each of them.

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::cluster::READY;
use e2e::process::{self, Finished};
use e2e::shell::sqlite3;
use e2e::{Cluster, Node, content, eventually, offline, programs};
use serde_json::json;
use vski_replication::connection;

/// What the master says of a file that it did not leave like this.
const FOREIGN: &str = "changed by another program";

const POSTS: u64 = 200;

/// A table of the administrator's own: values of every storage class, an index, a trigger and a view.
const SCRAPS: &str = "CREATE TABLE scraps (id TEXT PRIMARY KEY NOT NULL, v);
    CREATE INDEX scraps_v ON scraps (v);
    CREATE TRIGGER scraps_gone AFTER DELETE ON scraps BEGIN DELETE FROM posts WHERE id = old.id; END;
    CREATE VIEW scraps_view AS SELECT v FROM scraps;
    INSERT INTO scraps VALUES ('a', 1), ('b', 1.0), ('c', x'00ff'), ('d', NULL), ('e', 'é');";

/// The rows of a table, with their types.
const ROWS: &str = "SELECT group_concat(id || ' ' || typeof(v) || ' ' || quote(v), ';')";

struct Pair {
    master: Node,
    /// Two processes, streaming.
    replica: Node,
}

impl Pair {
    /// A master with [`POSTS`] and [`SCRAPS`], and a replica that has them too.
    fn start(cluster: &Cluster) -> Result<Self> {
        let mut master = cluster.master("master")?;
        master.start()?;
        let admin = master.admin()?;
        admin.create_collection("posts", &[("title", "text"), ("n", "number")])?;
        let lines: Vec<String> =
            (0..POSTS).map(|n| json!({"title": format!("post {n}"), "n": n}).to_string()).collect();
        let file = cluster.path().join("posts.ndjson");
        std::fs::write(&file, lines.join("\n"))?;
        let mut import = master.server.subcommand(&["import", "--collection", "posts"]);
        let imported = process::run("import", import.arg(file), READY)?;
        ensure!(imported.status.success(), "{imported:?}");
        let mut replica = cluster.external("replica", &master)?.env("SYNC_MODE", "stream");
        replica.start()?;
        replica.wait_ready()?;
        let mut pair = Self { master, replica };
        pair.migrate(cluster, SCRAPS)?;
        pair.proves_equal()?;
        Ok(pair)
    }

    /// `vski-server sql` with a file.
    fn sql(&self, cluster: &Cluster, sql: &str) -> Result<Finished> {
        let file = cluster.path().join("migration.sql");
        std::fs::write(&file, sql)?;
        let mut command = self.master.server.subcommand(&["sql", "--db", "default"]);
        process::run("sql", command.arg(&file), READY)
    }

    fn migrate(&mut self, cluster: &Cluster, sql: &str) -> Result<()> {
        let done = self.sql(cluster, sql)?;
        ensure!(done.status.success() && done.stdout[0].contains("one schema entry"), "{done:?}");
        Ok(())
    }

    /// Makes the master look at its file, and waits until the replica is equal; then `verify` has to say the same.
    fn proves_equal(&self) -> Result<()> {
        eventually("the master takes a write", READY, || {
            self.master.admin()?.create_record("posts", &json!({"n": -1})).map(|_| true)
        })?;
        content::wait_all_equal(&[self.master.dir(), self.replica.dir()], READY)?;
        let agent = self.replica.agent.as_ref().context("an agent")?;
        let settings = agent.subcommand(&["verify"]);
        let mut command = process::command(programs::agent()?);
        command.arg("verify").envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let verified = process::run("verify", &mut command, READY)?;
        ensure!(verified.status.code() == Some(0), "{:?} {:?}", verified.stdout, verified.stderr);
        Ok(())
    }

    /// Tables that the replica keeps of one that is gone, the oldest first.
    fn kept(&self, table: &str) -> Result<Vec<String>> {
        let conn = connection::reader(&self.replica.file("default"))?;
        let mut statement = conn.prepare(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1
             ORDER BY length(name), name",
        )?;
        let found = statement.query_map([format!("_vski_kept_{table}_")], |row| row.get(0))?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Rows of a table of a node, in text.
    fn rows(node: &Node, table: &str) -> Result<String> {
        let conn = connection::reader(&node.file("default"))?;
        let rows: Option<String> =
            conn.query_row(&format!("{ROWS} FROM (SELECT * FROM \"{table}\" ORDER BY id)"), [], |row| row.get(0))?;
        rows.with_context(|| format!("no rows in {table}"))
    }

    /// A counter of the agent for `default`; 0 while there is none.
    fn counted(&self, name: &str) -> Result<u64> {
        let agent = self.replica.agent.as_ref().context("an agent")?;
        let text = Client::new(&agent.url())?.get("/metrics")?.ok()?.body;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{db=\"default\"}} ")));
        line.map_or(Ok(0), |value| value.parse().with_context(|| format!("{name} {value}")))
    }
}

/// A renamed column with its catalogue, a dropped table, a mass update: what the shell does in both tests.
const EDITS: [&str; 3] = [
    "ALTER TABLE posts RENAME COLUMN title TO headline;
     UPDATE _collections SET fields = replace(fields, '\"title\"', '\"headline\"') WHERE name = 'posts';",
    "DROP VIEW scraps_view; DROP TABLE scraps;",
    "UPDATE posts SET n = n * 10, headline = headline || ' edited' WHERE n >= 0;",
];

fn edits_arrived(pair: &Pair, scraps: &str) -> Result<()> {
    let posts = pair.replica.client()?.all_records("posts")?;
    let edited = posts.iter().filter(|post| post["headline"].as_str().is_some_and(|text| text.ends_with(" edited")));
    ensure!(edited.count() as u64 == POSTS, "the mass update: {:?}", posts.first());
    ensure!(posts.iter().all(|post| post.get("title").is_none()), "the renamed column: {:?}", posts.first());
    let kept = pair.kept("scraps")?;
    ensure!(kept.len() == 1, "{kept:?}");
    ensure!(Pair::rows(&pair.replica, &kept[0])? == scraps, "the rows that are kept are others");
    ensure!(pair.kept("posts")?.len() == 1, "the table whose column was renamed is kept as it was");
    Ok(())
}

#[test]
fn edits_with_sqlite3_on_the_running_master_reach_replicas_and_a_dropped_table_is_kept() -> Result<()> {
    let cluster = Cluster::new()?;
    let pair = Pair::start(&cluster)?;
    let scraps = Pair::rows(&pair.master, "scraps")?;
    let before = offline::position(&pair.master.file("default"))?;
    for edit in EDITS {
        sqlite3(&pair.master.file("default"), edit)?;
        pair.proves_equal().context(edit)?;
    }
    let after = offline::position(&pair.master.file("default"))?;
    ensure!(after.epoch.generation == before.epoch.generation + 3, "{before} {after}");
    ensure!(pair.master.alarms(&[FOREIGN]).is_empty(), "{:?}", pair.master.alarms(&[FOREIGN]));
    edits_arrived(&pair, &scraps)
}

#[test]
fn edits_with_sqlite3_after_a_clean_stop_reach_replicas_and_a_dropped_table_is_kept() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut pair = Pair::start(&cluster)?;
    let scraps = Pair::rows(&pair.master, "scraps")?;
    pair.master.stop()?;
    for edit in EDITS {
        sqlite3(&pair.master.file("default"), edit)?;
    }
    ensure!(pair.replica.client()?.count("posts")? > 0, "it serves without its master");
    pair.master.start()?;
    pair.proves_equal()?;
    edits_arrived(&pair, &scraps)
}

#[test]
fn a_table_that_a_migration_drops_is_kept_on_the_replica_however_the_drop_is_spelt() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut pair = Pair::start(&cluster)?;
    let scraps = Pair::rows(&pair.master, "scraps")?;
    let again = "CREATE TABLE scraps (id TEXT PRIMARY KEY NOT NULL, v)";
    let fill = "INSERT INTO scraps VALUES ('new', 2)";
    for (number, drop) in [
        format!("DROP VIEW scraps_view; DROP TABLE scraps; {again}; {fill};"),
        format!("ALTER TABLE scraps RENAME TO other; ALTER TABLE other RENAME TO scraps; drop table if exists \"SCRAPS\";{again};{fill}"),
        "CREATE INDEX posts_n ON posts (n); DROP/**/TABLE main.[scraps]".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        pair.migrate(&cluster, drop)?;
        pair.proves_equal().with_context(|| drop.clone())?;
        let kept = pair.kept("scraps")?;
        ensure!(kept.len() == number + 1, "after {drop}: {kept:?}");
    }
    let kept = pair.kept("scraps")?;
    ensure!(Pair::rows(&pair.replica, &kept[0])? == scraps, "the first table's rows are others");
    for later in &kept[1..] {
        ensure!(Pair::rows(&pair.replica, later)? == "new integer 2", "{later}");
    }
    ensure!(pair.kept("other")?.is_empty() && pair.kept("posts")?.is_empty(), "a rename is no drop");
    ensure!(pair.counted("vski_sync_converges_total")? == 0, "the entries were not repeated verbatim");
    let told = pair.replica.agent.as_ref().context("an agent")?.lines();
    let told = told.iter().filter(|line| line.contains("a table that the master dropped is kept")).count();
    ensure!(told == 3, "told {told} times");
    Ok(())
}

#[test]
fn vacuum_is_refused_as_a_migration_and_by_sqlite3_costs_replicas_hashes_but_no_rows() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut pair = Pair::start(&cluster)?;
    let refused = pair.sql(&cluster, "DELETE FROM posts WHERE n < 10; VACUUM")?;
    let said = refused.stderr.join("\n");
    ensure!(refused.status.code() == Some(1) && said.contains("nothing was run"), "{refused:?}");
    ensure!(said.contains("VACUUM") && said.contains("it cannot run in a transaction"), "{said}");

    for running in [true, false] {
        sqlite3(&pair.master.file("default"), "SELECT count(*) FROM posts")?;
        if !running {
            pair.master.stop()?;
        }
        let before = (pair.counted("vski_sync_converges_total")?, pair.counted("vski_sync_converge_bytes_total")?);
        sqlite3(&pair.master.file("default"), "VACUUM")?;
        if !running {
            pair.master.start()?;
        }
        pair.proves_equal()?;
        let after = (pair.counted("vski_sync_converges_total")?, pair.counted("vski_sync_converge_bytes_total")?);
        ensure!(after.0 - before.0 <= 1, "{} converges after one VACUUM", after.0 - before.0);
        // The one post that makes the master look, and the hashes of its range.
        let fetched = after.1 - before.1;
        ensure!(fetched < 20_000, "{fetched} bytes were fetched although no row had changed");
    }
    let before = pair.counted("vski_sync_converges_total")?;
    sqlite3(&pair.replica.file("default"), "VACUUM")?;
    pair.proves_equal().context("a replica's file was vacuumed")?;
    ensure!(pair.counted("vski_sync_converges_total")? == before, "a replica's VACUUM led to a converge");
    Ok(())
}
