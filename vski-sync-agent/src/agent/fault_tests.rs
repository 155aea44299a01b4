//! Every error in every state: what the agent does then, what it tells, that the copy stays whole, and that it follows
//! again once the fault is gone.

use std::collections::BTreeSet;
use std::path::PathBuf;

use prometheus::Registry;
use rusqlite::{Connection, ffi};
use vski_replication::connection;
use vski_replication::datadir::DataDirError;
use vski_replication::entry::{DecodeError, EpochReason};
use vski_replication::node::{DatabaseState, NodeDb};
use vski_replication::position::{DatabaseId, Epoch, EpochId};
use vski_replication::schema::diff::MigrateError;
use vski_replication::session::Conflict;
use vski_replication::token::Secrets;

use super::*;
use crate::config::SyncConfig;
use crate::lineage::Refusal;
use crate::metrics::AgentMetrics;
use crate::node_writer::NodeWriter;
use crate::source::{Identity, SourceError};
use crate::testing::{FakeMaster, Master, SECRET, rows};
use crate::verify::VerifyError;

const STATES: [State; 6] =
    [State::Bootstrap, State::CatchUp, State::Converge, State::SetAside, State::Follow, State::Stopped];

/// Turns within which an agent without faults follows again.
const TURNS: usize = 10;

/// One error of each kind but a panic, which ends the task and is no error of a step.
async fn every_error() -> Vec<AgentError> {
    let mut errors: Vec<AgentError> = of_the_source().await.into_iter().map(AgentError::Source).collect();
    let verify = [
        VerifyError::Decode(DecodeError::Malformed("x")),
        VerifyError::Empty,
        VerifyError::Version { expected: 1, found: 2 },
        VerifyError::Chain(1),
        VerifyError::Epoch(1),
    ];
    errors.extend(verify.map(AgentError::Verify));
    let (id, epoch) = (DatabaseId([1; 16]), Epoch { generation: 1, id: EpochId([1; 8]) });
    let refusals = [
        Refusal::ForeignMaster { local: id, master: id },
        Refusal::StaleMaster { local: 2, master: 1 },
        Refusal::SplitBrain { local: epoch, master: epoch },
    ];
    errors.extend(refusals.map(AgentError::Refused));
    errors.extend(of_the_copy());
    errors
}

async fn of_the_source() -> Vec<SourceError> {
    let (call, reason) = ("status", String::new);
    let network = || async { reqwest::Client::new().get("http://127.0.0.1:9").send().await.unwrap_err() };
    vec![
        SourceError::Unreachable { call, source: network().await },
        SourceError::Untrusted { call, source: network().await },
        SourceError::Silent { call, seconds: 1 },
        SourceError::Unauthorized { reason: reason() },
        SourceError::Forbidden { call, reason: reason() },
        SourceError::Loop { path: "r001".to_owned() },
        SourceError::NotVski { call, status: 200, content_type: "text/html".to_owned() },
        SourceError::NotFound { call, reason: reason() },
        SourceError::Overloaded { call, retry_after: None, reason: reason() },
        SourceError::Refused { call, status: 500, reason: reason() },
        SourceError::Unreplicable { call, reason: reason() },
        SourceError::NoRoom { call, reason: reason() },
        SourceError::Malformed { call, reason: reason() },
    ]
}

fn of_the_copy() -> Vec<AgentError> {
    let sqlite = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
    let io = |kind: std::io::ErrorKind| AgentError::Io { action: "write", path: PathBuf::new(), source: kind.into() };
    let unreachable = || MigrateError::Unreachable { table: "t".to_owned(), reason: "is another one" };
    vec![
        AgentError::MissingOnMaster,
        AgentError::Lost { common: None },
        AgentError::ParentBehind,
        AgentError::Pruned { base: None },
        AgentError::Conflict { version: 1, conflict: Conflict { table: None, operation: None, kind: "a foreign key" } },
        AgentError::Unequal { told: String::new() },
        AgentError::Uncaptured { version: 1 },
        AgentError::schema(1, unreachable()),
        AgentError::unreachable(1, unreachable()),
        AgentError::SchemaForgotten { version: 1 },
        AgentError::from(sqlite(ffi::SQLITE_CORRUPT)),
        AgentError::Meddled,
        AgentError::from(sqlite(ffi::SQLITE_FULL)),
        AgentError::from(sqlite(ffi::SQLITE_BUSY)),
        // What the disk refused says nothing about the schema.
        AgentError::schema(1, MigrateError::Read(sqlite(ffi::SQLITE_IOERR))),
        AgentError::Snapshot { reason: String::new() },
        AgentError::Unsafe { problems: String::new() },
        AgentError::Space { needed: 2, free: 1 },
        AgentError::InUse,
        io(std::io::ErrorKind::PermissionDenied),
        AgentError::DataDir(DataDirError::NodeId(String::new())),
        AgentError::FileAwaited { name: String::new() },
        AgentError::FileLost { name: String::new() },
        AgentError::FileDiffers { name: String::new(), reason: String::new() },
    ]
}

