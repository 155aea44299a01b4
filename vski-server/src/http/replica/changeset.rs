//! The entries after a replica's position, or a long wait for the next one.
//!
//! Hundreds of replicas may wait here, so an answer is to cost little: what many of them ask for is encoded once, reads
//! of a few recent entries stay on the thread that asks, and where there are many they take turns.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header as http_header};
use axum::response::{IntoResponse, Response};
use rusqlite::Connection;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;
use vski_replication::changelog::{self, Head, Standing};
use vski_replication::entry::Entry;
use vski_replication::names::{self, header, route};
use vski_replication::position::{Chain, DatabaseId, Epoch, Position};

use super::MAX_WAIT_SECONDS;
use crate::app::{App, Databases};
use crate::http::error::ApiError;
use crate::http::extract::{Params, Peer};
use crate::http::openapi::shapes::{Binary, Error};
use crate::http::state::Polls;
use crate::replication::frames::{Form, Frames, Range};
use crate::replication::relay::{self, Relay};
use crate::store::error::StoreError;

/// Payload of one batch of entries, bytes; a single larger entry still goes whole.
const BATCH_BYTES: usize = 8 << 20;

/// Entries that are read where they are asked for: so recent that they are in memory, and so few that nobody waits.
const QUICK_ENTRIES: u64 = 24;

/// Payload of those, bytes.
const QUICK_BYTES: u64 = 64 << 10;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangesetParams {
    db: String,
    /// `<generation>-<epoch id>`.
    #[param(value_type = String)]
    epoch: Epoch,
    version: u64,
    #[param(value_type = String)]
    chain: Chain,
    wait: Option<u64>,
    /// How long the caller has been there, ms: it is ready to wait for a replica that is behind it.
    held: Option<i64>,
    /// Whether the caller is only about to be there.
    ahead: Option<bool>,
}

/// Entries of the log after a position, which is acknowledged by this unless it is asked `ahead`.
#[utoipa::path(
    get,
    path = route::CHANGESET,
    tag = "replication",
    params(ChangesetParams),
    responses(
        (status = 200, body = Binary, content_type = "application/octet-stream"),
        (status = 204, description = "nothing new"),
        (status = 409, body = Error, description = "the position is not in this log"),
        (status = 410, body = Error, description = "the entries are gone")
    )
)]
pub(super) async fn changeset(
    State(app): State<App>,
    State(polls): State<Arc<Polls>>,
    peer: Peer,
    Params(params): Params<ChangesetParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let peer = peer.require_replica()?;
    let position = Position { epoch: params.epoch, version: params.version, chain: params.chain };
    let asked = Asked { position, held_ms: params.held, form: form(&headers) };
    let patience = params.wait.unwrap_or(0).min(MAX_WAIT_SECONDS);
    let poll = Poll { app: &app, polls: &polls, db: &params.db, asked };
    let found = match patience {
        0 => poll.find().await?,
        _ => poll.wait(Instant::now() + Duration::from_secs(patience)).await?,
    };
    if matches!(found.standing, Standing::AtHead | Standing::Behind) && params.ahead != Some(true) {
        // The position sent is the acknowledgement.
        app.replicas.heard(&peer, &params.db, position);
    }
    poll.answer(found)
}

fn form(request: &HeaderMap) -> Form {
    let accepted = request.get(http_header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Form {
        traced: request.get(header::FRAMES).is_some_and(|value| value == names::TRACED_FRAMES),
        zstd: accepted.split(',').any(|coding| coding.trim().split(';').next() == Some("zstd")),
    }
}

/// Where a peer stands, and what it takes.
#[derive(Clone, Copy)]
struct Asked {
    position: Position,
    held_ms: Option<i64>,
    form: Form,
}

/// What the log has for a peer, read in one transaction.
struct Found {
    /// What a replica passes on of its master.
    relay: Option<Relay>,
    /// The peer is further than this replica, and waits for it.
    waits: bool,
    head: Head,
    database_id: DatabaseId,
    standing: Standing,
    base: Position,
    entries: Entries,
}

/// The entries after a peer's position.
enum Entries {
    Read(Vec<Entry>),
    /// Encoded for another peer at this position.
    Encoded(Frames),
}

struct Poll<'a> {
    app: &'a App,
    polls: &'a Arc<Polls>,
    db: &'a str,
    asked: Asked,
}

