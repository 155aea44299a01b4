//! Who asks: by `Authorization` (with or without the word `Bearer`), or by `X-API-Key`, which wins.
//!
//! Whoever shows nothing valid is a guest, since a public collection is open to them all the same; only what needs an
//! admin tells why they are none.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Method, header};
use vski_replication::names;
use vski_replication::token::{Bearer, Claims};

use crate::app::{AdminToken, App};
use crate::http::error::ApiError;
use crate::http::extract::DbName;
use crate::store::auth::keys::{ApiKey, KeyKind};
use crate::store::requester::{AuthRecord, Requester};

/// Whoever asks.
pub struct Caller {
    who: Who,
    /// Why what was shown is worth nothing.
    refused: Option<String>,
    /// When the token ends, seconds since 1970, if it was made by an admin in the record's name: it never lives longer.
    pub fixed_until: Option<u64>,
}

enum Who {
    Guest,
    Admin(AdminToken),
    Record(Arc<AuthRecord>),
}

impl Caller {
    /// Only for admins.
    pub fn require_admin(&self) -> Result<&AdminToken, ApiError> {
        match (&self.who, &self.refused) {
            (Who::Admin(admin), _) => Ok(admin),
            (_, Some(reason)) => Err(ApiError::unauthorized(format!("only admins may do this: {reason}"))),
            (_, None) => {
                Err(ApiError::forbidden("only admins may do this, and this token is not an admin's, or no longer"))
            }
        }
    }

    /// Only for records that have logged in.
    pub fn require_record(&self) -> Result<&AuthRecord, ApiError> {
        match (&self.who, &self.refused) {
            (Who::Record(record), _) => Ok(record),
            (Who::Admin(_), _) => {
                Err(ApiError::forbidden("this is for records of auth collections, and you are an admin: log in as one"))
            }
            (_, reason) => {
                let reason = reason.as_deref().unwrap_or("this token is no record's of this database, or no longer");
                Err(ApiError::unauthorized(format!("log in as a record of an auth collection: {reason}")))
            }
        }
    }

    /// Whether rules do not apply.
    pub fn is_admin(&self) -> bool {
        matches!(self.who, Who::Admin(_))
    }

    /// As rules see it.
    pub fn requester(&self) -> Requester {
        match &self.who {
            Who::Guest => Requester::Guest,
            Who::Admin(_) => Requester::Admin,
            Who::Record(record) => Requester::Record(Arc::clone(record)),
        }
    }

    fn guest(reason: impl ToString) -> Self {
        Self { who: Who::Guest, refused: Some(reason.to_string()), fixed_until: None }
    }

    fn with_key(key: Option<ApiKey>, method: &Method) -> Result<Self, ApiError> {
        let Some(key) = key else {
            return Ok(Self::guest("the API key is not known here, has ended or was revoked"));
        };
        if key.kind == KeyKind::ReadOnly && !matches!(*method, Method::GET | Method::HEAD) {
            let message = format!("the API key {:?} is read-only: use one of kind full for {method}", key.name);
            return Err(ApiError::forbidden(message));
        }
        Ok(Self { who: Who::Admin(AdminToken::Key(key)), refused: None, fixed_until: None })
    }

    async fn with_record(app: &App, db: &str, claims: &Claims) -> Result<Self, ApiError> {
        if claims.db.as_deref() != Some(db) {
            return Ok(Self::guest("the token is for another database"));
        }
        match app.record(db, claims).await? {
            Some(record) => {
                let fixed_until = claims.fixed.then_some(claims.exp);
                Ok(Self { who: Who::Record(Arc::new(record)), refused: None, fixed_until })
            }
            None => Ok(Self::guest("the token has ended, because its bearer is gone or has another password")),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller
where
    App: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let app = App::from_ref(state);
        let text = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap_or("?").trim().to_owned());
        if let Some(secret) = text(names::header::API_KEY).filter(|secret| !secret.is_empty()) {
            return Self::with_key(app.api_key(secret).await?, &parts.method);
        }
        let claims = match app.claims(text(header::AUTHORIZATION.as_str()).as_deref()) {
            Ok(claims) => claims,
            Err(reason) => return Ok(Self::guest(reason)),
        };
        if claims.bearer == Bearer::Record {
            let DbName(db) = DbName::from_request_parts(parts, state).await?;
            return Self::with_record(&app, &db, &claims).await;
        }
        let who = app.admin(&claims).await?.map_or(Who::Guest, Who::Admin);
        Ok(Self { who, refused: None, fixed_until: None })
    }
}

/// Where a request comes from: the peer, or what a trusted proxy says of it.
pub struct ClientAddress(pub IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress
where
    App: FromRef<S>,
{
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let forwarded = parts.headers.get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or_default());
        Ok(Self(App::from_ref(state).trusted_proxies.client(peer, forwarded)))
    }
}
