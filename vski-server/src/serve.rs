//! `serve`: claim the directory, open what is there, listen, and on SIGTERM finish what was begun.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::{CancellationToken, DropGuard};
use vski_replication::datadir::{DataDir, Holder};
use vski_replication::names;
use vski_replication::node::{self, NodeDb, Role};
use vski_replication::token::MIN_SECRET_CHARS;
use vski_sync_agent::supervisor::{AgentConfig, Supervisor};

use crate::app::{App, Databases, Identity, Shared};
use crate::config::{Config, FirstAdmin, ReplicaConfig, SyncAgent};
use crate::http;
use crate::http::auth::admins::create as create_admin;
use crate::http::auth::limit::LoginLimiter;
use crate::http::state::{MasterState, SourceState};
use crate::metrics::Metrics;
use crate::replication::replicas::Replicas;
use crate::replication::retention::Keeper;
use crate::replication::snapshot::Snapshots;
use crate::store::auth::admins;
use crate::store::error::StoreError;
use crate::store::files;
use crate::store::master::Master;
use crate::store::replica::Replica;
use crate::workers::Workers;

/// How long open requests may take to finish after SIGTERM.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A node that could not start: one line for the operator.
pub type StartError = String;

/// Runs a node until it is told to stop.
pub async fn run(config: Config) -> Result<(), StartError> {
    if config.node.secret_is_short {
        tracing::warn!("JWT_SECRET is shorter than {MIN_SECRET_CHARS} characters: use a long random one");
    }
    let dir = DataDir::open(&config.node.data_dir).map_err(one_line)?;
    let id = dir.node_id(config.node.replica_id.as_deref()).map_err(one_line)?;
    let shutdown = CancellationToken::new();
    cancel_on_signal(&shutdown)?;
    match config.replica.clone() {
        None => run_master(config, dir, id, shutdown).await,
        Some(replica) => run_replica(config, replica, dir, id, shutdown).await,
    }
}

async fn run_master(config: Config, dir: DataDir, id: String, shutdown: CancellationToken) -> Result<(), StartError> {
    // First, so that a start that cannot serve leaves no role behind.
    let listener = listen(config.listen).await?;
    let (mut lock, node) = node::claim(&dir, Role::Master, Holder::this_process("master")).map_err(one_line)?;
    let metrics = Arc::new(Metrics::new().map_err(one_line)?);
    let master =
        Arc::new(Master::open_with(&dir, &metrics, config.limits.write_queue).map_err(|error| error.describe())?);
    first_admin(&master, config.first_admin.clone()).await.map_err(|error| error.describe())?;
    let snapshots = Arc::new(Snapshots::new(&dir, &metrics).map_err(|error| not_cleared(&dir, &error))?);
    let pruning = Keeper::new(Arc::clone(&master), Arc::clone(&snapshots), config.retention);
    let pruning = tokio::spawn(pruning.keep(shutdown.clone()));
    let uploads = files::Keeper::new(Arc::clone(&master), config.file_grace);
    let uploads = tokio::spawn(uploads.keep(shutdown.clone()));
    let replicas = Arc::new(Replicas::new(node, config.retention, config.replica_forget_after).map_err(one_line)?);
    let keeper = tokio::spawn(Arc::clone(&replicas).keep(shutdown.clone()));
    let app = app(&config, id, Databases::Master(Arc::clone(&master)), replicas, metrics, shutdown);
    let state = MasterState { app: app.clone(), master: Arc::clone(&master) };
    let router = http::master_router(state, SourceState::new(&app, snapshots));

    lock.set_admin(announce(&app, &listener)?).map_err(one_line)?;
    let _workers = serve(listener, router, &app.shutdown).await?;
    let _ = tokio::join!(pruning, uploads);
    let closed = tokio::time::timeout(DRAIN_LIMIT, tokio::task::spawn_blocking(move || master.close())).await;
    if closed.is_err() {
        tracing::warn!("requests were still writing when the drain limit was reached; they were not answered");
    }
    let _ = keeper.await;
    drop(lock);
    tracing::info!("stopped");
    Ok(())
}

