//! What `vski-server serve` can be told, by flag or variable. README.md has the same table; a test compares.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use vski_replication::changelog::Retention;
use vski_replication::node::Role;
use vski_sync_agent::config::{ConfigError, NodeArgs, NodeConfig, RetentionArgs, SyncArgs, SyncConfig, age};

/// Spans of time in settings and parameters.
pub mod duration;

/// How much a filter may ask for.
mod filters;

/// How stale a read may be.
mod freshness;

/// How much a request may ask for.
mod limits;

/// How often somebody may try to log in.
mod logins;

/// Whose pages may read answers in a browser.
mod origins;

pub use filters::{FilterLimits, MOST_COMPARISONS, MOST_DEPTH};
pub use freshness::{Fallback, Freshness};
pub use limits::{Limits, MOST_BODY_BYTES};
pub use logins::{LoginLimits, TrustedProxies};
pub use origins::CorsOrigins;

/// What the server does with its databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Takes writes.
    Master,
    /// Follows MASTER_URL, read-only.
    Replica,
}

/// Who keeps a replica's directory up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SyncAgent {
    /// This process.
    Embedded,
    /// A `vski-sync-agent` beside it.
    External,
}

/// Flags and variables of `serve`.
#[derive(Args, Clone)]
pub struct ServeArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    /// Address to listen on
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "PORT", default_value_t = 3001)]
    pub port: u16,
    /// Take writes, or follow MASTER_URL
    #[arg(long, env = "REPLICA_MODE", value_enum, default_value = "master")]
    pub replica_mode: Mode,
    /// On a replica: keep the directory up to date here, or leave it to a vski-sync-agent process
    #[arg(long, env = "SYNC_AGENT", value_enum, default_value = "embedded")]
    pub sync_agent: SyncAgent,
    #[command(flatten)]
    pub sync: SyncArgs,
    #[command(flatten)]
    pub freshness: Freshness,
    #[command(flatten)]
    pub limits: Limits,
    #[command(flatten)]
    pub logins: LoginLimits,
    /// Proxies whose X-Forwarded-For says who the client is: addresses and networks, with commas
    #[arg(long, env = "TRUSTED_PROXIES")]
    pub trusted_proxies: Option<TrustedProxies>,
    /// Pages that browsers let read answers: *, none, or origins (scheme, host and port) with commas
    #[arg(long, env = "CORS_ORIGINS", default_value = "*")]
    pub cors_origins: CorsOrigins,
    #[command(flatten)]
    pub retention: RetentionArgs,
    /// On a master: a replica that was not heard of for this long is forgotten: 30m, 24h, 7d
    #[arg(long, env = "REPLICA_FORGET_AFTER", default_value = "168h", value_parser = age)]
    pub replica_forget_after: Duration,
    /// Admin to create on a master if there is none with this address; never changed afterwards
    #[arg(long, env = "ADMIN_EMAIL")]
    pub admin_email: Option<String>,
    /// The password of that admin
    #[arg(long, env = "ADMIN_PASSWORD", hide_env_values = true)]
    pub admin_password: Option<String>,
    /// File that holds the password; ADMIN_PASSWORD wins
    #[arg(long, env = "ADMIN_PASSWORD_FILE")]
    pub admin_password_file: Option<PathBuf>,
}

/// An admin to create at the first start.
#[derive(Clone)]
pub struct FirstAdmin {
    pub email: String,
    pub password: String,
}

/// A replica's part of the configuration.
#[derive(Clone)]
pub struct ReplicaConfig {
    pub sync: SyncConfig,
    pub agent: SyncAgent,
}

/// The configuration of a server, checked.
#[derive(Clone)]
pub struct Config {
    pub node: NodeConfig,
    pub listen: SocketAddr,
    /// `None` on a master.
    pub replica: Option<ReplicaConfig>,
    pub freshness: Freshness,
    pub limits: Limits,
    pub logins: LoginLimits,
    pub trusted_proxies: TrustedProxies,
    pub cors_origins: CorsOrigins,
    pub first_admin: Option<FirstAdmin>,
    pub retention: Retention,
    /// How long an uploaded file stays that no row names any more.
    pub file_grace: Duration,
    pub replica_forget_after: Duration,
}

impl Config {
    /// The node's role.
    pub fn role(&self) -> Role {
        if self.replica.is_some() { Role::Replica } else { Role::Master }
    }
}

impl ServeArgs {
    /// Checks the values and reads the files they name. The error is one line for the operator.
    pub fn resolve(&self) -> Result<Config, String> {
        let node = self.node.resolve().map_err(|error| error.to_string())?;
        let replica = match self.replica_mode {
            Mode::Master => None,
            Mode::Replica => {
                let sync = self.sync.resolve().map_err(|error: ConfigError| error.to_string())?;
                Some(ReplicaConfig { sync, agent: self.sync_agent })
            }
        };
        let listen = SocketAddr::new(self.host, self.port);
        Ok(Config {
            node,
            listen,
            replica,
            freshness: self.freshness,
            limits: self.limits,
            logins: self.logins,
            trusted_proxies: self.trusted_proxies.clone().unwrap_or_default(),
            cors_origins: self.cors_origins.clone(),
            first_admin: self.first_admin()?,
            retention: self.retention.resolve(),
            file_grace: self.retention.file_grace,
            replica_forget_after: self.replica_forget_after,
        })
    }

    fn first_admin(&self) -> Result<Option<FirstAdmin>, String> {
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        let file = self.admin_password_file.as_ref().filter(|path| !path.as_os_str().is_empty());
        let password = match (given(&self.admin_password), file) {
            (Some(password), _) => Some(password),
            (None, Some(path)) => {
                let read = std::fs::read_to_string(path).map_err(|error| {
                    format!("ADMIN_PASSWORD_FILE {}: {error}: name a file that this user can read", path.display())
                })?;
                Some(read.trim_end_matches(['\r', '\n']).to_owned())
            }
            (None, None) => None,
        };
        match (given(&self.admin_email), password) {
            (None, None) => Ok(None),
            (Some(email), Some(password)) => {
                crate::store::auth::admins::check(&email, &password).map_err(|error| {
                    format!("ADMIN_EMAIL and ADMIN_PASSWORD: {}", crate::store::import::describe(&error))
                })?;
                Ok(Some(FirstAdmin { email, password }))
            }
            (Some(_), None) => Err("ADMIN_EMAIL is set but ADMIN_PASSWORD is not: set both or neither".to_owned()),
            (None, Some(_)) => Err("ADMIN_PASSWORD is set but ADMIN_EMAIL is not: set both or neither".to_owned()),
        }
    }
}
