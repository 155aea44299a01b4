//! What a serving process owns.

use std::ops::Deref;
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use tokio_util::sync::CancellationToken;
use vski_replication::datadir::DataDir;
use vski_replication::names::{self, header};
use vski_replication::node::Role;
use vski_replication::token::{Audience, Bearer, Claims, Secrets, TokenError};

use crate::config::{CorsOrigins, Freshness, Limits, TrustedProxies};
use crate::http::auth::limit::LoginLimiter;
use crate::metrics::Metrics;
use crate::replication::replicas::Replicas;
use crate::store::auth;
use crate::store::auth::admins::{self, Admin};
use crate::store::auth::keys::{self, ApiKey};
use crate::store::auth::records;
use crate::store::error::StoreError;
use crate::store::master::Master;
use crate::store::reader::Reader;
use crate::store::replica::Replica;
use crate::store::requester::AuthRecord;

/// How this node is called.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its id.
    pub id: String,
    /// Its role, decided once at start.
    pub role: Role,
    /// Where clients reach it.
    pub public_url: Option<String>,
    /// Where its master is, without user info; on replicas.
    pub master_url: Option<String>,
    /// All of this as every response says it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Identity {
    /// How a node is called.
    #[must_use]
    pub fn new(id: String, role: Role, public_url: Option<String>, master_url: Option<String>) -> Self {
        let named = |name: &'static str, value: &str| {
            // An address from the operator may hold what no header can; then it is left out.
            Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?))
        };
        let master = master_url.as_deref().and_then(|master| named(header::MASTER_URL, master));
        let own = [named(header::REPLICA_MODE, role.name()), named(header::REPLICA_ID, &id)];
        let headers = own.into_iter().flatten().chain(master).collect();
        Self { id, role, public_url, master_url, headers }
    }
}

/// The databases, by what this node may do with them.
#[derive(Clone)]
pub enum Databases {
    /// Read and written here.
    Master(Arc<Master>),
    /// Only read here.
    Replica(Arc<Replica>),
}

/// Shared by all requests. Cheap to clone, which every layer does for every request.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// What all clones of an [`App`] have.
pub struct Shared {
    /// How this node is called.
    pub identity: Arc<Identity>,
    /// Signs and checks tokens.
    pub secrets: Secrets,
    /// What it serves.
    pub databases: Databases,
    /// How stale its reads may be.
    pub freshness: Freshness,
    /// How much a request may ask for.
    pub limits: Limits,
    /// How often somebody may try to log in here.
    pub logins: LoginLimiter,
    /// Whose word counts for where a request comes from.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// Whose pages may read its answers in a browser.
    pub cors_origins: Arc<CorsOrigins>,
    /// The replicas that were heard of.
    pub replicas: Arc<Replicas>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the process is asked to end: long polls answer at once.
    pub shutdown: CancellationToken,
}

impl From<Shared> for App {
    fn from(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// A reader of one database, for what callers ask of its records: behind it nothing else waits.
    pub fn data(&self, name: &str) -> Result<Reader, StoreError> {
        Ok(self.reader(name)?.data(self.limits.read_time))
    }

    /// A reader of one database, for all else.
    pub fn reader(&self, name: &str) -> Result<Reader, StoreError> {
        match &self.databases {
            Databases::Master(master) => master.reader(name),
            Databases::Replica(replica) => replica.reader(name),
        }
    }

    /// The data directory.
    pub fn dir(&self) -> &DataDir {
        match &self.databases {
            Databases::Master(master) => master.dir(),
            Databases::Replica(replica) => replica.dir(),
        }
    }

    /// Readers of all databases that are there, by name.
    pub fn readers(&self) -> Result<Vec<Reader>, StoreError> {
        match &self.databases {
            Databases::Master(master) => Ok(master.all().into_iter().map(|database| database.reader).collect()),
            Databases::Replica(replica) => {
                let states = replica.states()?;
                Ok(states.iter().filter_map(|state| replica.reader(&state.name).ok()).collect())
            }
        }
    }

    /// The admin that a token belongs to, if it still does. An operator's token belongs to nobody in particular.
    pub async fn admin(&self, claims: &Claims) -> Result<Option<AdminToken>, StoreError> {
        match (claims.bearer, claims.aud) {
            (Bearer::Admin, Audience::Operator) => Ok(Some(AdminToken::Operator)),
            (Bearer::Admin, Audience::User) => {
                let id = claims.sub.clone();
                let found = self.reader(names::DEFAULT_DATABASE)?.look_up(move |conn| admins::by_id(conn, &id)).await?;
                let shown = claims.tk.as_deref().unwrap_or_default();
                let valid = found.filter(|admin| auth::equal(shown, &admin.token_digest()));
                Ok(valid.map(AdminToken::Admin))
            }
            _ => Ok(None),
        }
    }

    /// The record that a token belongs to, if it still does. Where its database is gone, nobody is one of its records.
    pub async fn record(&self, db: &str, claims: &Claims) -> Result<Option<AuthRecord>, StoreError> {
        let reader = match self.reader(db) {
            Err(StoreError::NotFound(_)) => return Ok(None),
            reader => reader?,
        };
        let claims = claims.clone();
        reader.look_up(move |conn| records::by_token(conn, &claims)).await
    }

    /// The API key that somebody shows, if it is one and has not ended.
    pub async fn api_key(&self, secret: String) -> Result<Option<ApiKey>, StoreError> {
        self.reader(names::DEFAULT_DATABASE)?.look_up(move |conn| keys::find(conn, &secret)).await
    }

    /// The claims of an Authorization header's value.
    pub fn claims(&self, authorization: Option<&str>) -> Result<Claims, TokenError> {
        let token = vski_replication::token::from_authorization(authorization.ok_or(TokenError::Missing)?);
        if token.is_empty() { Err(TokenError::Missing) } else { self.secrets.verify(token) }
    }
}

/// Whose admin token it is.
#[derive(Clone, Debug)]
pub enum AdminToken {
    /// Somebody who knows the secret, on this machine.
    Operator,
    /// An admin who logged in.
    Admin(Admin),
    /// A machine with an API key.
    Key(ApiKey),
}
