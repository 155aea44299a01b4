//! What follows a position in the master's log.

use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use tracing::{Instrument, Span, info_span};
use vski_replication::clock;
use vski_replication::names::{self, header, route};
use vski_replication::position::{DatabaseId, Position};
use vski_replication::trace::Trace;

use super::{ANSWER_MARGIN, IDLE_TIMEOUT, MAX_BATCH, Relay, Source, SourceError, client};
use crate::{telemetry, trace};

/// What the master says to a position.
#[derive(Debug)]
pub struct Answer {
    /// The master's database.
    pub database_id: DatabaseId,
    /// Where the log ends that the answer is from: the master's, or that of a replica in between.
    pub head: Position,
    /// What a replica in between knows of the master.
    pub relay: Option<Relay>,
    /// When the question was sent, ms since 1970 by this node's clock.
    pub asked_ms: i64,
    /// When the answer began to arrive, likewise.
    pub answered_ms: i64,
    /// What follows the position.
    pub changes: Changes,
    /// The span of this request, where it is exported.
    pub pulled: Option<Trace>,
}

/// What follows a position.
#[derive(Debug)]
pub enum Changes {
    /// Frames, unpacked but not yet verified.
    Entries(Vec<u8>),
    /// Nothing: the position is the master's head.
    AtHead,
    /// Nothing yet: the replica that answered is behind the position itself, and the master may not be.
    ParentBehind,
    /// The master's log lacks the position; they agree no later than `common`.
    Diverged {
        /// The last position both may share, if the master said so.
        common: Option<Position>,
    },
    /// The entries after the position are pruned; the log begins at `base`.
    BelowBase {
        /// The position before the first entry, if the master said so.
        base: Option<Position>,
    },
}

impl Source {
    /// What follows `position`, which this copy has had for `held`; the master waits up to `wait` for something to follow.
    pub async fn changeset(
        &self,
        db: &str,
        position: Position,
        held: Duration,
        wait: Duration,
    ) -> Result<Answer, SourceError> {
        let query = [("wait", wait.as_secs()), ("held", u64::try_from(held.as_millis()).unwrap_or(u64::MAX))];
        self.pull(db, position, &query, wait).await
    }

    /// What follows `position`, where this copy is about to be: the master does not take it for where it is.
    pub async fn changeset_ahead(&self, db: &str, position: Position) -> Result<Answer, SourceError> {
        self.pull(db, position, &[("ahead", true)], Duration::ZERO).await
    }

    /// Asks in a span of its own, which goes along.
    async fn pull(
        &self,
        db: &str,
        position: Position,
        query: &impl Serialize,
        wait: Duration,
    ) -> Result<Answer, SourceError> {
        let pull = async { self.changes(self.about(Method::GET, db, position).query(query), wait).await };
        pull.instrument(pull_span(db, position)).await
    }

    async fn changes(&self, request: reqwest::RequestBuilder, wait: Duration) -> Result<Answer, SourceError> {
        const CALL: &str = "changeset";
        let request = request.header(ACCEPT_ENCODING, "zstd").header(header::FRAMES, names::TRACED_FRAMES);
        let asked_ms = clock::now_ms();
        let response = self.answer(CALL, request, wait + ANSWER_MARGIN).await?;
        let answered_ms = clock::now_ms();
        let status = response.status();
        if !matches!(status, StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::CONFLICT | StatusCode::GONE) {
            return Err(self.refusal(CALL, response).await);
        }
        let database_id = client::header_value(CALL, &response, header::DATABASE_ID)?;
        let head = client::header_value(CALL, &response, header::HEAD)?;
        let relay = Relay::told(CALL, &response)?;
        let waits = response.headers().get(header::STANDING).is_some_and(|value| value == names::PARENT_BEHIND);
        let changes = match status {
            StatusCode::NO_CONTENT if waits => Changes::ParentBehind,
            StatusCode::NO_CONTENT => Changes::AtHead,
            StatusCode::CONFLICT => Changes::Diverged { common: self.told(response, "common").await },
            StatusCode::GONE => Changes::BelowBase { base: self.told(response, "base").await },
            _ => Changes::Entries(self.frames(CALL, response).await?),
        };
        let pulled = trace::of_span(&Span::current());
        Ok(Answer { database_id, head, relay, asked_ms, answered_ms, changes, pulled })
    }

    /// Whether the master's log has this position, or begins after it.
    pub async fn holds(&self, db: &str, position: Position) -> Result<bool, SourceError> {
        const CALL: &str = "changeset";
        // HEAD: whether, not what. Without `held` a replica that is behind says what its log says.
        let response = self.answer(CALL, self.about(Method::HEAD, db, position), ANSWER_MARGIN).await?;
        match response.status() {
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::GONE => Ok(true),
            StatusCode::CONFLICT => Ok(false),
            _ => Err(self.refusal(CALL, response).await),
        }
    }

    /// A question about what follows a position.
    fn about(&self, method: Method, db: &str, position: Position) -> reqwest::RequestBuilder {
        let Position { epoch, version, chain } = position;
        let query = [("epoch", epoch.to_string()), ("version", version.to_string()), ("chain", chain.to_string())];
        self.request(method, route::CHANGESET).query(&[("db", db)]).query(&query)
    }

    async fn frames(&self, call: &'static str, response: Response) -> Result<Vec<u8>, SourceError> {
        let encoding = response.headers().get(CONTENT_ENCODING).cloned();
        let body = client::body(call, response, MAX_BATCH, IDLE_TIMEOUT).await?;
        match encoding.as_ref().map(reqwest::header::HeaderValue::as_bytes) {
            None => Ok(body),
            Some(b"zstd") => client::unpack(call, body, MAX_BATCH).await,
            Some(_) => Err(SourceError::Malformed { call, reason: "an unknown Content-Encoding".to_owned() }),
        }
    }

    /// A position in an error's `data`: good to know, not needed.
    async fn told(&self, response: Response, key: &str) -> Option<Position> {
        let body: serde_json::Value = self.json("changeset", response).await.ok()?;
        body["data"][key].as_str()?.parse().ok()
    }
}

/// For traces alone: to make a span costs as much as to build the request.
fn pull_span(db: &str, position: Position) -> Span {
    if !telemetry::is_exporting() {
        return Span::none();
    }
    info_span!("pull", otel.kind = "client", db, version = position.version)
}
