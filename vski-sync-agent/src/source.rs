//! The master, over HTTP: one typed method per route of the replication protocol. A replica may stand in between; it
//! answers from its own log and passes on what it knows of the master (`Relay`).
//!
//! Each call carries a young token, this node's id, address and boot id, and the trace it belongs to.
//! Redirects are not followed (the token would travel along) and proxies from the environment are not used. A call
//! waits a bounded time for an answer to begin and for each part of it to come, so that a connection that a
//! partition has silenced is given up; a body's whole size is bounded too.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::RANGE;
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use vski_replication::digest;
use vski_replication::entry::MAX_PAYLOAD;
use vski_replication::names::{header, route};
use vski_replication::position::{Chain, DatabaseId, Epoch, EpochId, Position, SchemaHash};
use vski_replication::ranges::{Overview, RangesPage};
use vski_replication::schema::{self, Object};
use vski_replication::snapshot::{CHUNK_BYTES, Manifest};
use vski_replication::token::Claims;

mod changeset;
mod client;
mod clock_skew;
mod error;
mod file;
mod relay;
mod token;

pub use changeset::{Answer, Changes};
pub use client::Identity;
pub(crate) use client::certificates;
use clock_skew::ClockSkew;
pub use error::SourceError;
pub(crate) use file::FileBody;
pub use relay::Relay;
use token::OwnToken;

/// How long an answer may take to begin, beyond the wait that was asked for.
const ANSWER_MARGIN: Duration = Duration::from_secs(15);

/// How long a master may take to copy a database before it answers with the manifest.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// How long the next part of a body may take.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest JSON answer, bytes: a manifest lists 67 bytes for each MiB of the database.
const MAX_JSON: usize = 256 << 20;

/// The largest batch, bytes, packed or not: one entry of the greatest length, and a bounded batch before it.
const MAX_BATCH: usize = MAX_PAYLOAD + (16 << 20);

/// A master, and who asks it.
#[derive(Clone)]
pub struct Source {
    client: Client,
    /// The master's address.
    base: Url,
    identity: Identity,
    /// Of this node; shared by all clones.
    token: Arc<OwnToken>,
    /// This node's clock against the master's; shared by all clones.
    clock_skew: Arc<ClockSkew>,
    /// The nodes between this one and the master by the last answer; shared by all clones.
    upstream: Arc<Mutex<Option<String>>>,
}

/// The databases of the node that answered.
#[derive(Debug, Default, Deserialize)]
pub struct List {
    /// Those that can be followed.
    pub dbs: Vec<Listed>,
    /// Names of those that a replica in between does not have yet.
    #[serde(default)]
    pub awaited: Vec<String>,
    /// Names of those that the master has deleted.
    #[serde(default)]
    pub deleted: Vec<String>,
}

/// One database as the master lists it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Its name, as the master wrote it.
    pub name: String,
    /// Its identity.
    pub database_id: DatabaseId,
    generation: u64,
    epoch: EpochId,
    version: u64,
    sha256: Chain,
}

impl Listed {
    /// Where the master stands.
    #[must_use]
    pub fn head(&self) -> Position {
        Position {
            epoch: Epoch { generation: self.generation, id: self.epoch },
            version: self.version,
            chain: self.sha256,
        }
    }
}

/// A database's schema at some version.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Schema {
    /// Its hash.
    pub hash: SchemaHash,
    /// Its objects.
    pub objects: Vec<Object>,
}

impl Schema {
    /// Whether this is the schema with that hash, which an entry told whose chain was right.
    pub(crate) fn is(&self, hash: SchemaHash) -> bool {
        self.hash == hash && schema::hash_objects(&self.objects) == hash
    }
}

impl Source {
    /// The nodes between this one and the master, the nearest first, with commas; empty where a master answers itself,
    /// `None` before the first answer.
    #[must_use]
    pub fn upstream(&self) -> Option<String> {
        self.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the last answer came from a replica.
    #[must_use]
    pub fn is_replica(&self) -> bool {
        self.upstream().is_some_and(|path| !path.is_empty())
    }

    /// How far this node's clock is ahead of the master's, ms, once an answer told.
    #[must_use]
    pub fn clock_skew_ms(&self) -> Option<i64> {
        self.clock_skew.ms()
    }

    /// The databases and where they stand. With `known` names the master waits up to `wait` for another set of them.
    pub async fn status(&self, known: Option<&[String]>, wait: Duration) -> Result<List, SourceError> {
        let mut query = Vec::new();
        if let Some(known) = known {
            query = vec![("wait", wait.as_secs().to_string()), ("known", known.join(","))];
        }
        let request = self.request(Method::GET, route::STATUS).query(&query);
        let response = self.send("status", request, wait + ANSWER_MARGIN).await?;
        self.json("status", response).await
    }

    /// A snapshot of a database with the entries up to `version`, which the master may have to make first.
    pub async fn manifest(&self, db: &str, version: u64) -> Result<Manifest, SourceError> {
        let query = [("db", db.to_owned()), ("version", version.to_string())];
        let request = self.request(Method::GET, route::SNAPSHOT).query(&query);
        let response = self.send("snapshot", request, MANIFEST_TIMEOUT).await?;
        let manifest: Manifest = self.json("snapshot", response).await?;
        let malformed = |reason: String| SourceError::Malformed { call: "snapshot", reason };
        manifest.verify().map_err(|error| malformed(error.to_string()))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if manifest.db != db || manifest.id.is_empty() || !manifest.id.chars().all(plain) {
            return Err(malformed(format!("it names snapshot {:?} of database {:?}", manifest.id, manifest.db)));
        }
        Ok(manifest)
    }

    /// `length` bytes of a snapshot from `start`. Not found: the lease is gone, a new manifest is needed.
    pub async fn chunk(&self, snapshot: &str, start: u64, length: u64) -> Result<Vec<u8>, SourceError> {
        debug_assert!(length <= CHUNK_BYTES);
        let range = format!("bytes={start}-{}", start + length.saturating_sub(1));
        let request = self.request(Method::GET, &format!("{}/{snapshot}", route::SNAPSHOT)).header(RANGE, range);
        let response = self.send("snapshot chunk", request, ANSWER_MARGIN).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            let reason = format!("status {} where 206 is due", response.status().as_u16());
            return Err(SourceError::Malformed { call: "snapshot chunk", reason });
        }
        client::body("snapshot chunk", response, usize::try_from(length).unwrap_or(usize::MAX), IDLE_TIMEOUT).await
    }

