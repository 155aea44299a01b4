use prometheus::Registry;
use rusqlite::Connection;
use vski_replication::changelog::Retention;
use vski_replication::connection;
use vski_replication::datadir::Holder;
use vski_replication::entry::EpochReason;
use vski_replication::node::{self, Role};
use vski_replication::position::Position;

use super::*;
use crate::config::{LogFormat, Schedule};
use crate::testing::{FakeMaster, Master, SECRET, eventually, rows};

struct Replica {
    keep: tempfile::TempDir,
}

impl Replica {
    fn new() -> Self {
        Self { keep: tempfile::tempdir().unwrap() }
    }

    fn start(&self, master: &FakeMaster, schedule: Schedule, omit: &[&str]) -> AgentHandle {
        self.start_at(&master.url, schedule, omit)
    }

    fn start_at(&self, master_url: &str, schedule: Schedule, omit: &[&str]) -> AgentHandle {
        let dir = DataDir::open(self.keep.path()).unwrap();
        let (lock, node) = node::claim(&dir, Role::Replica, Holder::this_process("agent")).unwrap();
        let node_config = NodeConfig {
            data_dir: self.keep.path().to_owned(),
            secrets: vski_replication::token::Secrets::new(SECRET, None),
            secret_is_short: false,
            replica_id: None,
            public_url: None,
            log_format: LogFormat::Text,
            otlp_endpoint: None,
        };
        let omit = omit.iter().map(|&name| name.to_owned()).collect();
        let sync_config = SyncConfig { master_url: master_url.to_owned(), ca: None, schedule, omit };
        let metrics = AgentMetrics::register(&Registry::new()).unwrap();
        let node_id = "r001".to_owned();
        let retention = Retention { max_age: Duration::from_secs(3600), max_bytes: 1 << 30 };
        let file_grace = Duration::from_secs(3600);
        Supervisor::start_alone(AgentConfig {
            dir,
            lock,
            node,
            node_id,
            node_config,
            sync_config,
            retention,
            file_grace,
            metrics,
        })
        .unwrap()
    }

    fn open(&self, db: &str) -> Connection {
        connection::reader(&self.path(db)).unwrap()
    }

    fn path(&self, db: &str) -> std::path::PathBuf {
        self.keep.path().join(format!("{db}.db"))
    }

    fn recorded(&self) -> Vec<DatabaseState> {
        NodeDb::read(&DataDir::open(self.keep.path()).unwrap()).unwrap().unwrap().databases().unwrap()
    }
}

fn state(agent: &AgentHandle, db: &str) -> DatabaseState {
    agent.states().into_iter().find(|state| state.name == db).unwrap_or_else(|| panic!("no {db}"))
}

fn position(agent: &AgentHandle, db: &str) -> Option<Position> {
    state(agent, db).position
}

const HOUR: Schedule = Schedule::Every(Duration::from_secs(3600));

#[tokio::test]
async fn every_listed_database_is_fetched_followed_and_recorded_but_the_omitted_ones() {
    let masters = [("default", Master::with_a_row()), ("logs", Master::new()), ("shop", Master::with_a_row())];
    let master = FakeMaster::start(masters).await;
    let replica = Replica::new();
    let agent = replica.start(&master, HOUR, &["logs"]);
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead);
    assert!(agent.is_ready());
    for count in 0..30 {
        master.write("shop", |db| db.changes(&format!("INSERT INTO t VALUES ('row {count}', {count})")));
    }
    let report = agent.sync_now().await;
    assert_eq!(report.outcome, Outcome::AtHead);
    let names: Vec<&str> = report.dbs.iter().map(|state| state.name.as_str()).collect();
    assert_eq!(names, ["default", "shop"]);
    assert_eq!(position(&agent, "shop"), Some(master.position("shop")));
    assert_eq!(rows(&replica.open("shop")), rows(&master.lock().dbs["shop"].conn));
    agent.shutdown().await;
    assert_eq!(replica.recorded(), agent.states());
    assert!(!replica.path("logs").exists());
    assert_eq!(DataDir::open(replica.keep.path()).unwrap().holder().unwrap(), None);
}