async fn run_replica(
    config: Config,
    replica: ReplicaConfig,
    dir: DataDir,
    id: String,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    if config.first_admin.is_some() {
        tracing::warn!("ADMIN_EMAIL and ADMIN_PASSWORD are ignored on a replica: admins come from the master");
    }
    let listener = listen(config.listen).await?;
    let claimed = match replica.agent {
        SyncAgent::Embedded => {
            Some(node::claim(&dir, Role::Replica, Holder::this_process("replica")).map_err(one_line)?)
        }
        SyncAgent::External => {
            let recorded =
                NodeDb::read(&dir).map_err(one_line)?.map(|node| node.role()).transpose().map_err(one_line)?;
            node::check_role(&dir, recorded.flatten(), Role::Replica).map_err(one_line)?;
            None
        }
    };
    let metrics = Arc::new(Metrics::new().map_err(one_line)?);
    let databases = Arc::new(Replica::new(&dir, replica.sync.omit.clone()));
    tokio::spawn(Arc::clone(&databases).release_files(shutdown.clone()));
    // For replicas that follow this one.
    let snapshots = Arc::new(Snapshots::beside_agent(&dir, &metrics).map_err(|error| not_cleared(&dir, &error))?);
    tokio::spawn(Arc::clone(&snapshots).keep(shutdown.clone()));
    let replicas = Arc::new(Replicas::in_memory(config.retention, config.replica_forget_after));
    tokio::spawn(Arc::clone(&replicas).keep(shutdown.clone()));
    let app = app(&config, id.clone(), Databases::Replica(databases), replicas, metrics, shutdown);
    let address = announce(&app, &listener)?;
    let agent = match claimed {
        Some((lock, node)) => {
            let metrics = app.metrics.with_agent().map_err(one_line)?;
            let (node_config, sync_config, retention) = (config.node, replica.sync, config.retention);
            let file_grace = config.file_grace;
            let agent =
                AgentConfig { dir, lock, node, node_id: id, node_config, sync_config, retention, file_grace, metrics };
            let agent = Supervisor::start(agent).map_err(one_line)?;
            agent.set_admin(address).map_err(one_line)?;
            Some(agent)
        }
        None => None,
    };
    let router = http::replica_router(SourceState::new(&app, snapshots), agent.clone());
    let _workers = serve(listener, router, &app.shutdown).await?;
    if let Some(agent) = agent {
        agent.shutdown().await;
    }
    tracing::info!("stopped");
    Ok(())
}

fn app(
    config: &Config,
    id: String,
    databases: Databases,
    replicas: Arc<Replicas>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> App {
    let master_url = config.replica.as_ref().map(|replica| replica.sync.master_url.clone());
    let identity = Identity::new(id, config.role(), config.node.public_url.clone(), master_url);
    let shared = Shared {
        identity: Arc::new(identity),
        secrets: config.node.secrets.clone(),
        databases,
        freshness: config.freshness,
        limits: config.limits,
        logins: LoginLimiter::new(&config.logins),
        trusted_proxies: Arc::new(config.trusted_proxies.clone()),
        cors_origins: Arc::new(config.cors_origins.clone()),
        replicas,
        metrics,
        shutdown,
    };
    shared.into()
}

fn not_cleared(dir: &DataDir, error: &std::io::Error) -> StartError {
    format!("clear {}: {error}", dir.snapshots().display())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("port {} is in use by another program: stop it, or set PORT to another", address.port())
        }
        _ => format!("cannot listen on {address}: {error}; set HOST and PORT to an address of this machine"),
    })
}

/// Logs where this node listens. Returns the URL at which commands on this machine reach it.
fn announce(app: &App, listener: &TcpListener) -> Result<String, StartError> {
    let address = listener.local_addr().map_err(one_line)?;
    let identity = &app.identity;
    tracing::info!(%address, mode = identity.role.name(), id = identity.id, version = env!("CARGO_PKG_VERSION"), "listening");
    let ip = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    Ok(format!("http://{}", SocketAddr::new(ip, address.port())))
}

/// Serves until shutdown, then lets open requests finish for a while. What they have left behind goes on until what is
/// returned is dropped.
async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: &CancellationToken,
) -> Result<Option<DropGuard>, StartError> {
    let workers =
        Workers::start(&router, shutdown).map_err(|error| format!("start a thread for each core: {error}"))?;
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN_LIMIT).await;
    };
    tokio::select! {
        served = workers.serve(listener, shutdown) => served.map(Some).map_err(|error| format!("serve: {error}")),
        () = overdue => {
            tracing::warn!(seconds = DRAIN_LIMIT.as_secs(), "open requests were cut off after the drain limit");
            Ok(None)
        }
    }
}

fn cancel_on_signal(shutdown: &CancellationToken) -> Result<(), StartError> {
    let (mut term, mut int) =
        (signal(SignalKind::terminate()).map_err(one_line)?, signal(SignalKind::interrupt()).map_err(one_line)?);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping: open requests finish first");
        shutdown.cancel();
    });
    Ok(())
}

/// Makes the configured admin if there is none of that address; says how to make one if there is none at all.
async fn first_admin(master: &Master, wanted: Option<FirstAdmin>) -> Result<(), StoreError> {
    let reader = master.reader(names::DEFAULT_DATABASE)?;
    if let Some(FirstAdmin { email, password }) = wanted {
        let address = email.clone();
        if reader.read(move |conn| admins::by_email(conn, &address)).await?.is_none() {
            create_admin(master, email.clone(), password).await?;
            tracing::info!(email, "admin created");
        }
    } else if !reader.read(admins::any).await? {
        let command = admin_command(master.dir());
        tracing::warn!(command, "there is no admin yet: make one with `{command}`, which asks for a password");
    }
    Ok(())
}

/// What can be typed as it is, where this program was started from, to make the first admin.
fn admin_command(dir: &DataDir) -> String {
    let program = std::env::args_os().next().unwrap_or_else(|| "vski-server".into());
    let root = std::path::absolute(dir.root()).unwrap_or_else(|_| dir.root().to_owned());
    let (program, root) = (quoted(&program.to_string_lossy()), quoted(&root.to_string_lossy()));
    format!("{program} admin upsert admin@example.com - --data-dir {root}")
}

/// A word as a shell wants it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn one_line(error: impl std::fmt::Display) -> StartError {
    error.to_string().replace('\n', " ")
}
