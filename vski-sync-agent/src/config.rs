//! Flags and variables, parsed once and checked by pure functions.
//!
//! `NodeArgs` is what every node needs, `SyncArgs` what a replica needs besides; the server flattens both into
//! its own commands. A variable that is set to nothing counts as not set. Secrets may come from a file
//! (`JWT_SECRET_FILE`); the plain variable wins.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::Url;
use vski_replication::token::{MIN_SECRET_CHARS, Secrets};
use vski_replication::{datadir, names};

mod exit;
mod retention;

pub use exit::parse_or_exit;
pub use retention::{RetentionArgs, age, bytes};

/// An address as MASTER_URL takes it.
const MASTER_EXAMPLE: &str = "http://master:3001";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// When a replica asks its master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SyncMode {
    /// Every SYNC_INTERVAL seconds.
    #[default]
    Interval,
    /// All the time, by long polls: changes arrive as they commit.
    Stream,
}

/// What every node needs.
#[derive(Args, Clone)]
pub struct NodeArgs {
    /// Directory of the databases
    #[arg(long, env = "DATA_DIR", default_value = "./data")]
    pub data_dir: PathBuf,
    /// Secret that signs all tokens, the same on all nodes, 32 characters or more (required)
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: Option<String>,
    /// File that holds the secret; JWT_SECRET wins
    #[arg(long, env = "JWT_SECRET_FILE")]
    pub jwt_secret_file: Option<PathBuf>,
    /// Secret that is still accepted, but signs no more, while JWT_SECRET is being changed
    #[arg(long, env = "JWT_SECRET_PREVIOUS", hide_env_values = true)]
    pub jwt_secret_previous: Option<String>,
    /// File that holds the previous secret, if it is there; JWT_SECRET_PREVIOUS wins
    #[arg(long, env = "JWT_SECRET_PREVIOUS_FILE")]
    pub jwt_secret_previous_file: Option<PathBuf>,
    /// This node's id, 1 to 63 letters, digits, '.', '_' or '-' [default: generated at the first start]
    #[arg(long, env = "REPLICA_ID")]
    pub replica_id: Option<String>,
    /// Address at which clients reach this node [default: none]
    #[arg(long, env = "PUBLIC_URL")]
    pub public_url: Option<String>,
    /// How log lines look; RUST_LOG says which ones (default info)
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// OTLP collector to send traces to, over http/protobuf [default: none]
    #[arg(long = "otlp-endpoint", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

/// What a replica needs to follow its master.
#[derive(Args, Clone)]
pub struct SyncArgs {
    /// Address of the master, http or https (required on replicas)
    #[arg(long, env = "MASTER_URL")]
    pub master_url: Option<String>,
    /// PEM file of certificates to trust besides the system's
    #[arg(long, env = "MASTER_CA_FILE")]
    pub master_ca_file: Option<PathBuf>,
    /// Seconds between two polls; 0 = once at start, then only on request
    #[arg(long, env = "SYNC_INTERVAL", default_value_t = 60)]
    pub sync_interval: u64,
    /// Poll every SYNC_INTERVAL seconds, or stream changes as they commit
    #[arg(long, env = "SYNC_MODE", value_enum, default_value = "interval")]
    pub sync_mode: SyncMode,
    /// Databases not to fetch, separated by commas; stats and workflows never are [default: none]
    #[arg(long, env = "REPLICA_OMIT_DBS")]
    pub replica_omit_dbs: Option<String>,
}

/// What every node needs, checked.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Directory of the databases.
    pub data_dir: PathBuf,
    /// The keys made of the secrets.
    pub secrets: Secrets,
    /// Whether the secret is shorter than it should be, which is worth a warning.
    pub secret_is_short: bool,
    /// The node id that was asked for.
    pub replica_id: Option<String>,
    /// Where clients reach this node, without a slash at the end.
    pub public_url: Option<String>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Base URL of the OTLP collector.
    pub otlp_endpoint: Option<String>,
}

/// When to ask the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Once at start, then only on request.
    Manual,
    /// Again and again with this pause.
    Every(Duration),
    /// By long polls.
    Stream,
}

