//! Where a command does its work: through the API of the process that holds the directory, or, if there is none, in
//! the directory itself under its lock.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use vski_replication::changelog::Retention;
use vski_replication::clock;
use vski_replication::datadir::{DataDir, DirLock, Holder};
use vski_replication::names::{header, route};
use vski_replication::node::{self, NodeDb, Role};
use vski_replication::token::{Claims, Secrets};
use vski_sync_agent::config::NodeConfig;

use super::Failure;
use crate::http::auth::admins;
use crate::metrics::Metrics;
use crate::replication::replicas::Replicas;
use crate::replication::verdict::{self, ReplicaRow};
use crate::store::collections::change::{self, Edit};
use crate::store::collections::{self, Collection, Wanted};
use crate::store::error::{NOT_UNIQUE, StoreError};
use crate::store::import;
use crate::store::master::Master;
use crate::store::migration::Plan;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long a manual migration may take: it may rewrite every row.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(3600);

/// A record as it stands on a line.
pub type Line = Map<String, Value>;

/// Why a chunk of records was not stored.
pub enum ChunkError {
    /// A line of it, counted from 1 within the chunk; `id_taken`: another record has its id.
    Line { line: usize, message: String, id_taken: bool },
    /// All of it.
    Chunk(String),
    /// The connection broke: stored or not, nobody knows.
    Unknown(String),
}

/// Where the work is done.
pub enum Target {
    /// A running master.
    Api(Api),
    /// The directory, which nobody else has.
    Directory { master: Arc<Master>, _lock: DirLock },
}

/// A running node's API, as an operator.
pub struct Api {
    client: reqwest::Client,
    url: String,
    secrets: Secrets,
}

impl Target {
    /// The master that runs on the directory, or the directory, which a node has used before.
    pub fn find(node: &NodeConfig) -> Result<Self, Failure> {
        Self::of(DataDir::existing(&node.data_dir).map_err(Failure::setup)?, node)
    }

    /// As [`Self::find`]; a directory that nobody has used becomes a master's.
    pub fn find_or_make(node: &NodeConfig) -> Result<Self, Failure> {
        Self::of(DataDir::open(&node.data_dir).map_err(Failure::setup)?, node)
    }

    fn of(dir: DataDir, node: &NodeConfig) -> Result<Self, Failure> {
        match dir.holder().map_err(Failure::setup)? {
            Some(Holder { role, admin: Some(url), .. }) if role == "master" => {
                Ok(Self::Api(Api::new(&url, &node.secrets)?))
            }
            Some(holder) if holder.role != "master" => Err(Failure::setup(format!(
                "{} is used by {holder}, which cannot write: run this command where the master runs",
                node.data_dir.display()
            ))),
            _ => {
                dir.node_id(node.replica_id.as_deref()).map_err(Failure::setup)?;
                let (lock, _node) =
                    node::claim(&dir, Role::Master, Holder::this_process("command")).map_err(Failure::setup)?;
                let metrics = Arc::new(Metrics::new().map_err(Failure::setup)?);
                let master = Master::open(&dir, &metrics).map_err(|error| Failure::setup(error.describe()))?;
                Ok(Self::Directory { master: Arc::new(master), _lock: lock })
            }
        }
    }

    /// The running node, whichever role it has, else what [`Self::find`] finds: for questions that any node answers.
    pub fn ask(node: &NodeConfig) -> Result<Self, Failure> {
        let dir = DataDir::existing(&node.data_dir).map_err(Failure::setup)?;
        match dir.holder().map_err(Failure::setup)? {
            // A server with its agent; an agent of its own answers other questions.
            Some(Holder { role, admin: Some(url), .. }) if role == "replica" => {
                Ok(Self::Api(Api::new(&url, &node.secrets)?))
            }
            _ => Self::of(dir, node),
        }
    }

    /// Makes an admin, or gives one a new password.
    pub async fn upsert_admin(&self, email: &str, password: &str) -> Result<(), Failure> {
        match self {
            Self::Api(api) => {
                let body = json!({ "email": email, "password": password });
                api.call(Method::POST, "/api/admins", None, Some(body.to_string())).await?;
                Ok(())
            }
            Self::Directory { master, .. } => {
                let made = admins::create(master, email.to_owned(), password.to_owned()).await;
                made.map(|_| ()).map_err(|error| Failure::work(import::describe(&error)))
            }
        }
    }