#[tokio::test]
async fn a_new_database_is_picked_up_while_streaming_and_changes_arrive_by_themselves() {
    let master = FakeMaster::start([("default", Master::with_a_row())]).await;
    let replica = Replica::new();
    let agent = replica.start(&master, Schedule::Stream, &[]);
    eventually("default follows", || state(&agent, "default").state == "follow").await;
    master.write("default", |db| db.changes("INSERT INTO t VALUES ('b', 2)"));
    eventually("the change arrives", || position(&agent, "default") == Some(master.position("default"))).await;
    master.lock().dbs.insert("shop".into(), Master::with_a_row());
    master.write("default", |_| ());
    eventually("shop follows", || agent.states().iter().any(|db| db.name == "shop" && db.state == "follow")).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn a_copy_that_is_there_is_not_fetched_again_even_without_node_db_or_master() {
    let master = FakeMaster::start([("default", Master::with_a_row())]).await;
    let replica = Replica::new();
    let agent = replica.start(&master, HOUR, &[]);
    agent.sync_now().await;
    agent.shutdown().await;
    std::fs::remove_file(replica.keep.path().join(".vski/node.db")).unwrap();

    let agent = replica.start_at("http://127.0.0.1:9", HOUR, &[]);
    eventually("ready from the file alone", || agent.is_ready()).await;
    eventually("retrying", || state(&agent, "default").state == "retrying").await;
    assert!(matches!(agent.sync_now().await.outcome, Outcome::Failed(_)));
    agent.shutdown().await;

    let agent = replica.start(&master, HOUR, &[]);
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead);
    assert_eq!(master.lock().snapshots_made, 1);
    agent.shutdown().await;
}

#[tokio::test]
async fn before_the_first_contact_the_default_database_is_known_and_not_ready() {
    let replica = Replica::new();
    let agent = replica.start_at("http://127.0.0.1:9", Schedule::Manual, &[]);
    assert!(!agent.is_ready());
    eventually("the reason shows", || state(&agent, "default").state == "retrying").await;
    assert!(state(&agent, "default").detail.unwrap().contains("reach the master"));
    agent.shutdown().await;
}

/// The fake master offers no ranges, so a converge ends where it asks for them.
fn asked_to_converge(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(reason) if reason.contains("snapshot ranges"))
}

#[tokio::test]
async fn a_diverged_database_tries_to_converge_and_the_others_go_on() {
    let master = FakeMaster::start([("default", Master::with_a_row()), ("shop", Master::with_a_row())]).await;
    let replica = Replica::new();
    let agent = replica.start(&master, HOUR, &[]);
    agent.sync_now().await;
    Connection::open(replica.path("shop")).unwrap().execute_batch("UPDATE t SET n = 99").unwrap();
    for db in ["default", "shop"] {
        master.write(db, |db| db.changes("UPDATE t SET n = 2 WHERE id = 'a'"));
    }
    let report = agent.sync_now().await;
    assert!(asked_to_converge(&report.outcome), "{report:?}");
    assert_eq!(position(&agent, "default"), Some(master.position("default")));
    // Repaired by hand, a request looks again.
    Connection::open(replica.path("shop")).unwrap().execute_batch("UPDATE t SET n = 1").unwrap();
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead);
    assert_eq!(state(&agent, "shop").state, "follow");
    agent.shutdown().await;
}

#[tokio::test]
async fn a_change_that_no_log_carries_leads_to_a_converge() {
    let master = FakeMaster::start([("default", Master::with_a_row())]).await;
    let replica = Replica::new();
    let agent = replica.start(&master, HOUR, &[]);
    agent.sync_now().await;
    master.write("default", |db| db.epoch(EpochReason::ForeignEdit));
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead);
    let state = state(&agent, "default");
    assert_eq!(state.last_error.map(|last| last.name).as_deref(), Some("uncaptured_change"));
    assert_eq!(state.position, Some(master.position("default")));
    agent.shutdown().await;
}

#[tokio::test]
async fn a_foreign_master_stops_until_the_right_one_is_back() {
    let master = FakeMaster::start([("default", Master::with_a_row())]).await;
    let replica = Replica::new();
    let agent = replica.start(&master, Schedule::Every(Duration::from_secs(1)), &[]);
    agent.sync_now().await;
    let before = position(&agent, "default");
    let mut other = Master::with_a_row();
    other.changes("INSERT INTO t VALUES ('theirs', 0)");
    let ours = master.lock().dbs.insert("default".into(), other).unwrap();
    eventually("foreign", || state(&agent, "default").state == "foreign_master").await;
    assert_eq!(position(&agent, "default"), before);
    assert!(matches!(agent.sync_now().await.outcome, Outcome::Stopped(_)));
    master.lock().dbs.insert("default".into(), ours);
    eventually("followed again", || state(&agent, "default").state == "follow").await;
    agent.shutdown().await;
}

#[tokio::test]
async fn an_old_master_that_came_back_is_stale() {
    let (mut default, replica) = (Master::with_a_row(), Replica::new());
    default.copy_to(&replica.path("default"));
    let old = FakeMaster::start([("default", Master::fork_of(&default))]).await;
    default.epoch(EpochReason::Promoted);
    let promoted = FakeMaster::start([("default", default)]).await;
    let agent = replica.start(&promoted, HOUR, &[]);
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead);
    agent.shutdown().await;
    let agent = replica.start(&old, HOUR, &[]);
    assert!(matches!(agent.sync_now().await.outcome, Outcome::Stopped(_)));
    assert_eq!(state(&agent, "default").state, "stale_master");
    agent.shutdown().await;
}