/// An agent on a directory of its own, one turn at a time.
struct Bench {
    keep: tempfile::TempDir,
    agent: Agent,
    /// Who lists the databases; the agent's end is an error without it.
    listing: watch::Sender<Listing>,
}

impl Bench {
    async fn new(master: &FakeMaster) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let dir = DataDir::open(keep.path()).unwrap();
        let config = SyncConfig {
            master_url: master.url.clone(),
            ca: None,
            schedule: Schedule::Manual,
            omit: BTreeSet::default(),
        };
        let source = Source::new(&config, Identity::new(Secrets::new(SECRET, None), "r001".into(), None)).unwrap();
        let listed = source.status(None, Duration::ZERO).await.unwrap().dbs.remove(0);
        let board = Board::new(
            NodeWriter::start(NodeDb::open(&dir).unwrap()).unwrap(),
            AgentMetrics::register(&Registry::new()).unwrap(),
        );
        board.register(DatabaseState::new("default", "bootstrap"));
        let retention = Retention { max_age: Duration::from_secs(3600), max_bytes: 1 << 30 };
        let context = Arc::new(Context {
            source,
            dir,
            board,
            schedule: Schedule::Manual,
            retention,
            file_grace: Duration::from_secs(3600),
            own_thread: None,
        });
        let (sender, receiver) = watch::channel(Listing::Present(listed));
        let agent = Agent::new("default", context, CancellationToken::new(), Arc::default(), receiver);
        Self { keep, agent, listing: sender }
    }

    fn file(&self) -> PathBuf {
        self.keep.path().join("default.db")
    }

    fn told(&self) -> DatabaseState {
        self.agent.context.board.states().remove(0)
    }

    /// Makes the next step in `state` fail with `error`. A request is waiting, so that nothing is slept through.
    async fn fail(&mut self, state: State, error: AgentError) {
        (self.agent.state, self.agent.fault) = (state, Some(error));
        drop(self.agent.inbox.request(Ask::Sync));
        self.agent.turn().await;
    }

    async fn follow(&mut self) {
        for _ in 0..TURNS {
            drop(self.agent.inbox.request(Ask::Sync));
            self.agent.turn().await;
            if self.agent.state == State::Follow {
                return;
            }
        }
        panic!("it does not follow again, it is {:?}: {:?}", self.agent.state, self.told());
    }

    /// From `Follow`: asks once at least, and until it follows again.
    async fn follow_on(&mut self) {
        drop(self.agent.inbox.request(Ask::Sync));
        self.agent.turn().await;
        self.follow().await;
    }

    /// What is served, from a file that SQLite finds whole.
    fn served(&self) -> Vec<(String, Option<i64>)> {
        let conn: Connection = connection::reader(&self.file()).unwrap();
        let verdict: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
        rows(&conn)
    }
}