    /// A collection, if there is one of that name.
    pub async fn collection(&self, db: &str, name: &str) -> Result<Option<Collection>, Failure> {
        match self {
            Self::Api(api) => api.collection(db, name).await,
            Self::Directory { master, .. } => {
                let wanted = name.to_owned();
                let reader = master.reader(db).map_err(|error| Failure::work(error.describe()))?;
                match reader.read(move |conn| collections::view(conn, &wanted)).await {
                    Ok(found) => Ok(Some(found)),
                    Err(StoreError::NotFound(_)) => Ok(None),
                    Err(error) => Err(Failure::work(error.describe())),
                }
            }
        }
    }

    /// Makes a collection.
    pub async fn create_collection(&self, db: &str, wanted: Wanted) -> Result<Collection, Failure> {
        match self {
            Self::Api(api) => {
                let [list, view, ..] = &wanted.rules;
                let rule = |rule: &Option<Option<String>>| json!(rule.clone().flatten());
                let body = json!({
                    "name": wanted.name, "fields": wanted.fields, "listRule": rule(list), "viewRule": rule(view),
                });
                let made = api.call(Method::POST, "/api/collections", Some(db), Some(body.to_string())).await?;
                Collection::from_json(made)
                    .map_err(|error| Failure::work(format!("the node's answer is no collection: {error}")))
            }
            Self::Directory { master, .. } => {
                let writer = master.database(db).map_err(|error| Failure::work(error.describe()))?.writer;
                let made = change::apply(&writer, Edit::Create(wanted)).await;
                let made = made.map_err(|error| Failure::work(import::describe(&error)))?;
                made.value.into_iter().next().ok_or_else(|| Failure::work("the collection was not made".to_owned()))
            }
        }
    }

    /// Stores a chunk of records, all or nothing.
    pub async fn insert(&self, db: &str, collection: &str, chunk: Vec<Line>) -> Result<(), ChunkError> {
        match self {
            Self::Api(api) => api.insert(db, collection, &chunk).await,
            Self::Directory { master, .. } => {
                let database = master.database(db).map_err(|error| ChunkError::Chunk(error.describe()))?;
                let stored = import::store(&database.reader, &database.writer, collection.to_owned(), chunk, 0).await;
                stored.map(|_| ()).map_err(|error| match error {
                    StoreError::Line { line, message, fields } => {
                        let id_taken = fields.iter().any(|field| field.field == "id" && field.code == NOT_UNIQUE);
                        ChunkError::Line { line, message, id_taken }
                    }
                    other => ChunkError::Chunk(other.describe()),
                })
            }
        }
    }

    /// Whether a chunk whose connection broke was stored: all its records are there, by their ids.
    pub async fn has_all(&self, db: &str, collection: &str, chunk: &[Line]) -> Result<bool, ChunkError> {
        let Self::Api(api) = self else { return Ok(false) };
        let ids: Vec<_> = chunk.iter().filter_map(|line| line["id"].as_str()).collect();
        api.has_all(db, collection, &ids).await.map_err(ChunkError::Unknown)
    }

    /// Runs a manual migration: the versions before and after, and the kind of its entry.
    pub async fn sql(&self, db: &str, sql: String) -> Result<(u64, u64, String), Failure> {
        match self {
            Self::Api(api) => {
                let api =
                    Api { client: client(MIGRATION_TIMEOUT)?, url: api.url.clone(), secrets: api.secrets.clone() };
                let answer = api.call(Method::POST, "/api/sql", Some(db), Some(sql)).await?;
                let number = |key: &str| answer[key].as_u64().unwrap_or(0);
                Ok((number("before"), number("version"), answer["entry"].as_str().unwrap_or_default().to_owned()))
            }
            Self::Directory { master, .. } => {
                let failed = |error: StoreError| Failure::work(error.describe());
                let (plan, writer) = (Plan::parse(&sql).map_err(failed)?, master.database(db).map_err(failed)?.writer);
                let done = writer.migrate(0, plan).await.map_err(failed)?;
                Ok((done.before, done.version, done.entry.to_owned()))
            }
        }
    }

    /// The replicas that this master has heard of. The limits are for a directory without a running master.
    pub async fn replicas(&self, retention: Retention, forget_after: Duration) -> Result<Vec<ReplicaRow>, Failure> {
        match self {
            Self::Api(api) => {
                let mut answer = api.call(Method::GET, route::REPLICAS, None, None).await?;
                serde_json::from_value(answer["replicas"].take())
                    .map_err(|error| Failure::work(format!("the node's answer is no list of replicas: {error}")))
            }
            Self::Directory { master, .. } => {
                let node = NodeDb::open(master.dir()).map_err(Failure::setup)?;
                let replicas = Replicas::new(node, retention, forget_after).map_err(Failure::setup)?;
                let rows = verdict::rows(|db| master.reader(db), &replicas, clock::now_ms()).await;
                rows.map_err(|error| Failure::work(error.describe()))
            }
        }
    }

