use prometheus::Registry;
use vski_replication::snapshot::CHUNK_BYTES;
use vski_replication::token::Secrets;

use super::*;
use crate::config::{Schedule, SyncConfig};
use crate::source::Identity;
use crate::testing::{FakeMaster, Master, SECRET};

struct Setup {
    master: FakeMaster,
    source: Source,
    dir: DataDir,
    metrics: AgentMetrics,
    _keep: tempfile::TempDir,
}

/// A master whose default database takes several chunks, and an empty replica.
async fn setup() -> Setup {
    let mut default = Master::with_a_row();
    default.changes(
        "INSERT INTO t SELECT hex(randomblob(2000)), n FROM
         (WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT 1300) SELECT n FROM s)",
    );
    let master = FakeMaster::start([("default", default)]).await;
    let config =
        SyncConfig { master_url: master.url.clone(), ca: None, schedule: Schedule::Manual, omit: Default::default() };
    let identity = Identity::new(Secrets::new(SECRET, None), "r001".into(), None);
    let keep = tempfile::tempdir().unwrap();
    Setup {
        source: Source::new(&config, identity).unwrap(),
        dir: DataDir::open(keep.path()).unwrap(),
        metrics: AgentMetrics::register(&Registry::new()).unwrap(),
        master,
        _keep: keep,
    }
}

impl Setup {
    async fn run(&self) -> Result<(), AgentError> {
        run(&self.source, &self.dir, "default", &self.metrics).await
    }

    fn position(&self) -> vski_replication::position::Position {
        changelog::head(&connection::reader(&self.dir.database("default")).unwrap()).unwrap().position
    }

    fn total_chunks(&self) -> usize {
        let size = std::fs::metadata(self.dir.database("default")).unwrap().len();
        usize::try_from(size.div_ceil(CHUNK_BYTES)).unwrap()
    }
}

#[tokio::test]
async fn a_snapshot_arrives_whole_and_the_master_is_told() {
    let setup = setup().await;
    setup.run().await.unwrap();
    assert_eq!(setup.position(), setup.master.position("default"));
    assert!(setup.total_chunks() > 4);
    assert_eq!(setup.master.lock().chunks.len(), setup.total_chunks());
    assert_eq!(setup.master.lock().sessions[0]["position"], setup.position().to_string());
    assert!(!setup.dir.incoming().join("default").exists());
}

#[tokio::test]
async fn an_interrupted_download_goes_on_with_the_chunks_that_are_there() {
    let setup = setup().await;
    setup.master.lock().fail_after = Some(3);
    let error = setup.run().await.unwrap_err();
    assert!(matches!(error, AgentError::Source(SourceError::Refused { status: 500, .. })), "{error}");
    assert!(!setup.dir.database("default").exists());
    setup.master.lock().fail_after = None;
    let before = std::mem::take(&mut setup.master.lock().chunks).len();
    setup.run().await.unwrap();
    assert_eq!(setup.master.lock().chunks.len() + before, setup.total_chunks());
    assert_eq!(setup.position(), setup.master.position("default"));
}

#[tokio::test]
async fn a_damaged_chunk_is_fetched_again() {
    let setup = setup().await;
    setup.master.lock().damage = [0, CHUNK_BYTES].into();
    setup.run().await.unwrap();
    assert_eq!(setup.master.lock().chunks.len(), setup.total_chunks() + 2);
    assert_eq!(setup.position(), setup.master.position("default"));
}

#[tokio::test]
async fn what_was_damaged_on_the_disk_meanwhile_is_fetched_again() {
    let setup = setup().await;
    let path = setup.dir.incoming().join("default");
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("data"), vec![7; 3 * CHUNK_BYTES as usize]).unwrap();
    setup.run().await.unwrap();
    assert_eq!(setup.master.lock().chunks.len(), setup.total_chunks());
}

#[tokio::test]
async fn an_ended_lease_leads_to_a_new_manifest() {
    let setup = setup().await;
    setup.master.lock().drop_leases = 1;
    setup.run().await.unwrap();
    assert_eq!(setup.master.lock().snapshots_made, 2);
    assert_eq!(setup.position(), setup.master.position("default"));
}

#[tokio::test]
async fn a_file_that_is_there_is_never_replaced() {
    let setup = setup().await;
    std::fs::write(setup.dir.database("default"), "somebody's").unwrap();
    let error = setup.run().await.unwrap_err();
    assert!(matches!(error, AgentError::Io { action: "install over", .. }), "{error}");
    assert_eq!(std::fs::read(setup.dir.database("default")).unwrap(), b"somebody's");
}

#[tokio::test]
async fn a_name_that_a_server_has_open_is_not_installed() {
    let setup = setup().await;
    let open = setup.dir.share_database("default").unwrap();
    assert!(matches!(setup.run().await, Err(AgentError::InUse)));
    drop(open);
    setup.run().await.unwrap();
}

#[tokio::test]
async fn a_wal_without_its_database_is_set_aside() {
    let setup = setup().await;
    std::fs::write(setup.dir.root().join("default.db-wal"), "stale").unwrap();
    setup.run().await.unwrap();
    assert_eq!(setup.position(), setup.master.position("default"));
    assert_eq!(std::fs::read_dir(setup.dir.private().join("lost")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_followed_is_not_installed() {
    let setup = setup().await;
    setup.master.write("default", |master| master.conn.execute_batch("CREATE TABLE keyless (a)").unwrap());
    let error = setup.run().await.unwrap_err();
    assert_eq!(error.state_name(), "schema_unreachable");
    assert!(error.to_string().contains("keyless"), "{error}");
    assert!(!setup.dir.database("default").exists());
}

#[tokio::test]
async fn a_database_that_the_master_lacks_is_missing_there() {
    let setup = setup().await;
    setup.master.lock().dbs.clear();
    assert!(matches!(setup.run().await, Err(AgentError::MissingOnMaster)));
}
