//! What handlers take from a request: the database it is about, who asks, and a JSON body.

use std::borrow::Cow;
use std::net::SocketAddr;

use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, FromRef, FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use vski_replication::names;
use vski_replication::token::{Audience, Bearer, Claims, TokenError};

pub use super::auth::caller::Caller;
use super::error::ApiError;
use crate::app::App;
use crate::replication::replicas::Calling;
use crate::store::error::StoreError;

/// Largest body that is read where it arrives, bytes.
const SMALL_BODY: usize = 128 << 10;

/// The database a request is about: `?db=`, else `X-DBName`, else `default`.
pub struct DbName(pub String);

#[derive(Deserialize)]
struct DbQuery {
    db: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for DbName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query: Query<DbQuery> = Query::try_from_uri(&parts.uri).map_err(|error| bad_query(&error))?;
        // Bytes that are no text become a name that no database has: never another database's request.
        let header =
            parts.headers.get(names::header::DATABASE_NAME).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let name = query.0.db.or_else(|| header.map(Cow::into_owned)).filter(|name| !name.is_empty());
        Ok(Self(name.unwrap_or_else(|| names::DEFAULT_DATABASE.to_owned())))
    }
}

/// Query parameters, refused in our envelope.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(bad_query(&error)),
        }
    }
}

/// A replica, or an admin where the route allows one.
pub struct Peer {
    /// The replica's id, by its token; an admin's id otherwise.
    pub id: String,
    /// Whether it is an admin or an operator.
    pub is_admin: bool,
    /// Its public address.
    pub public_url: Option<String>,
    /// Its process.
    pub boot_id: Option<String>,
    /// The version of its program.
    pub version: Option<String>,
}

impl Peer {
    /// Only for replicas.
    pub fn require_replica(self) -> Result<Self, ApiError> {
        if self.is_admin {
            Err(ApiError::forbidden("only replicas may do this: send a replica's token"))
        } else {
            Ok(self)
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Peer
where
    App: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let app = App::from_ref(state);
        let claims = match app.claims(authorization(parts)) {
            Ok(claims) => claims,
            Err(reason) => {
                let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.to_string());
                let id = text_header(parts, names::header::REPLICA_ID).unwrap_or_default();
                tracing::warn!(%reason, id, peer = peer.unwrap_or_default(), "replica authentication failed");
                app.metrics.replica_auth_failures.with_label_values(&[reason_label(reason)]).inc();
                return Err(ApiError::unauthorized(reason.to_string()));
            }
        };
        let is_admin = match claims {
            Claims { bearer: Bearer::Replica, aud: Audience::Replica, .. } => false,
            ref other if app.admin(other).await?.is_some() => true,
            _ => return Err(ApiError::forbidden("this token is a user's: the replication routes need a replica's")),
        };
        Ok(Self {
            id: claims.sub,
            is_admin,
            public_url: text_header(parts, names::header::REPLICA_PUBLIC_URL),
            boot_id: text_header(parts, names::header::REPLICA_BOOT_ID),
            version: text_header(parts, names::header::VERSION),
        })
    }
}

impl Calling for Peer {
    fn id(&self) -> &str {
        &self.id
    }

    fn public_url(&self) -> Option<&str> {
        self.public_url.as_deref()
    }

    fn boot_id(&self) -> Option<&str> {
        self.boot_id.as_deref()
    }

    fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }
}

/// A JSON body, whatever its Content-Type says, and its size in bytes.
pub struct Body<T> {
    /// The parsed value.
    pub value: T,
    /// Bytes it took on the wire.
    pub bytes: usize,
}

impl<S: Send + Sync, T: DeserializeOwned + Send + 'static> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        Self::parse(RawBody::from_request(request, state).await?.0).await
    }
}

impl<T: DeserializeOwned> Body<T> {
    /// What these bytes say.
    pub async fn parse(bytes: Bytes) -> Result<Self, ApiError>
    where
        T: Send + 'static,
    {
        let read = |bytes: &[u8]| {
            check_keys(bytes)?;
            serde_json::from_slice(bytes).map_err(|error| wrong_json(&error))
        };
        let size = bytes.len();
        Ok(Self { value: parsed(bytes, read).await?, bytes: size })
    }
}

/// What a body says. A large one is read on a thread that may block: other connections wait for this one.
pub async fn parsed<T: Send + 'static>(
    body: Bytes,
    read: impl FnOnce(&[u8]) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if body.len() <= SMALL_BODY {
        return read(&body);
    }
    tokio::task::spawn_blocking(move || read(&body)).await.map_err(|_| StoreError::ShuttingDown)?
}

/// A missing key is told under its name, as a blank value is.
fn wrong_json(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    match text.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')) {
        Some((field, _)) => StoreError::field(field, "validation_required", "is missing").into(),
        None => ApiError::bad_request(format!("the request body is not the JSON expected here: {text}")),
    }
}

/// A body as it came.
pub struct RawBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the request body is larger than this server takes (MAX_BODY_BYTES): split it",
            ),
            status => ApiError::new(status, rejection.body_text()),
        })
    }
}

/// serde_json keeps a name for itself and would store another value than the one sent.
pub fn check_keys(body: &[u8]) -> Result<(), ApiError> {
    if memmem::find(body, b"$serde_json::private::").is_some() {
        return Err(ApiError::bad_request("a key that begins with $serde_json::private:: cannot be stored: rename it"));
    }
    Ok(())
}

fn bad_query(rejection: &QueryRejection) -> ApiError {
    let text = rejection.body_text();
    let reason = text.split_once("query string: ").map_or(text.as_str(), |(_, reason)| reason);
    ApiError::bad_request(format!("query parameter {reason}"))
}

fn authorization(parts: &Parts) -> Option<&str> {
    parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok())
}

fn text_header(parts: &Parts, name: &str) -> Option<String> {
    parts.headers.get(name).and_then(|value| value.to_str().ok()).map(|value| value.chars().take(200).collect())
}

fn reason_label(reason: TokenError) -> &'static str {
    match reason {
        TokenError::Missing => "missing",
        TokenError::Expired => "expired",
        TokenError::Signature => "signature",
        TokenError::Malformed => "malformed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only whether it can be read matters")]
    struct Login {
        email: String,
        password: String,
    }

    #[test]
    fn a_missing_key_is_told_under_its_name() {
        let wrong = |body: &str| wrong_json(&serde_json::from_str::<Login>(body).unwrap_err());
        let missing = wrong(r#"{"email": "a@b"}"#);
        assert_eq!(missing.status, StatusCode::BAD_REQUEST);
        assert_eq!(missing.data["password"]["code"], "validation_required");
        assert!(wrong("[5]").data.is_empty() && wrong("{").data.is_empty());
    }
}