    /// What a snapshot holds, table by table. The master reads all of it to answer.
    pub async fn overview(&self, snapshot: &str) -> Result<Overview, SourceError> {
        const CALL: &str = "snapshot ranges";
        let request = self.request(Method::GET, &format!("{}/{snapshot}/ranges", route::SNAPSHOT));
        let overview: Overview = self.json(CALL, self.send(CALL, request, MANIFEST_TIMEOUT).await?).await?;
        overview.verify().map_err(|error| SourceError::Malformed { call: CALL, reason: error.to_string() })?;
        Ok(overview)
    }

    /// Ranges of a snapshot's table from number `from` on: some, not all of them. Not verified: the hash is of all.
    pub async fn ranges(&self, snapshot: &str, table: &str, from: usize) -> Result<RangesPage, SourceError> {
        const CALL: &str = "snapshot ranges";
        let query = [("table", table.to_owned()), ("from", from.to_string())];
        let request = self.request(Method::GET, &format!("{}/{snapshot}/ranges", route::SNAPSHOT)).query(&query);
        self.json(CALL, self.send(CALL, request, MANIFEST_TIMEOUT).await?).await
    }

    /// The hashes of the rows in the ranges from `first` to `last`: a frame for each range.
    pub async fn row_hashes(
        &self,
        snapshot: &str,
        table: &str,
        first: usize,
        last: usize,
    ) -> Result<Vec<u8>, SourceError> {
        let query = [("table", table.to_owned()), ("range", first.to_string()), ("through", last.to_string())];
        self.rows_body(snapshot, &query).await
    }

    /// Rows of a snapshot's table, a frame each: those at `places`, as in `3:1,5;4:0`, or the first of them.
    pub async fn rows(&self, snapshot: &str, table: &str, places: String) -> Result<Vec<u8>, SourceError> {
        self.rows_body(snapshot, &[("table", table.to_owned()), ("places", places)]).await
    }

    async fn rows_body(&self, snapshot: &str, query: &[(&str, String)]) -> Result<Vec<u8>, SourceError> {
        const CALL: &str = "snapshot rows";
        let request = self.request(Method::GET, &format!("{}/{snapshot}/rows", route::SNAPSHOT)).query(query);
        let response = self.send(CALL, request, ANSWER_MARGIN).await?;
        client::body(CALL, response, MAX_BATCH, IDLE_TIMEOUT).await
    }

    /// The schema in force at `version`. Not found: the master's log no longer tells.
    pub async fn schema(&self, db: &str, version: u64) -> Result<Schema, SourceError> {
        let query = [("db", db.to_owned()), ("version", version.to_string())];
        let request = self.request(Method::GET, route::SCHEMA_SYNC).query(&query);
        let response = self.send("schema-sync", request, ANSWER_MARGIN).await?;
        self.json("schema-sync", response).await
    }

    /// Tells the master where this replica starts from.
    pub async fn session(&self, db: &str, position: Position) -> Result<(), SourceError> {
        let request = self.request(Method::POST, route::SESSION).json(&json!({ "db": db, "position": position }));
        self.send("session", request, ANSWER_MARGIN).await.map(drop)
    }

    /// Asks the master, as an operator, to take no more writes because this node is going to take over. Once it has
    /// answered its heads do not move any more. Not found: it is too old to be asked, or no master.
    pub async fn hand_over(&self) -> Result<(), SourceError> {
        let request = self.request_as(&Claims::operator(), Method::POST, route::HANDOVER);
        self.send("handover", request, ANSWER_MARGIN).await.map(drop)
    }

    /// Takes [`Self::hand_over`] back: this node does not take over.
    pub async fn hand_back(&self) -> Result<(), SourceError> {
        let request = self.request_as(&Claims::operator(), Method::DELETE, route::HANDOVER);
        self.send("handover", request, ANSWER_MARGIN).await.map(drop)
    }

    /// Any answer below 300.
    async fn send(
        &self,
        call: &'static str,
        request: reqwest::RequestBuilder,
        patience: Duration,
    ) -> Result<Response, SourceError> {
        let response = self.answer(call, request, patience).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(call, response).await) }
    }

    /// A JSON answer whose bytes are those that its digest promised. Older masters promise nothing: what they say of
    /// rows and schemas is verified by those who use it, and what they list is no more than a reason to ask.
    async fn json<T: DeserializeOwned>(&self, call: &'static str, response: Response) -> Result<T, SourceError> {
        let promised = response.headers().get(header::DIGEST).cloned();
        let body = client::body(call, response, MAX_JSON, IDLE_TIMEOUT).await?;
        if promised.is_some_and(|promised| !digest::matches(promised.as_bytes(), &body)) {
            let reason = format!("its bytes are not those that {} promised", header::DIGEST);
            return Err(SourceError::Malformed { call, reason });
        }
        serde_json::from_slice(&body).map_err(|error| SourceError::Malformed { call, reason: error.to_string() })
    }
}

#[cfg(test)]
mod tests;