    /// Finishes the work.
    pub fn close(self) {
        if let Self::Directory { master, _lock } = self {
            master.close();
        }
    }
}

impl Api {
    /// The API at `url`.
    pub fn new(url: &str, secrets: &Secrets) -> Result<Self, Failure> {
        Ok(Self { client: client(TIMEOUT)?, url: url.to_owned(), secrets: secrets.clone() })
    }

    /// One request: the answer's JSON, or the reason of a refusal.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        db: Option<&str>,
        body: Option<String>,
    ) -> Result<Value, Failure> {
        let (status, answer) = self.send(method, path, db, body).await.map_err(Failure::work)?;
        if status.is_success() {
            return Ok(answer);
        }
        Err(Failure::work(reason(&answer)))
    }

    async fn collection(&self, db: &str, name: &str) -> Result<Option<Collection>, Failure> {
        let path = format!("/api/collections/{name}");
        let (status, answer) = self.send(Method::GET, &path, Some(db), None).await.map_err(Failure::work)?;
        match status {
            StatusCode::OK => Collection::from_json(answer)
                .map(Some)
                .map_err(|error| Failure::work(format!("the node's answer is no collection: {error}"))),
            StatusCode::NOT_FOUND if reason(&answer).contains("collection") => Ok(None),
            _ => Err(Failure::work(reason(&answer))),
        }
    }

    async fn insert(&self, db: &str, collection: &str, chunk: &[Line]) -> Result<(), ChunkError> {
        let mut body = String::new();
        for line in chunk {
            body.push_str(&json!(line).to_string());
            body.push('\n');
        }
        let path = format!("/api/collections/{collection}/import");
        let (status, answer) =
            self.send(Method::POST, &path, Some(db), Some(body)).await.map_err(ChunkError::Unknown)?;
        if status.is_success() {
            return Ok(());
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Err(ChunkError::Unknown(reason(&answer)));
        }
        let line = answer["data"]["line"].as_u64().and_then(|line| usize::try_from(line).ok());
        match (line, answer["data"]["reason"].as_str()) {
            (Some(line), Some(message)) => {
                let id_taken = answer["data"]["fields"]["id"]["code"] == NOT_UNIQUE;
                Err(ChunkError::Line { line, message: message.to_owned(), id_taken })
            }
            _ => Err(ChunkError::Chunk(reason(&answer))),
        }
    }

    /// Whether all these records are there.
    async fn has_all(&self, db: &str, collection: &str, ids: &[&str]) -> Result<bool, String> {
        for id in ids {
            let path = format!("/api/collections/{collection}/records/{id}");
            let (status, answer) = self.send(Method::GET, &path, Some(db), None).await?;
            match status {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(false),
                _ => return Err(reason(&answer)),
            }
        }
        Ok(true)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        db: Option<&str>,
        body: Option<String>,
    ) -> Result<(StatusCode, Value), String> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        request = request.bearer_auth(self.secrets.mint(&Claims::operator()));
        if let Some(db) = db {
            request = request.header(header::DATABASE_NAME, db);
        }
        let sent = request.body(body.unwrap_or_default()).send().await;
        let response =
            sent.map_err(|error| format!("the node at {} does not answer: {}", self.url, error.without_url()))?;
        let status = response.status();
        let text =
            response.text().await.map_err(|error| format!("the node's answer broke off: {}", error.without_url()))?;
        let answer = serde_json::from_str(&text).unwrap_or_else(|_| json!({ "error": format!("{status}: {text}") }));
        Ok((status, answer))
    }
}

fn client(timeout: Duration) -> Result<reqwest::Client, Failure> {
    reqwest::Client::builder().timeout(timeout).no_proxy().build().map_err(Failure::setup)
}

/// The sentence of an error answer, with the refused fields.
fn reason(answer: &Value) -> String {
    let message = answer["error"].as_str().unwrap_or("the node refused without a reason");
    let fields = answer["data"].as_object().into_iter().flatten();
    let details: Vec<_> =
        fields.filter_map(|(name, detail)| Some(format!("{name} {}", detail["message"].as_str()?))).collect();
    if details.is_empty() { message.to_owned() } else { format!("{message}: {}", details.join("; ")) }
}