#[tokio::test]
async fn another_local_schema_is_brought_to_the_masters_and_rows_go_on() {
    let master = FakeMaster::start([("default", Master::with_a_row())]).await;
    let replica = Replica::new();
    let agent = replica.start(&master, HOUR, &[]);
    agent.sync_now().await;
    Connection::open(replica.path("default")).unwrap().execute_batch("CREATE INDEX mine ON t (n)").unwrap();
    master.write("default", |db| db.changes("INSERT INTO t VALUES ('b', 2)"));
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead);
    assert_eq!(rows(&replica.open("default")).len(), 2);
    Connection::open(replica.path("default"))
        .unwrap()
        .execute_batch("CREATE TABLE mine (id TEXT PRIMARY KEY NOT NULL)")
        .unwrap();
    master.write("default", |db| db.changes("INSERT INTO t VALUES ('c', 3)"));
    assert!(asked_to_converge(&agent.sync_now().await.outcome));
    agent.shutdown().await;
}

#[tokio::test]
async fn a_database_that_the_master_lists_no_more_is_kept() {
    let master = FakeMaster::start([("default", Master::with_a_row()), ("shop", Master::with_a_row())]).await;
    let replica = Replica::new();
    let agent = replica.start(&master, HOUR, &[]);
    agent.sync_now().await;
    let shop = master.lock().dbs.remove("shop").unwrap();
    assert!(matches!(agent.sync_now().await.outcome, Outcome::Stopped(_)));
    assert_eq!(state(&agent, "shop").state, "missing_on_master");
    assert!(state(&agent, "shop").bootstrapped && replica.path("shop").exists());
    master.lock().dbs.insert("shop".into(), shop);
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead);
    agent.shutdown().await;
}

#[tokio::test]
async fn a_database_that_was_deleted_while_it_was_listed_is_deleted_and_followed_again_once_restored() {
    let master = FakeMaster::start([("default", Master::with_a_row()), ("shop", Master::with_a_row())]).await;
    let replica = Replica::new();
    let agent = replica.start(&master, HOUR, &[]);
    agent.sync_now().await;
    master.lock().deleted.insert("shop".to_owned());
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead);
    let shop = master.lock().dbs.remove("shop").unwrap();
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead, "it is not missed");
    assert!(agent.states().iter().all(|state| state.name != "shop"));
    assert!(replica.path("shop").exists());
    master.lock().dbs.insert("shop".into(), shop);
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead);
    master.lock().deleted.clear();
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead);
    assert_eq!(state(&agent, "shop").state, "follow");
    agent.shutdown().await;
}

#[tokio::test]
async fn a_database_that_the_replica_in_between_is_still_to_copy_is_neither_missing_nor_forgotten() {
    let master = FakeMaster::start([("default", Master::with_a_row()), ("shop", Master::with_a_row())]).await;
    let replica = Replica::new();
    master.lock().awaited.insert("shop".to_owned());
    let agent = replica.start(&master, HOUR, &[]);
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead);
    assert!(!agent.is_ready(), "shop is to come");
    master.lock().awaited.clear();
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead);
    assert!(agent.is_ready());
    master.lock().awaited.insert("shop".to_owned());
    let Outcome::Failed(reason) = agent.sync_now().await.outcome else { panic!("it is at nobody's head") };
    assert!(reason.contains("shop") && reason.contains("not copied yet"), "{reason}");
    assert_eq!(state(&agent, "shop").state, "retrying");
    agent.shutdown().await;
}

#[tokio::test]
async fn a_file_that_is_no_database_of_ours_is_kept_aside_and_fetched_anew() {
    let master = FakeMaster::start([("default", Master::with_a_row())]).await;
    let replica = Replica::new();
    std::fs::write(replica.path("default"), "somebody's notes").unwrap();
    let agent = replica.start(&master, HOUR, &[]);
    eventually("it is fetched anew", || state(&agent, "default").state == "follow").await;
    agent.shutdown().await;
    let lost = replica.path("default").parent().unwrap().join(".vski/lost");
    let kept = std::fs::read_dir(lost).unwrap().next().unwrap().unwrap();
    assert_eq!(std::fs::read(kept.path()).unwrap(), b"somebody's notes");
}

#[tokio::test]
async fn manual_means_once_at_start_and_then_on_request() {
    let master = FakeMaster::start([("default", Master::with_a_row())]).await;
    let replica = Replica::new();
    let agent = replica.start(&master, Schedule::Manual, &[]);
    eventually("the first sync", || state(&agent, "default").state == "follow").await;
    let first = position(&agent, "default");
    master.write("default", |db| db.changes("INSERT INTO t VALUES ('b', 2)"));
    assert_eq!(position(&agent, "default"), first);
    assert_eq!(agent.sync_now().await.outcome, Outcome::AtHead);
    assert_eq!(position(&agent, "default"), Some(master.position("default")));
    agent.shutdown().await;
}
