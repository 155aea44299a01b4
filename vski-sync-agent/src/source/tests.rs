use axum::Router;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use vski_replication::damage::damaged;
use vski_replication::token::Secrets;
use vski_replication::{clock, names};

use super::*;
use crate::config::{Schedule, SyncConfig};
use crate::testing::{FakeMaster, Master, SECRET};

fn source(master_url: &str, secret: &str) -> Source {
    let config =
        SyncConfig { master_url: master_url.into(), ca: None, schedule: Schedule::Manual, omit: Default::default() };
    let identity = Identity::new(Secrets::new(secret, None), "r001".into(), Some("http://r001".into()));
    Source::new(&config, identity).unwrap()
}

/// A master that answers every request for the list or for changes with `respond`.
async fn answering(respond: fn() -> Response) -> Source {
    serving(move || ([(header::REPLICA_MODE, "master")], respond()).into_response()).await
}

/// Any server that does.
async fn serving(respond: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Source {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = move || async move { respond() };
    let router = Router::new().route(route::CHANGESET, get(answer.clone())).route(route::STATUS, get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    source(&url, SECRET)
}

async fn changeset(source: &Source) -> Result<Answer, SourceError> {
    source.changeset("default", Master::new().position(), Duration::ZERO, Duration::ZERO).await
}

#[tokio::test]
async fn the_list_names_each_database_and_its_head() {
    let (default, shop) = (Master::new(), Master::with_a_row());
    let heads = [default.position(), shop.position()];
    let master = FakeMaster::start([("default", default), ("shop", shop)]).await;
    let listed = source(&master.url, SECRET).status(None, Duration::ZERO).await.unwrap();
    assert_eq!(listed.dbs.iter().map(Listed::head).collect::<Vec<_>>(), heads);
    assert_eq!(listed.dbs[1].name, "shop");
}

#[tokio::test]
async fn another_secret_is_unauthorised_and_says_why_without_showing_anything() {
    let master = FakeMaster::start([]).await;
    let error = source(&master.url, "another secret").status(None, Duration::ZERO).await.unwrap_err();
    let text = crate::error::chain(&error);
    assert!(
        matches!(error, SourceError::Unauthorized { .. }) && text.contains("JWT_SECRET must be the same"),
        "{text}"
    );
    assert!(!text.contains("another secret") && !text.contains("ey"), "{text}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let source = answering(|| (StatusCode::FOUND, [(LOCATION, "http://elsewhere/")]).into_response()).await;
    let error = changeset(&source).await.unwrap_err().to_string();
    assert!(error.contains("302") && error.contains("MASTER_URL") && error.contains("http://elsewhere/"), "{error}");
}

#[tokio::test]
async fn an_overloaded_master_says_when_to_come_back() {
    let source = answering(|| (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "7")]).into_response()).await;
    assert_eq!(changeset(&source).await.unwrap_err().retry_after(), Some(Duration::from_secs(7)));
}

/// A replica's answer to somebody who is further: it is this node's parent or, by `path`, its child too.
fn replicas(path: &'static str) -> Response {
    let position = Master::new().position();
    let mut response = StatusCode::NO_CONTENT.into_response();
    for (name, value) in [
        (header::REPLICA_MODE, "replica".to_owned()),
        (header::PATH, path.to_owned()),
        (header::STANDING, names::PARENT_BEHIND.to_owned()),
        (header::HEAD, position.to_string()),
        (header::DATABASE_ID, DatabaseId([1; 16]).to_string()),
        (header::MASTER_HEAD, position.to_string()),
        (header::MASTER_HEAD_AGE, "1500".to_owned()),
        (header::LAG, u64::MAX.to_string()),
        (header::STATE, "follow".to_owned()),
    ] {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

#[tokio::test]
async fn a_replica_in_between_passes_on_what_it_knows_and_which_nodes_there_are() {
    let source = serving(|| replicas("r002,r003")).await;
    assert_eq!((source.upstream(), source.is_replica()), (None, false));
    let answer = changeset(&source).await.unwrap();
    assert!(matches!(answer.changes, Changes::ParentBehind));
    let relay = answer.relay.unwrap();
    assert_eq!((relay.head.unwrap().1, relay.state.as_str()), (1_500, "follow"));
    assert!(clock::now_ms().checked_sub(relay.lag_ms.unwrap()).is_some_and(|time| time > 0), "a bounded age");
    assert_eq!((source.upstream().as_deref(), source.is_replica()), (Some("r002,r003"), true));
}

#[tokio::test]
async fn a_replica_that_follows_this_node_is_not_followed() {
    let source = serving(|| replicas("r002,r001")).await;
    let error = changeset(&source).await.unwrap_err().to_string();
    assert!(error.contains("r002,r001") && error.contains("MASTER_URL"), "{error}");
    assert_eq!(source.upstream(), None);
}

#[tokio::test]
async fn an_answer_without_the_masters_head_is_malformed() {
    let source = answering(|| StatusCode::NO_CONTENT.into_response()).await;
    let error = changeset(&source).await.unwrap_err();
    assert!(matches!(&error, SourceError::Malformed { reason, .. } if reason.contains("x-vski-")), "{error}");
}

#[tokio::test]
async fn whatever_else_answers_at_the_masters_address_is_named_and_nothing_of_it_is_read() {
    let page =
        || (StatusCode::OK, [("content-type", "text/html; charset=utf-8")], "<html>welcome</html>").into_response();
    let missing = || (StatusCode::NOT_FOUND, [("content-type", "text/html")], "<html>404</html>").into_response();
    let other = || (StatusCode::UNAUTHORIZED, [("content-type", "application/json")], "{}").into_response();
    for (respond, status, content_type) in [
        (page as fn() -> Response, 200, "text/html; charset=utf-8"),
        (missing, 404, "text/html"),
        (other, 401, "application/json"),
    ] {
        let error = changeset(&serving(respond).await).await.unwrap_err();
        assert_eq!(error.kind().name(), "no_vski_master");
        let told = format!("does not answer as a VSKI master: status {status}, content type {content_type}");
        assert!(error.to_string().contains(&told) && error.to_string().contains("MASTER_URL"), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_speaks_for_an_absent_master_is_no_stranger() {
    let source = serving(|| (StatusCode::BAD_GATEWAY, "<html>502</html>").into_response()).await;
    assert_eq!(changeset(&source).await.unwrap_err().kind().name(), "master_refused");
    let source = serving(|| StatusCode::SERVICE_UNAVAILABLE.into_response()).await;
    assert_eq!(changeset(&source).await.unwrap_err().kind().name(), "master_overloaded");
}

#[tokio::test]
async fn an_unreachable_master_is_told_without_its_address() {
    let error = changeset(&source("http://127.0.0.1:9", SECRET)).await.unwrap_err();
    let text = crate::error::chain(&error);
    assert!(matches!(error, SourceError::Unreachable { .. }) && !text.contains("http://"), "{text}");
}

#[tokio::test]
async fn a_packed_body_is_unpacked_up_to_its_limit() {
    let packed = zstd::encode_all([0; 100_000].as_slice(), 1).unwrap();
    assert_eq!(client::unpack("changeset", packed.clone(), 100_000).await.unwrap().len(), 100_000);
    let error = client::unpack("changeset", packed, 99_999).await.unwrap_err();
    assert!(error.to_string().contains("more than 99999 bytes"), "{error}");
    assert!(client::unpack("changeset", b"not packed".to_vec(), 10).await.is_err());
}

#[tokio::test]
async fn a_body_beyond_its_limit_is_given_up() {
    let source = answering(|| (StatusCode::OK, "x".repeat(1000)).into_response()).await;
    let request = source.request(Method::GET, route::CHANGESET);
    let response = source.answer("changeset", request, ANSWER_MARGIN).await.unwrap();
    let error = client::body("changeset", response, 999, IDLE_TIMEOUT).await.unwrap_err();
    assert!(error.to_string().contains("longer than 999"), "{error}");
}

#[tokio::test]
async fn a_list_whose_bytes_are_not_those_of_its_digest_is_malformed() {
    const LIST: &str = "{\"dbs\": []}";
    let intact = answering(|| ([(header::DIGEST, digest::of(LIST.as_bytes()))], LIST).into_response()).await;
    assert_eq!(intact.status(None, Duration::ZERO).await.unwrap().dbs, []);
    let older = answering(|| LIST.into_response()).await;
    assert_eq!(older.status(None, Duration::ZERO).await.unwrap().dbs, []);
    let torn = answering(|| ([(header::DIGEST, digest::of(b"{\"dbs\": [{}]}"))], LIST).into_response()).await;
    let error = torn.status(None, Duration::ZERO).await.unwrap_err();
    assert!(matches!(&error, SourceError::Malformed { reason, .. } if reason.contains(header::DIGEST)), "{error}");
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_schema_is_detected_or_means_the_same() {
    let mut master = Master::new();
    master.schema(&["CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, n INT DEFAULT 7, s TEXT DEFAULT 'Ab')"]);
    let objects = schema::objects(&master.conn).unwrap();
    let hash = schema::hash_objects(&objects);
    let json = serde_json::to_vec(&json!({ "db": "a", "version": 1, "hash": hash, "objects": objects })).unwrap();
    let read = |json: &[u8]| serde_json::from_slice::<Schema>(json).ok().filter(|found| found.is(hash));
    assert!(read(&json).is_some());
    let mut same = 0;
    for (what, json) in damaged(&json) {
        let Some(found) = read(&json) else { continue };
        same += 1;
        assert_eq!(found.objects.len(), objects.len(), "{what}");
        for (found, object) in found.objects.iter().zip(&objects) {
            // `table` is in no schema hash: a migration is proved by what SQLite says of it afterwards.
            assert_eq!((&found.kind, &found.name), (&object.kind, &object.name), "{what}");
            // Keywords and names are the same to SQLite in any case, texts are not.
            assert!(found.sql.eq_ignore_ascii_case(&object.sql) && found.sql.contains("'Ab'"), "{what}: {}", found.sql);
        }
    }
    assert!(same > 0, "hex digits and keywords in capitals are the same");
}