/// What a replica needs to follow its master, checked.
#[derive(Clone, Debug)]
pub struct SyncConfig {
    /// http or https, without user info and without a slash at the end.
    pub master_url: String,
    /// PEM certificates to trust besides the system's.
    pub ca: Option<Vec<u8>>,
    /// When to ask.
    pub schedule: Schedule,
    /// Databases that are not fetched, the node-local ones included.
    pub omit: BTreeSet<String>,
}

/// A setting that cannot work: one line that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No secret was given.
    #[error(
        "JWT_SECRET is not set: set it (or JWT_SECRET_FILE) to one long random text on all nodes, as from: openssl rand -hex 32"
    )]
    SecretMissing,
    /// The secret's file is empty.
    #[error("{variable} {path}: the file is empty: write the secret into it")]
    SecretEmpty {
        /// The variable that names the file.
        variable: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("{variable} {path}: {source}: name a file that this user can read")]
    Unreadable {
        /// The variable that names the file.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The node id breaks the rule.
    #[error("REPLICA_ID {0:?} is not usable: set it to {rule}", rule = datadir::NODE_ID_RULE)]
    NodeId(String),
    /// RUST_LOG cannot be understood.
    #[error("RUST_LOG is no filter ({0}): set it to a level such as info, or to pairs such as vski_server=debug")]
    LogFilter(String),
    /// Not an address.
    #[error("{variable} {value:?} is not an http or https address: set it to one such as {example}")]
    Url {
        /// The variable.
        variable: &'static str,
        /// Its value, without user info.
        value: String,
        /// A good one.
        example: &'static str,
    },
    /// A replica without a master.
    #[error("MASTER_URL is not set: set it to the master's address, such as http://master:3001")]
    MasterMissing,
    /// Streaming with manual sync.
    #[error("SYNC_MODE=stream with SYNC_INTERVAL=0 contradict each other: set SYNC_MODE=interval for manual sync")]
    StreamWithoutInterval,
    /// The default database holds the admins.
    #[error("REPLICA_OMIT_DBS names default, which holds the admins and cannot be omitted: take it out")]
    OmitsDefault,
    /// Not a database's name.
    #[error("REPLICA_OMIT_DBS names {0:?}, which is no database name: a name is {rule}", rule = names::DATABASE_NAME_RULE)]
    OmitName(String),
    /// The certificates cannot be used.
    #[error("MASTER_CA_FILE holds no certificates in PEM form ({0}): name the CA's .pem file")]
    Certificates(String),
    /// Neither the system nor the operator offers certificates.
    #[error("this system has no CA certificates, which an https MASTER_URL needs: set MASTER_CA_FILE ({0})")]
    NoRoots(String),
}

impl NodeArgs {
    /// Checks the values and reads the secrets' files.
    pub fn resolve(&self) -> Result<NodeConfig, ConfigError> {
        let secret = self.secret()?;
        let previous = self.previous_secret()?;
        crate::telemetry::check_filter().map_err(ConfigError::LogFilter)?;
        let replica_id = given(self.replica_id.as_deref());
        if let Some(id) = replica_id
            && !datadir::is_node_id(id)
        {
            return Err(ConfigError::NodeId(id.to_owned()));
        }
        let url = |variable, value, example| given(value).map(|value| address(variable, value, example)).transpose();
        Ok(NodeConfig {
            data_dir: self.data_dir.clone(),
            secret_is_short: secret.chars().count() < MIN_SECRET_CHARS,
            secrets: Secrets::new(&secret, previous.as_deref()),
            replica_id: replica_id.map(str::to_owned),
            public_url: url("PUBLIC_URL", self.public_url.as_deref(), "https://replica-1.example.org")?,
            log_format: self.log_format,
            otlp_endpoint: url("OTEL_EXPORTER_OTLP_ENDPOINT", self.otlp_endpoint.as_deref(), "http://collector:4318")?,
        })
    }
}

impl NodeArgs {
    /// The secret that signs.
    pub(crate) fn secret(&self) -> Result<String, ConfigError> {
        secret("JWT_SECRET_FILE", self.jwt_secret.as_deref(), self.jwt_secret_file.as_deref())?
            .ok_or(ConfigError::SecretMissing)
    }

