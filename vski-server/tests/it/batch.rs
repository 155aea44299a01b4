use std::sync::mpsc::channel;

use rusqlite::Connection;
use vski_server::store::error::StoreError;

use crate::store::Store;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER UNIQUE)";

/// Holds the writer thread in one request until `queue` has queued others, which then share a transaction.
async fn in_one_batch<T>(store: &Store, queue: impl Future<Output = T>) -> T {
    let (release, held) = channel::<()>();
    let (entered, has_entered) = tokio::sync::oneshot::channel();
    let (mut entered, writer) = (Some(entered), store.writer.clone());
    let gate = tokio::spawn(async move {
        writer
            .rows(0, move |_| {
                if let Some(entered) = entered.take() {
                    entered.send(()).unwrap();
                    held.recv().unwrap();
                }
                Ok(())
            })
            .await
    });
    has_entered.await.unwrap();
    // Polled once, each request of `queue` is in the writer's queue; then the gate opens.
    let mut queue = Box::pin(queue);
    let first = futures_util::poll!(&mut queue);
    assert!(first.is_pending(), "the writer is held");
    release.send(()).unwrap();
    gate.await.unwrap().unwrap();
    queue.await
}

fn insert(id: i64, n: i64) -> impl FnMut(&Connection) -> Result<(), StoreError> {
    move |conn| Ok(conn.execute("INSERT INTO t VALUES (?1, ?2)", [id, n]).map(|_| ())?)
}

fn rows(store: &Store) -> Vec<i64> {
    let conn = vski_replication::connection::reader(&store.file()).unwrap();
    let mut statement = conn.prepare("SELECT id FROM t ORDER BY id").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_queued_together_share_one_entry_and_a_bad_one_is_left_out() {
    let store = Store::new();
    store.ddl(TABLE).await.unwrap();
    let mut copy = store.copy();
    let before = store.entries_after(0).len();
    let (a, b, c) = in_one_batch(&store, async {
        tokio::join!(
            store.writer.rows(0, insert(1, 1)),
            store.writer.rows(0, insert(2, 1)),
            store.writer.rows(0, insert(3, 3))
        )
    })
    .await;
    assert!(b.is_err());
    let last = store.entries_after(0).last().unwrap().position();
    assert_eq!([a.unwrap().head.position, c.unwrap().head.position], [last; 2], "their answers say where they stand");
    assert_eq!(rows(&store), [1, 3]);
    assert_eq!(store.entries_after(0).len(), before + 1, "one transaction, one entry");
    copy.follow_and_compare(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_ends_the_transaction_in_mid_batch_costs_only_its_own_request() {
    let store = Store::new();
    store.ddl(TABLE).await.unwrap();
    store.sql("INSERT INTO t VALUES (100, 100)").await.unwrap();
    let mut copy = store.copy();
    let ending = |conn: &Connection| {
        conn.execute("INSERT INTO t VALUES (50, 50)", [])?;
        Ok(conn.execute("INSERT OR ROLLBACK INTO t VALUES (51, 100)", []).map(|_| ())?)
    };
    let (a, guilty, b) = in_one_batch(&store, async {
        tokio::join!(
            store.writer.rows(0, insert(1, 1)),
            store.writer.rows(0, ending),
            store.writer.rows(0, insert(2, 2))
        )
    })
    .await;
    assert!(a.is_ok() && b.is_ok(), "the innocent are run again, each alone");
    assert!(guilty.unwrap_err().describe().contains("UNIQUE"), "the guilty gets its own error");
    assert_eq!(rows(&store), [1, 2, 100]);
    copy.follow_and_compare(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_is_swallowed_after_it_ended_the_transaction_stores_nothing() {
    let store = Store::new();
    store.ddl(TABLE).await.unwrap();
    store.sql("INSERT INTO t VALUES (100, 100)").await.unwrap();
    let mut copy = store.copy();
    let swallowing = |conn: &Connection| {
        let _ = conn.execute("INSERT OR ROLLBACK INTO t VALUES (51, 100)", []);
        Ok(())
    };
    store.writer.rows(0, swallowing).await.unwrap_err();
    assert_eq!(rows(&store), [100]);
    copy.follow_and_compare(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_half_way_leaves_nothing_behind() {
    let store = Store::new();
    store.ddl(TABLE).await.unwrap();
    let mut copy = store.copy();
    let half = |conn: &Connection| {
        conn.execute("INSERT INTO t VALUES (1, 1)", [])?;
        Err::<(), _>(StoreError::Invalid("changed its mind".into()))
    };
    store.writer.rows(0, half).await.unwrap_err();
    assert_eq!(rows(&store), Vec::<i64>::new());
    copy.follow_and_compare(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_change_is_one_entry_of_its_own_between_the_rows_around_it() {
    let store = Store::new();
    store.ddl(TABLE).await.unwrap();
    let mut copy = store.copy();
    let before = store.entries_after(0).len() as u64;
    let (a, b, c) = in_one_batch(&store, async {
        tokio::join!(
            store.writer.rows(0, insert(1, 1)),
            store.ddl("ALTER TABLE t ADD COLUMN extra TEXT"),
            store.sql("INSERT INTO t VALUES (2, 2, 'x')"),
        )
    })
    .await;
    a.and(b).and(c).unwrap();
    let kinds: Vec<_> = store.entries_after(before).iter().map(|entry| entry.kind.name()).collect();
    assert_eq!(kinds, ["changes", "schema", "changes"]);
    copy.follow_and_compare(&store);
}
