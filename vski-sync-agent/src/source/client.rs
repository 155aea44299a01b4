//! The HTTP client below `Source`: headers, time limits, size limits, refusals.

use std::io::Read;
use std::str::FromStr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use opentelemetry::propagation::Injector;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode, Url};
use tokio::time::timeout;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use vski_replication::clock;
use vski_replication::names::header;
use vski_replication::token::{Claims, Secrets};

use super::token::bearer;
use super::{ANSWER_MARGIN, Source, SourceError};
use crate::config::{ConfigError, SyncConfig};
use crate::telemetry;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of an error's text is kept, characters.
const MAX_REASON: usize = 300;

/// How much of the path to the master is kept, characters: a few dozen ids of the greatest length.
const MAX_PATH: usize = 2_000;

/// The largest error body that is read, bytes.
const MAX_REFUSAL: usize = 64 << 10;

/// Who asks.
#[derive(Clone)]
pub struct Identity {
    /// Signs the tokens.
    pub secrets: Secrets,
    /// This node's id.
    pub node_id: String,
    /// Where clients reach this node.
    pub public_url: Option<String>,
    /// Random per process: the master sees two processes under one node id by it.
    pub boot_id: String,
}

impl Identity {
    /// This process, as the node `node_id`.
    #[must_use]
    pub fn new(secrets: Secrets, node_id: String, public_url: Option<String>) -> Self {
        Self { secrets, node_id, public_url, boot_id: format!("{:016x}", rand::random::<u64>()) }
    }
}

/// The certificates in a PEM file, of which a client can be made.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, ConfigError> {
    let refused = |error: reqwest::Error| ConfigError::Certificates(crate::error::chain(&error));
    let found = Certificate::from_pem_bundle(pem).map_err(refused)?;
    if found.is_empty() {
        let reason = if pem.is_empty() { "it is empty" } else { "it has no -----BEGIN CERTIFICATE-----" };
        return Err(ConfigError::Certificates(reason.to_owned()));
    }
    builder().tls_certs_only(found.clone()).build().map_err(refused)?;
    Ok(found)
}

impl Source {
    /// A client for the master of `config`. No connection is made yet.
    pub fn new(config: &SyncConfig, identity: Identity) -> Result<Self, ConfigError> {
        let certificates = match &config.ca {
            None => Vec::new(),
            Some(pem) => certificates(pem)?,
        };
        let client = match builder().tls_certs_merge(certificates.clone()).build() {
            Ok(client) => client,
            // An image without any CA certificates still reaches a master over http, or one that the given CA signed.
            Err(_) if !config.master_url.starts_with("https:") || !certificates.is_empty() => builder()
                .tls_certs_only(certificates)
                .build()
                .map_err(|error| ConfigError::Certificates(error.to_string()))?,
            Err(error) => return Err(ConfigError::NoRoots(error.to_string())),
        };
        Ok(Self {
            client,
            base: config.base()?,
            identity,
            token: Arc::default(),
            clock_skew: Arc::default(),
            upstream: Arc::default(),
        })
    }

    /// A request with everything that every call carries.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let Identity { secrets, node_id, .. } = &self.identity;
        self.authorized(self.token.header(secrets, node_id), method, path)
    }

    /// The same with a token of its own.
    pub(super) fn request_as(&self, claims: &Claims, method: Method, path: &str) -> RequestBuilder {
        self.authorized(bearer(&self.identity.secrets.mint(claims)), method, path)
    }

    fn authorized(&self, authorization: HeaderValue, method: Method, path: &str) -> RequestBuilder {
        let Identity { node_id, public_url, boot_id, .. } = &self.identity;
        let mut request = self
            .client
            .request(method, self.url(path))
            .header(AUTHORIZATION, authorization)
            .header(header::REPLICA_ID, node_id)
            .header(header::REPLICA_BOOT_ID, boot_id)
            .header(header::VERSION, env!("CARGO_PKG_VERSION"))
            .headers(trace_headers());
        if let Some(url) = public_url {
            request = request.header(header::REPLICA_PUBLIC_URL, url);
        }
        request
    }

    /// A path below the master's address, which is not read anew each time.
    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&[self.base.path().trim_end_matches('/'), path].concat());
        url
    }

    /// The answer, whatever its status, if it begins within `patience`.
    pub(super) async fn answer(
        &self,
        call: &'static str,
        request: RequestBuilder,
        patience: Duration,
    ) -> Result<Response, SourceError> {
        let asked_ms = clock::now_ms();
        match timeout(patience, request.send()).await {
            Ok(Ok(response)) if is_a_strangers(&response) => Err(stranger(call, &response)),
            Ok(Ok(response)) => {
                self.note_upstream(&response)?;
                if let Some(told) = response.headers().get(header::TIME).and_then(|value| value.to_str().ok()) {
                    self.clock_skew.heard(told, asked_ms, clock::now_ms());
                }
                Ok(response)
            }
            Ok(Err(error)) => Err(SourceError::unreachable(call, error)),
            Err(_) => Err(SourceError::Silent { call, seconds: patience.as_secs() }),
        }
    }

    /// Remembers which nodes are between this one and the master. This node is not one of them.
    fn note_upstream(&self, response: &Response) -> Result<(), SourceError> {
        let headers = response.headers();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // Without a mode it is a proxy's answer, and an answer without a path is about something else.
        let path = match (text(header::REPLICA_MODE), text(header::PATH)) {
            (Some("master"), _) => String::new(),
            (Some("replica"), Some(path)) => path.chars().take(MAX_PATH).collect(),
            _ => return Ok(()),
        };
        if path.split(',').any(|id| id == self.identity.node_id) {
            return Err(SourceError::Loop { path });
        }
        let mut known = self.upstream.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&path) {
            if path.is_empty() {
                tracing::debug!("a master answers");
            } else {
                tracing::info!(path, "a replica answers at MASTER_URL: it is followed in its master's place");
            }
            *known = Some(path);
        }
        Ok(())
    }

    /// What an answer that is no success means.
    pub(super) async fn refusal(&self, call: &'static str, response: Response) -> SourceError {
        let (status, headers) = (response.status(), response.headers().clone());
        let reason = reason(body(call, response, MAX_REFUSAL, ANSWER_MARGIN).await.unwrap_or_default());
        match status {
            StatusCode::UNAUTHORIZED => SourceError::Unauthorized { reason },
            StatusCode::FORBIDDEN => SourceError::Forbidden { call, reason },
            // A snapshot whose lease was broken is as gone as one whose lease has ended.
            StatusCode::NOT_FOUND | StatusCode::GONE => SourceError::NotFound { call, reason },
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                SourceError::Overloaded { call, retry_after: retry_after(&headers), reason }
            }
            StatusCode::UNPROCESSABLE_ENTITY => SourceError::Unreplicable { call, reason },
            StatusCode::INSUFFICIENT_STORAGE => SourceError::NoRoom { call, reason },
            status if status.is_redirection() => SourceError::Refused {
                call,
                status: status.as_u16(),
                reason: format!(
                    "redirects are not followed, set MASTER_URL to the final address ({})",
                    headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("no Location"),
                ),
            },
            status => SourceError::Refused { call, status: status.as_u16(), reason },
        }
    }
}