impl Poll<'_> {
    /// What the log has as soon as that is anything, or at the deadline.
    async fn wait(&self, deadline: Instant) -> Result<Found, ApiError> {
        // Where all that was announced is known already a look would find nothing.
        if self.knows_all()? {
            self.news(false, deadline).await?;
        }
        loop {
            self.turn(deadline).await;
            let found = self.find().await?;
            let has_news = found.standing != Standing::AtHead && !found.waits;
            if has_news || Instant::now() >= deadline || !self.news(found.waits, deadline).await? {
                return Ok(found);
            }
        }
    }

    fn knows_all(&self) -> Result<bool, ApiError> {
        let announced = match &self.app.databases {
            Databases::Master(master) => Some(*master.database(self.db)?.writer.head().borrow()),
            Databases::Replica(replica) => replica.known_head(self.db),
        };
        Ok(announced.is_some_and(|head| head.position == self.asked.position))
    }

    /// Waits until the log may have something else to say, or the deadline; `false` at the end of this process.
    async fn news(&self, waits: bool, deadline: Instant) -> Result<bool, ApiError> {
        let peer = self.asked.position;
        // What is announced, or was looked at, may be older than what the log said.
        let is_news = |head: &Head| !relay::is_ahead(peer, head.position) && (waits || head.position != peer);
        let news = async {
            match &self.app.databases {
                Databases::Master(master) => {
                    let mut head = master.database(self.db)?.writer.head();
                    drop(head.wait_for(is_news).await);
                }
                Databases::Replica(replica) => {
                    // Without a head the file is gone, which is news too.
                    let mut heads = replica.heads(self.db);
                    let seen = heads.wait_for(Option::is_some).await.is_ok();
                    if seen {
                        drop(heads.wait_for(|head| head.as_ref().is_none_or(is_news)).await);
                    }
                }
            }
            Ok(true)
        };
        tokio::select! {
            news = news => news,
            () = tokio::time::sleep_until(deadline) => Ok(true),
            () = self.app.shutdown.cancelled() => Ok(false),
        }
    }

    /// Waits for this poll's turn, or the deadline, or the end of this process.
    async fn turn(&self, deadline: Instant) {
        let now = Instant::now();
        let turn = self.polls.turns.take(now).min(deadline);
        if turn > now {
            tokio::select! {
                () = tokio::time::sleep_until(turn) => {}
                () = self.app.shutdown.cancelled() => {}
            }
        }
    }

    async fn find(&self) -> Result<Found, ApiError> {
        // Before the log, which then holds at least what this says.
        let relay = Relay::of(self.app, self.db)?;
        let reader = self.app.reader(self.db)?;
        let (asked, polls) = (self.asked, self.polls);
        if let Some(found) = reader.now(|conn| find(conn, asked, relay.as_ref(), polls, true))? {
            return Ok(Found { relay, ..found });
        }
        let (known, shared) = (relay.clone(), Arc::clone(polls));
        let found = reader.read(move |conn| find(conn, asked, known.as_ref(), &shared, false)).await?;
        let (found, polls) = (found.expect("only a quick look may give up"), Arc::clone(polls));
        // To pack many entries takes long, and other connections wait for this thread.
        let packed = tokio::task::spawn_blocking(move || asked.packed(found, &polls)).await;
        Ok(Found { relay, ..packed.map_err(|_| StoreError::ShuttingDown)?? })
    }

    /// The answer to a position: each has the headers that tell where this log stands.
    fn answer(&self, found: Found) -> Result<Response, ApiError> {
        let mut headers = HeaderMap::new();
        let text = |value: String| HeaderValue::from_str(&value).expect("hex digits and numbers are header text");
        headers.insert(header::HEAD, text(found.head.position.to_string()));
        headers.insert(header::DATABASE_ID, text(found.database_id.to_string()));
        headers.insert(header::SCHEMA_HASH, text(found.head.schema_hash.to_string()));
        if let Some(relay) = &found.relay {
            relay.tell(&mut headers);
        }
        if found.waits {
            headers.insert(header::STANDING, HeaderValue::from_static(names::PARENT_BEHIND));
            return Ok((StatusCode::NO_CONTENT, headers).into_response());
        }
        let head = found.head.position;
        let refusal = match found.standing {
            Standing::AtHead => return Ok((StatusCode::NO_CONTENT, headers).into_response()),
            Standing::Behind => {
                let frames = self.asked.frames(found.entries, head, self.polls)?;
                headers.insert(http_header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                if frames.zstd {
                    headers.insert(http_header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
                }
                return Ok((headers, frames.bytes).into_response());
            }
            Standing::Diverged { common } => {
                let message = "this log does not contain the position sent: the histories have parted";
                ApiError::new(StatusCode::CONFLICT, message).with("common", common.to_string())
            }
            Standing::BelowBase { base } => {
                let message = "the entries after the position sent are no longer kept";
                ApiError::new(StatusCode::GONE, message).with("base", base.to_string())
            }
        };
        tracing::warn!(base = %found.base, %head, status = %refusal.status, "a replica's position is not in this log");
        let refusal = refusal.with("head", head.to_string()).with("databaseId", found.database_id.to_string());
        Ok((headers, refusal).into_response())
    }
}

impl Asked {
    /// What is told of a log that ends at `head`.
    fn range(self, head: Position) -> Range {
        Range { after: self.position, head, form: self.form }
    }

    /// The same with its entries encoded, if they are to be sent.
    fn packed(self, found: Found, polls: &Polls) -> Result<Found, ApiError> {
        if found.waits || found.standing != Standing::Behind {
            return Ok(found);
        }
        let frames = self.frames(found.entries, found.head.position, polls)?;
        Ok(Found { entries: Entries::Encoded(frames), ..found })
    }

    /// Encodes what was read of a log that ends at `head`, unless that was done for another peer; then for others, too.
    fn frames(self, entries: Entries, head: Position, polls: &Polls) -> Result<Frames, ApiError> {
        let entries = match entries {
            Entries::Encoded(frames) => return Ok(frames),
            Entries::Read(entries) => entries,
        };
        let frames = self
            .form
            .encode(&entries)
            .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("compress entries: {error}")))?;
        polls.frames.keep(self.range(head), &frames);
        Ok(frames)
    }
}

