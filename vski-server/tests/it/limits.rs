use std::sync::mpsc::channel;

use vski_replication::entry::{EpochReason, Kind};
use vski_server::store::error::StoreError;

use crate::store::Store;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_above_the_capture_cap_is_undone_and_told_so() {
    let store = Store::new();
    store.ddl("CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)").await.unwrap();
    let huge = "INSERT INTO t SELECT value, zeroblob(1 << 20) FROM (WITH RECURSIVE s(value) AS
        (SELECT 1 UNION ALL SELECT value + 1 FROM s LIMIT 70) SELECT value FROM s)";
    let error = store.sql(huge).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    let mut copy = store.copy();
    store.sql("INSERT INTO t VALUES (1, x'00')").await.unwrap();
    copy.follow_and_compare(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_what_is_queued_is_still_done() {
    let store = Store::new();
    store.ddl("CREATE TABLE t (id INTEGER PRIMARY KEY)").await.unwrap();
    let (release, held) = channel::<()>();
    let (mut held, writer) = (Some(held), store.writer.clone());
    let gate =
        tokio::spawn(async move { writer.rows(0, move |_| Ok(held.take().map(|held| held.recv()))).await.map(|_| ()) });
    let mut queued = Vec::new();
    let refused = loop {
        let id = queued.len() as i64;
        let writer = store.writer.clone();
        let mut request =
            Box::pin(
                async move { writer.rows(0, move |conn| Ok(conn.execute("INSERT INTO t VALUES (?1)", [id])?)).await },
            );
        match futures_util::poll!(&mut request) {
            std::task::Poll::Pending => queued.push(request),
            std::task::Poll::Ready(refused) => break refused,
        }
        assert!(queued.len() < 100_000, "the queue has no bound");
    };
    assert!(matches!(refused, Err(StoreError::Overloaded)), "{refused:?}");
    release.send(()).unwrap();
    gate.await.unwrap().unwrap();
    for request in queued {
        request.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_wait_are_bounded_too() {
    let store = Store::new();
    let error = store.writer.rows(usize::MAX / 2, |_| Ok(())).await.unwrap_err();
    assert!(matches!(error, StoreError::Overloaded), "{error}");
    store.writer.rows(1, |_| Ok(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_replicated_is_refused_with_the_reason() {
    let store = Store::new();
    let before = store.entries_after(0).len();
    for (statement, reason) in [
        ("CREATE TABLE bad (a TEXT)", "no primary key"),
        ("CREATE TABLE bad (a TEXT PRIMARY KEY)", "may be NULL"),
        ("CREATE TABLE bad (a INTEGER PRIMARY KEY AUTOINCREMENT)", "AUTOINCREMENT"),
    ] {
        let error = store.ddl(statement).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{statement}: {error}");
    }
    assert_eq!(store.entries_after(0).len(), before);
    store.ddl("CREATE TABLE bad (a TEXT PRIMARY KEY NOT NULL)").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_by_another_program_begins_a_new_epoch() {
    let store = Store::new();
    store.ddl("CREATE TABLE t (id INTEGER PRIMARY KEY)").await.unwrap();
    store.sql("INSERT INTO t VALUES (1)").await.unwrap();
    let before = store.entries_after(0);
    let stranger = rusqlite::Connection::open(store.file()).unwrap();
    stranger.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    store.sql("INSERT INTO t VALUES (3)").await.unwrap();
    let after = store.entries_after(before.len() as u64);
    assert_eq!(after.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [Kind::Epoch, Kind::Changes]);
    assert_eq!(after[0].epoch_change().unwrap().reason, EpochReason::ForeignEdit);
    assert_eq!(after[1].epoch, after[0].epoch);
    assert_eq!(after[0].epoch.generation, before[0].epoch.generation + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_changes_nothing_writes_no_entry() {
    let store = Store::new();
    store.ddl("CREATE TABLE t (id INTEGER PRIMARY KEY)").await.unwrap();
    let before = store.entries_after(0).len();
    store.sql("DELETE FROM t").await.unwrap();
    store.sql("INSERT INTO t VALUES (1); DELETE FROM t").await.unwrap();
    assert_eq!(store.entries_after(0).len(), before);
}
