use vski_server::store::auth::keys::{self, KeyKind, NewKey};

use crate::store::Store;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_from_before_there_were_keys_gets_their_table_and_so_do_its_replicas() {
    let store = Store::new();
    store.ddl("DROP TABLE _api_keys").await.unwrap();
    let mut copy = store.copy();
    let store = store.reopen();
    copy.follow_and_compare(&store);
    let (secret, hash) = keys::new_secret();
    let wanted = NewKey { name: "backup".into(), kind: KeyKind::Full, expires: None }.checked().unwrap();
    let made = store.writer.rows(0, move |conn| keys::create(conn, &wanted, &hash)).await.unwrap().value;
    copy.follow_and_compare(&store);
    let there = vski_replication::connection::reader(&copy.file).unwrap();
    assert_eq!(keys::find(&there, &secret).unwrap(), Some(made));

    // Nothing is done twice.
    let version = store.entries_after(0).len();
    assert_eq!(store.reopen().entries_after(0).len(), version);
}