/// What the log says; `None` where a `quick` look would have to read more than it may.
fn find(
    conn: &Connection,
    asked: Asked,
    relay: Option<&Relay>,
    polls: &Polls,
    quick: bool,
) -> Result<Option<Found>, StoreError> {
    let (peer, head, base) = (asked.position, changelog::head(conn)?, changelog::base(conn)?.position);
    let asks = |relay: &Relay| asked.held_ms.is_some_and(|held| relay.asks_to_wait(peer, head.position, held));
    let waits = relay.is_some_and(asks);
    // That this log holds the position was found out for the other peer. The entries may have been pruned since.
    let encoded = polls.frames.get(&asked.range(head.position)).filter(|_| peer.version >= base.version);
    let (standing, entries) = match encoded {
        Some(frames) => (Standing::Behind, Entries::Encoded(frames)),
        None => {
            let standing = changelog::standing_between(conn, peer, base, head.position)?;
            let is_behind = standing == Standing::Behind;
            if quick && is_behind && is_long(conn, peer, head.position)? {
                return Ok(None);
            }
            let read = || changelog::read_after(conn, peer.version, BATCH_BYTES);
            (standing, Entries::Read(if is_behind { read()? } else { Vec::new() }))
        }
    };
    let database_id = changelog::database_id(conn)?;
    Ok(Some(Found { relay: None, waits, head, database_id, standing, base, entries }))
}

fn is_long(conn: &Connection, peer: Position, head: Position) -> Result<bool, StoreError> {
    Ok(head.version - peer.version > QUICK_ENTRIES || changelog::bytes_after(conn, peer.version)? > QUICK_BYTES)
}

#[cfg(test)]
mod tests;