#[tokio::test]
async fn every_error_is_met_in_every_state_and_left_once_its_cause_is_gone() {
    let master = FakeMaster::start([("default", Master::with_a_row())]).await;
    let (expected, here) = (rows(&master.lock().dbs["default"].conn), |bench: &Bench| bench.file().exists());
    let mut seen = BTreeSet::new();
    for state in STATES {
        let mut bench = Bench::new(&master).await;
        for error in every_error().await {
            if state == State::Bootstrap {
                // Whatever it meets there, there is no copy yet.
                bench.agent.copy = None;
                let _ = std::fs::remove_file(bench.file());
            } else if !here(&bench) || bench.agent.state != State::Follow {
                bench.follow().await;
            }
            let kind = error.kind();
            seen.insert(kind);
            let context = format!("{} in {state:?}", kind.name());
            bench.fail(state, error).await;

            let reached = match kind.recovery() {
                Recovery::Converge => State::Converge,
                // The master lists it, so a damaged file is put aside.
                Recovery::Stop if kind == ErrorKind::MalformedFile => State::SetAside,
                Recovery::Stop => State::Stopped,
                Recovery::Retry if here(&bench) => State::CatchUp,
                Recovery::Retry => State::Bootstrap,
            };
            assert_eq!(bench.agent.state, reached, "{context}");
            let told = bench.told();
            let last = told.last_error.expect("an error is told");
            assert_eq!((told.state.as_str(), last.name.as_str()), (kind.state(), kind.name()), "{context}");
            assert_eq!((last.remedy.as_str(), told.detail.is_some()), (kind.remedy(), true), "{context}");
            if state != State::Bootstrap {
                assert_eq!(bench.served(), expected, "{context}: what is served");
            }
            if here(&bench) || kind.recovery() == Recovery::Retry || reached == State::Stopped {
                bench.follow().await;
                let told = bench.told();
                assert_eq!((told.state.as_str(), told.detail), ("follow", None), "{context}: afterwards");
                assert_eq!(told.last_error.map(|last| last.name).as_deref(), Some(kind.name()), "{context}: kept");
                assert_eq!(bench.served(), expected, "{context}: afterwards");
            }
        }
    }
    let all: BTreeSet<ErrorKind> = ErrorKind::ALL.iter().copied().collect();
    let missing: Vec<_> = all.difference(&seen).collect();
    assert_eq!(missing, [&ErrorKind::Panicked], "every kind but a panic was met");
}

#[tokio::test]
async fn converging_again_and_again_waits_longer_each_time_and_says_so() {
    let master = FakeMaster::start([("default", Master::with_a_row())]).await;
    let mut bench = Bench::new(&master).await;
    bench.follow().await;
    for (count, told) in [(1, None), (2, Some("again in 5 s")), (3, Some("again in 10 s")), (4, Some("again in 20 s"))]
    {
        bench.fail(State::CatchUp, AgentError::Lost { common: None }).await;
        let detail = bench.told().detail.unwrap();
        assert_eq!(detail.contains("times in a row"), told.is_some(), "{count}: {detail}");
        assert!(detail.contains(told.unwrap_or_default()), "{count}: {detail}");
        bench.follow().await;
    }
}

#[tokio::test]
async fn a_list_from_before_the_masters_new_generation_says_nothing_about_a_copy_that_follows_it() {
    let master = FakeMaster::start([("default", Master::with_a_row())]).await;
    let mut bench = Bench::new(&master).await;
    bench.follow().await;
    let outdated = bench.listing.borrow().clone();
    // The master begins a generation, the copy converges with it, and a list that was asked for before arrives then.
    master.write("default", |db| db.epoch(EpochReason::ForeignEdit));
    bench.follow_on().await;
    assert_eq!(bench.told().position, Some(master.position("default")), "it has converged");
    bench.listing.send_replace(outdated);
    for _ in 0..TURNS {
        bench.follow_on().await;
        let last = bench.told().last_error.map(|last| last.name);
        assert_eq!((bench.told().state.as_str(), last.as_deref()), ("follow", Some("uncaptured_change")));
    }
}

#[tokio::test]
async fn a_master_with_a_table_that_cannot_be_replicated_stops_the_copy_until_it_is_gone() {
    let master = FakeMaster::start([("default", Master::with_a_row())]).await;
    let mut bench = Bench::new(&master).await;
    bench.follow().await;
    let before = bench.told().position;
    master.write("default", |db| {
        db.conn.execute_batch("CREATE TABLE nokey (x)").unwrap();
        db.epoch(EpochReason::ForeignEdit)
    });
    for _ in 0..TURNS {
        drop(bench.agent.inbox.request(Ask::Sync));
        bench.agent.turn().await;
    }
    let told = bench.told();
    let last = told.last_error.unwrap();
    assert_eq!((told.state.as_str(), last.name.as_str()), ("schema_unreachable", "snapshot_unsafe"));
    assert!(last.text.contains("nokey"), "{}", last.text);
    assert_eq!(told.position, before, "it serves what it has");
    assert_eq!(bench.agent.repeats.count(), 1, "looking again is no converge");
    master.write("default", |db| {
        db.conn.execute_batch("DROP TABLE nokey").unwrap();
        db.epoch(EpochReason::ForeignEdit)
    });
    bench.follow().await;
    assert_eq!(bench.told().position, Some(master.position("default")));
}
