use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use reqwest::blocking as http;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use vski_replication::names::{header, route};
use vski_replication::token::{Claims, Secrets};

/// The secret that all nodes of all clusters share; long enough to earn no warning.
pub const SECRET: &str = "an-e2e-secret-of-more-than-32-characters";

/// How long an answer may take, on a busy machine. Longer than the programs' own limits, so that theirs are seen.
const ANSWERED: Duration = Duration::from_secs(45);

/// Most records that a page may have.
const PAGE: usize = 500;

/// Talks to one node, about one database, as one user. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: http::Client,
    base: String,
    token: Option<String>,
    db: Option<String>,
    min_position: Option<String>,
    traceparent: Option<String>,
    headers: HeaderMap,
}

/// An answer of any status.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body as text; bytes that are no text are replaced.
    pub body: String,
    /// The body as it came.
    pub bytes: Vec<u8>,
}

impl Reply {
    /// Where the write that it answers stands.
    pub fn position(&self) -> Result<&str> {
        self.header(header::POSITION).context("an answer to a write without its position")
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("read {} as JSON", self.body))
    }

    /// A header field as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// This answer, if its status is one of success.
    pub fn ok(self) -> Result<Self> {
        ensure!((200..300).contains(&self.status), "answered {}: {}", self.status, self.body);
        Ok(self)
    }
}

impl Client {
    /// A client that is not logged in.
    pub fn new(base: &str) -> Result<Self> {
        let http = http::Client::builder()
            .timeout(ANSWERED)
            .no_proxy()
            .redirect(Policy::none())
            .build()
            .context("make an HTTP client")?;
        Ok(Self {
            http,
            base: base.to_owned(),
            token: None,
            db: None,
            min_position: None,
            traceparent: None,
            headers: HeaderMap::new(),
        })
    }

