use std::sync::Arc;
use std::time::Duration;

use vski_replication::changelog::{self, Retention, STEP_ENTRIES, Standing};
use vski_replication::connection;
use vski_replication::position::Position;
use vski_server::metrics::Metrics;
use vski_server::replication::retention::{LEASE_FACTOR, prune};
use vski_server::replication::snapshot::Snapshots;

use crate::store::Store;

/// So small that a handful of rows exceeds it.
const LIMIT: Retention = Retention { max_age: Duration::from_secs(3_600), max_bytes: 4_096 };

fn snapshots(store: &Store) -> Arc<Snapshots> {
    Arc::new(Snapshots::new(store.master.dir(), &Arc::new(Metrics::new().unwrap())).unwrap())
}

/// Adds `count` entries of more than 500 bytes each.
async fn fill(store: &Store, count: usize) {
    for _ in 0..count {
        store.sql("INSERT INTO t VALUES ((SELECT count(*) FROM t), randomblob(512))").await.unwrap();
    }
}

/// Read from the file: the writer announces a head only after it has answered.
fn head(store: &Store) -> Position {
    changelog::head(&connection::reader(&store.file()).unwrap()).unwrap().position
}

fn base(store: &Store) -> u64 {
    changelog::base(&connection::reader(&store.file()).unwrap()).unwrap().position.version
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_cut_to_its_size_while_the_master_goes_on_and_copies_at_the_base_still_follow() {
    let store = Store::new();
    store.ddl("CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)").await.unwrap();
    let old = store.copy().local.position();
    fill(&store, 30).await;
    let mut copy = store.copy();
    let database = store.master.database("default").unwrap();
    fill(&store, 5).await;
    let head = head(&store);
    let pruned = prune(&database, &snapshots(&store), LIMIT).await.unwrap();
    assert!(pruned.entries > 20, "{pruned:?}");
    let conn = connection::reader(&store.file()).unwrap();
    assert_eq!(changelog::head(&conn).unwrap().position, head);
    assert!(changelog::bytes_after(&conn, 0).unwrap() <= LIMIT.max_bytes);
    assert!(matches!(changelog::standing(&conn, old).unwrap(), Standing::BelowBase { .. }));
    assert!(
        changelog::schema_at(&conn, base(&store)).unwrap().is_some_and(|objects| objects.iter().any(|o| o.name == "t"))
    );
    assert_eq!(prune(&database, &snapshots(&store), LIMIT).await.unwrap().entries, 0);
    copy.follow_and_compare(&store);
    fill(&store, 1).await;
    copy.follow_and_compare(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_goes_in_steps_down_to_the_head() {
    let store = Store::new();
    store.ddl("CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)").await.unwrap();
    let database = store.master.database("default").unwrap();
    let count = STEP_ENTRIES + 200;
    let writes = (0..count as i64).map(|id| {
        let writer = store.writer.clone();
        async move { writer.rows(1, move |conn| Ok(conn.execute("INSERT INTO t VALUES (?1, NULL)", [id])?)).await }
    });
    // Alone, so that each has an entry.
    for write in writes {
        write.await.unwrap();
    }
    let nothing = Retention { max_age: Duration::ZERO, max_bytes: u64::MAX };
    let pruned = prune(&database, &snapshots(&store), nothing).await.unwrap();
    let head = head(&store).version;
    // Entries of the very last millisecond are not too old yet.
    assert!(pruned.entries > STEP_ENTRIES && base(&store) < head, "{pruned:?} of {head}");
    assert_eq!(base(&store), pruned.entries);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leased_snapshot_keeps_the_entries_after_it_up_to_a_bound() {
    let store = Store::new();
    store.ddl("CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)").await.unwrap();
    let (database, snapshots) = (store.master.database("default").unwrap(), snapshots(&store));
    fill(&store, 3).await;
    let manifest = snapshots.take(&database.reader, 0).await.unwrap();
    fill(&store, 15).await;
    prune(&database, &snapshots, LIMIT).await.unwrap();
    assert_eq!(base(&store), manifest.position.version);
    assert!(snapshots.renew(&manifest.id).is_some_and(|file| file.exists()));

    fill(&store, 8 * LEASE_FACTOR as usize).await;
    prune(&database, &snapshots, LIMIT).await.unwrap();
    assert!(base(&store) > manifest.position.version);
    assert!(snapshots.renew(&manifest.id).is_none() && snapshots.is_broken(&manifest.id));
    assert_eq!(std::fs::read_dir(store.master.dir().snapshots()).unwrap().count(), 0);
    assert!(!snapshots.is_broken("another"));
}