    /// The secret that is still accepted, if there is one. Its file may be missing or empty: where a directory of secrets
    /// is mounted, the variable always names it, and the file is there during a rotation only.
    pub(crate) fn previous_secret(&self) -> Result<Option<String>, ConfigError> {
        let (plain, file) = (self.jwt_secret_previous.as_deref(), self.jwt_secret_previous_file.as_deref());
        match secret("JWT_SECRET_PREVIOUS_FILE", plain, file) {
            Err(ConfigError::Unreadable { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(ConfigError::SecretEmpty { .. }) => Ok(None),
            found => found,
        }
    }
}

impl SyncArgs {
    /// Whether there is a master to follow.
    pub(crate) fn has_master(&self) -> bool {
        given(self.master_url.as_deref()).is_some()
    }

    /// Checks the values and reads the certificates.
    pub fn resolve(&self) -> Result<SyncConfig, ConfigError> {
        let master_url = given(self.master_url.as_deref()).ok_or(ConfigError::MasterMissing)?;
        let master_url = address("MASTER_URL", master_url, MASTER_EXAMPLE)?;
        let ca = match &self.master_ca_file {
            Some(path) => Some(std::fs::read(path).map_err(|source| ConfigError::Unreadable {
                variable: "MASTER_CA_FILE",
                path: path.clone(),
                source,
            })?),
            None => None,
        };
        // Now, and not once the node listens.
        ca.as_deref().map(crate::source::certificates).transpose()?;
        let schedule = match (self.sync_mode, self.sync_interval) {
            (SyncMode::Interval, 0) => Schedule::Manual,
            (SyncMode::Interval, seconds) => Schedule::Every(Duration::from_secs(seconds)),
            (SyncMode::Stream, 0) => return Err(ConfigError::StreamWithoutInterval),
            (SyncMode::Stream, _) => Schedule::Stream,
        };
        Ok(SyncConfig { master_url, ca, schedule, omit: omitted(self.replica_omit_dbs.as_deref().unwrap_or(""))? })
    }
}

/// The secret itself, or the content of the file without the newline that editors put at its end.
fn secret(variable: &'static str, plain: Option<&str>, file: Option<&Path>) -> Result<Option<String>, ConfigError> {
    if let Some(plain) = given(plain) {
        return Ok(Some(plain.to_owned()));
    }
    let Some(path) = file else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        variable,
        path: path.to_owned(),
        source,
    })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(ConfigError::SecretEmpty { variable, path: path.to_owned() }),
        text => Ok(Some(text.to_owned())),
    }
}

fn given(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

/// User info is dropped: the Authorization header carries the node's token, and addresses appear in headers and logs.
fn address(variable: &'static str, value: &str, example: &'static str) -> Result<String, ConfigError> {
    let bad = |shown: &str| ConfigError::Url { variable, value: shown.to_owned(), example };
    let mut url = Url::parse(value).map_err(|_| bad(without_user_info(value)))?;
    let plain = url.set_username("").is_ok() && url.set_password(None).is_ok();
    let usable = plain && matches!(url.scheme(), "http" | "https") && url.has_host();
    if !usable || url.query().is_some() || url.fragment().is_some() {
        return Err(bad(without_user_info(value)));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

impl SyncConfig {
    /// The master's address, to put paths behind it.
    pub(crate) fn base(&self) -> Result<Url, ConfigError> {
        let bad =
            |_| ConfigError::Url { variable: "MASTER_URL", value: self.master_url.clone(), example: MASTER_EXAMPLE };
        Url::parse(&self.master_url).map_err(bad)
    }
}

fn without_user_info(value: &str) -> &str {
    value.rsplit_once('@').map_or(value, |(_, host)| host)
}

fn omitted(list: &str) -> Result<BTreeSet<String>, ConfigError> {
    let mut omit: BTreeSet<String> = names::NODE_LOCAL_DATABASES.map(str::to_owned).into();
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if name == names::DEFAULT_DATABASE {
            return Err(ConfigError::OmitsDefault);
        }
        if !names::is_database_name(name) {
            return Err(ConfigError::OmitName(name.to_owned()));
        }
        omit.insert(name.to_owned());
    }
    Ok(omit)
}

#[cfg(test)]
mod tests;
