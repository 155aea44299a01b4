use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vski_replication::datadir::DataDir;
use vski_server::metrics::Metrics;
use vski_server::store::master::Master;

const SHOP: &str = "shop";

/// How long something may take that nobody waits for.
const DONE: Duration = Duration::from_secs(60);

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DONE, "not within {DONE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client that hangs up ends its request in the middle. Closing blocks, and what is finished in the background goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_or_restore_whose_caller_goes_away_is_done_whole() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temporary.path()).unwrap();
    let open = || Arc::new(Master::open(&dir, &Arc::new(Metrics::new().unwrap())).unwrap());
    let master = open();
    master.create(SHOP).unwrap();

    assert!(futures_util::poll!(pin!(master.delete(SHOP))).is_pending());
    eventually("it is deleted", || master.deleted() == [SHOP] && master.database(SHOP).is_err()).await;
    master.close();
    let master = open();
    assert_eq!(master.deleted(), [SHOP]);

    assert!(futures_util::poll!(pin!(master.restore(SHOP))).is_pending());
    eventually("it is restored", || master.deleted().is_empty() && master.database(SHOP).is_ok()).await;
    master.close();
    let master = open();
    assert!(master.deleted().is_empty() && master.database(SHOP).is_ok());
}

#[tokio::test]
async fn a_database_whose_restoring_cannot_be_stored_stays_deleted() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temporary.path()).unwrap();
    let master = Arc::new(Master::open(&dir, &Arc::new(Metrics::new().unwrap())).unwrap());
    master.create(SHOP).unwrap();
    master.delete(SHOP).await.unwrap();
    let default = master.database("default").unwrap().writer;
    let full = "CREATE TRIGGER full BEFORE DELETE ON _databases BEGIN SELECT RAISE(ABORT, 'no room'); END";
    default.schema(move |_| Ok(vec![full.to_owned()]), |_| Ok(())).await.unwrap();
    assert!(master.restore(SHOP).await.is_err());
    assert!(master.database(SHOP).is_err(), "what is written to it would be gone after a restart");
    assert_eq!(master.deleted(), [SHOP]);
    default.schema(move |_| Ok(vec!["DROP TRIGGER full".to_owned()]), |_| Ok(())).await.unwrap();
    master.restore(SHOP).await.unwrap();
    assert!(master.database(SHOP).is_ok());
}