/// The role that the answering node says it has.
fn mode(response: &Response) -> Option<&[u8]> {
    response.headers().get(header::REPLICA_MODE).map(HeaderValue::as_bytes)
}

/// Whether something else than a VSKI node answered: each of their answers tells a role. A proxy may speak for a master
/// that is down or overloaded, and redirects tell where to go.
fn is_a_strangers(response: &Response) -> bool {
    let status = response.status();
    let a_proxys = status.is_server_error()
        || status.is_redirection()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    mode(response).is_none() && !a_proxys
}

fn stranger(call: &'static str, response: &Response) -> SourceError {
    let told = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("not told");
    let content_type = told.chars().take(MAX_REASON).collect();
    SourceError::NotVski { call, status: response.status().as_u16(), content_type }
}

/// The whole body, if each part comes in time and all of it fits into `max` bytes.
pub(super) async fn body(
    call: &'static str,
    mut response: Response,
    max: usize,
    idle: Duration,
) -> Result<Vec<u8>, SourceError> {
    let mut body = Vec::new();
    loop {
        let part = match timeout(idle, response.chunk()).await {
            Ok(Ok(part)) => part,
            Ok(Err(error)) => return Err(SourceError::unreachable(call, error)),
            Err(_) => return Err(SourceError::Silent { call, seconds: idle.as_secs() }),
        };
        let Some(part) = part else { return Ok(body) };
        if body.len() + part.len() > max {
            return Err(SourceError::Malformed { call, reason: format!("its body is longer than {max} bytes") });
        }
        body.extend_from_slice(&part);
    }
}

/// Unpacks zstd, on a blocking thread and to at most `max` bytes: a few packed bytes can stand for gigabytes.
pub(super) async fn unpack(call: &'static str, packed: Vec<u8>, max: usize) -> Result<Vec<u8>, SourceError> {
    let unpacked = tokio::task::spawn_blocking(move || {
        let mut unpacked = Vec::new();
        zstd::stream::read::Decoder::new(packed.as_slice())?.take(max as u64 + 1).read_to_end(&mut unpacked)?;
        Ok(unpacked)
    });
    let malformed = |reason: String| SourceError::Malformed { call, reason };
    match unpacked.await {
        Ok(Ok(unpacked)) if unpacked.len() > max => Err(malformed(format!("it unpacks to more than {max} bytes"))),
        Ok(Ok(unpacked)) => Ok(unpacked),
        Ok(Err(error)) => Err(malformed(std::io::Error::to_string(&error))),
        Err(_) => Err(malformed("unpacking was interrupted".to_owned())),
    }
}

/// A header that must be there and mean something.
pub(super) fn header_value<T: FromStr<Err: std::fmt::Display>>(
    call: &'static str,
    response: &Response,
    name: &'static str,
) -> Result<T, SourceError> {
    let malformed = |reason: String| SourceError::Malformed { call, reason };
    let value = response.headers().get(name).ok_or_else(|| malformed(format!("it has no {name} header")))?;
    let text = value.to_str().map_err(|_| malformed(format!("its {name} header is no text")))?;
    text.parse().map_err(|error| malformed(format!("{name}: {error}")))
}

fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("vski-sync-agent/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(Policy::none())
        .no_proxy()
}

/// The message of an error body, else its text, in one bounded line.
fn reason(body: Vec<u8>) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let message = json.as_ref().and_then(|json| json["error"].as_str()).map(str::to_owned);
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() { "no reason given".to_owned() } else { line.chars().take(MAX_REASON).collect() }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// W3C trace headers, where the caller's span is exported.
fn trace_headers() -> HeaderMap {
    struct Carrier(HeaderMap);
    impl Injector for Carrier {
        fn set(&mut self, key: &str, value: String) {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_str(&value)) {
                self.0.insert(name, value);
            }
        }
    }
    if !telemetry::is_exporting() {
        return HeaderMap::new();
    }
    let mut carrier = Carrier(HeaderMap::new());
    let context = tracing::Span::current().context();
    opentelemetry::global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut carrier));
    carrier.0
}