    /// The same client with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The token it shows.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        self.token.clone()
    }

    /// The same client for another database.
    #[must_use]
    pub fn with_db(&self, db: &str) -> Self {
        Self { db: Some(db.to_owned()), ..self.clone() }
    }

    /// The same client, which asks to see at least these positions.
    #[must_use]
    pub fn with_min_position(&self, positions: &str) -> Self {
        Self { min_position: Some(positions.to_owned()), ..self.clone() }
    }

    /// The same client, whose requests belong to a trace.
    #[must_use]
    pub fn with_traceparent(&self, traceparent: &str) -> Self {
        Self { traceparent: Some(traceparent.to_owned()), ..self.clone() }
    }

    /// The same client, which sends another header field with each request, or other values in it.
    pub fn with_header(&self, name: &'static str, value: &str) -> Result<Self> {
        let mut headers = self.headers.clone();
        headers.insert(name, value.parse().with_context(|| format!("{value} in a header"))?);
        Ok(Self { headers, ..self.clone() })
    }

    /// The same client, logged in as an admin.
    pub fn login(&self, identity: &str, password: &str) -> Result<Self> {
        let body = json!({"identity": identity, "password": password});
        let reply = self.send(Method::POST, "/api/admins/auth-with-password", Some(&body))?.ok()?.json()?;
        Ok(self.with_token(reply["token"].as_str().context("a login without a token")?))
    }

    /// Any request. An error means that no answer came.
    pub fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request)
    }

    /// Any request with a body of its own kind.
    pub fn send_bytes(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Result<Reply> {
        answer(self.request(method, path).header(CONTENT_TYPE, kind).body(body))
    }

    /// Any request whose body is a text.
    pub fn send_text(&self, method: Method, path: &str, body: &str) -> Result<Reply> {
        answer(self.request(method, path).body(body.to_owned()))
    }

    /// A manual migration of the database, for an admin.
    pub fn sql(&self, sql: &str) -> Result<Reply> {
        answer(self.request(Method::POST, "/api/sql").body(sql.to_owned()))
    }

    fn request(&self, method: Method, path: &str) -> http::RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).headers(self.headers.clone());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(db) = &self.db {
            request = request.header(header::DATABASE_NAME, db);
        }
        if let Some(traceparent) = &self.traceparent {
            request = request.header("traceparent", traceparent);
        }
        if let Some(positions) = &self.min_position {
            request = request.header(header::MIN_POSITION, positions);
        }
        request
    }

    /// GET, with an answer of any status.
    pub fn get(&self, path: &str) -> Result<Reply> {
        self.send(Method::GET, path, None)
    }

    /// Makes a database.
    pub fn create_database(&self, name: &str) -> Result<Value> {
        self.send(Method::POST, "/api/databases", Some(&json!({"name": name})))?.ok()?.json()
    }

    /// Makes a collection that everybody may read.
    pub fn create_collection(&self, name: &str, fields: &[(&str, &str)]) -> Result<Value> {
        let body = collection(name, fields);
        self.send(Method::POST, "/api/collections", Some(&body))?.ok()?.json()
    }

    /// Changes a collection.
    pub fn update_collection(&self, name: &str, change: &Value) -> Result<Value> {
        self.send(Method::PATCH, &format!("/api/collections/{name}"), Some(change))?.ok()?.json()
    }

    /// Makes a record.
    pub fn create_record(&self, collection: &str, record: &Value) -> Result<Value> {
        self.send(Method::POST, &records(collection), Some(record))?.ok()?.json()
    }

    /// Changes a record.
    pub fn update_record(&self, collection: &str, id: &str, change: &Value) -> Result<Value> {
        self.send(Method::PATCH, &format!("{}/{id}", records(collection)), Some(change))?.ok()?.json()
    }

    /// Deletes a record.
    pub fn delete_record(&self, collection: &str, id: &str) -> Result<()> {
        self.send(Method::DELETE, &format!("{}/{id}", records(collection)), None)?.ok().map(drop)
    }

    /// A record, if there is one.
    pub fn record(&self, collection: &str, id: &str) -> Result<Option<Value>> {
        let reply = self.get(&format!("{}/{id}", records(collection)))?;
        if reply.status == 404 { Ok(None) } else { reply.ok()?.json().map(Some) }
    }

    /// How many records a collection has.
    pub fn count(&self, collection: &str) -> Result<u64> {
        let page = self.get(&format!("{}?perPage=1", records(collection)))?.ok()?.json()?;
        page["totalItems"].as_u64().with_context(|| format!("no totalItems in {page}"))
    }

    /// All records of a collection that nobody writes at the moment, by id.
    pub fn all_records(&self, collection: &str) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        for number in 1.. {
            let path = format!("{}?perPage={PAGE}&page={number}", records(collection));
            let mut page = self.get(&path)?.ok()?.json()?;
            let items = page["items"].as_array_mut().with_context(|| format!("no items on page {number}"))?;
            if items.is_empty() {
                break;
            }
            found.append(items);
        }
        Ok(found)
    }

    /// The master's replication status, asked for as a replica does.
    pub fn status(&self) -> Result<Value> {
        self.with_token(&replica_token("e2e")).get(route::STATUS)?.ok()?.json()
    }

    /// One database of [`Client::status`].
    pub fn status_of(&self, db: &str) -> Result<Value> {
        let status = self.status()?;
        let found = status["dbs"].as_array().into_iter().flatten().find(|entry| entry["name"] == db);
        found.cloned().with_context(|| format!("database {db} is not in {status}"))
    }
}

fn answer(request: http::RequestBuilder) -> Result<Reply> {
    // The error names the address.
    let answer = request.send()?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let bytes = answer.bytes().context("read an answer")?.to_vec();
    Ok(Reply { status, headers, body: String::from_utf8_lossy(&bytes).into_owned(), bytes })
}

/// The body that makes a collection which everybody may read.
#[must_use]
pub fn collection(name: &str, fields: &[(&str, &str)]) -> Value {
    let fields: Vec<Value> = fields.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect();
    json!({"name": name, "fields": fields, "listRule": "", "viewRule": ""})
}

/// The route of a collection's records.
#[must_use]
pub fn records(collection: &str) -> String {
    format!("/api/collections/{collection}/records")
}

/// A token such as a replica mints for its calls.
#[must_use]
pub fn replica_token(id: &str) -> String {
    Secrets::new(SECRET, None).mint(&Claims::replica(id, 60))
}
