//! `run`: the separate process, from its settings to its end. On a directory that was promoted to master it has nothing
//! to do, which is no mistake: it says so and stays up, so that its supervisor does not start it again and again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::{Context, Result};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use vski_replication::connection;
use vski_replication::datadir::{DataDir, Holder};
use vski_replication::node::{self, Role};
use vski_replication::token::MIN_SECRET_CHARS;

use super::RunArgs;
use crate::admin::{self, Admin};
use crate::config::{NodeConfig, RetentionArgs, SyncConfig};
use crate::metrics::AgentMetrics;
use crate::supervisor::{AgentConfig, AgentHandle, Supervisor};
use crate::telemetry;

pub(super) fn execute(args: &RunArgs) -> Result<ExitCode> {
    let (node, sync) = (args.node.resolve()?, args.sync.resolve()?);
    let telemetry = telemetry::init("vski-sync-agent", node.log_format, node.otlp_endpoint.as_deref());
    if node.secret_is_short {
        tracing::warn!("JWT_SECRET has fewer than {MIN_SECRET_CHARS} characters: use a longer random one");
    }
    // One thread: what takes long is on blocking ones, and handing an answer from worker to worker costs more than reading it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let outcome = runtime.block_on(serve(node, sync, args.retention, &args.agent_addr));
    telemetry.shutdown();
    outcome
}

async fn serve(
    node_config: NodeConfig,
    sync_config: SyncConfig,
    retention: RetentionArgs,
    addr: &str,
) -> Result<ExitCode> {
    let secrets = node_config.secrets.clone();
    let registry = Registry::new();
    let metrics = AgentMetrics::register(&registry).context("register metrics")?;
    let dir = DataDir::open(&node_config.data_dir)?;
    if node::was_promoted(&dir).context("read node.db")? {
        return idle(registry, addr).await;
    }
    let config = prepare(node_config, sync_config, retention, metrics.clone(), "agent")?;
    let (dir, node_id, master) = (config.dir.clone(), config.node_id.clone(), config.sync_config.master_url.clone());
    let (listener, bound) = listen(addr).await?;
    let agent = Supervisor::start_alone(config)?;
    agent.set_admin(reachable(bound))?;
    tracing::info!(id = node_id, %master, dir = %dir.root().display(), address = %bound, "agent listening");

    let router = admin::router(Admin { agent: agent.clone(), registry, metrics, secrets });
    let closing = CancellationToken::new();
    let server = axum::serve(listener, router).with_graceful_shutdown(closing.clone().cancelled_owned());
    let server = tokio::spawn(server.into_future());
    let told_to_stop = until_stopped(&agent).await?;
    agent.shutdown().await;
    closing.cancel();
    // Requests to sync have been answered by the end of the agent, so nothing keeps the server.
    server.await.context("stop the listener")??;
    tracing::info!("agent stopped");
    Ok(if told_to_stop { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Answers probes until told to stop.
async fn idle(registry: Registry, addr: &str) -> Result<ExitCode> {
    let (listener, bound) = listen(addr).await?;
    tracing::info!(address = %bound, "agent listening");
    tracing::warn!("this directory was promoted to master: nothing to sync");
    let mut signals = signals()?;
    let stopped = async move { signals.next().await };
    axum::serve(listener, admin::idle_router(registry)).with_graceful_shutdown(stopped).await?;
    tracing::info!("agent stopped");
    Ok(ExitCode::SUCCESS)
}

async fn listen(addr: &str) -> Result<(TcpListener, SocketAddr)> {
    let bound = TcpListener::bind(addr).await;
    let listener = bound.with_context(|| format!("cannot listen on AGENT_ADDR {addr}, set it to a free address"))?;
    let bound = listener.local_addr().context("read the listener's address")?;
    Ok((listener, bound))
}

/// Takes the directory for an agent of `role` and puts together what it needs.
pub(super) fn prepare(
    node_config: NodeConfig,
    sync_config: SyncConfig,
    retention: RetentionArgs,
    metrics: AgentMetrics,
    role: &str,
) -> Result<AgentConfig> {
    connection::check_version().map_err(anyhow::Error::msg)?;
    let dir = DataDir::open(&node_config.data_dir)?;
    let (lock, node) = node::claim(&dir, Role::Replica, Holder::this_process(role))?;
    let node_id = dir.node_id(node_config.replica_id.as_deref())?;
    let (retention, file_grace) = (retention.resolve(), retention.file_grace);
    Ok(AgentConfig { dir, lock, node, node_id, node_config, sync_config, retention, file_grace, metrics })
}

/// Whether a signal came; `false` if the agent ended by itself. One that was asked to let the directory go did not.
async fn until_stopped(agent: &AgentHandle) -> Result<bool> {
    let mut signals = signals()?;
    tokio::select! {
        () = signals.next() => return Ok(true),
        () = agent.finished() => {}
    }
    if agent.is_released() {
        signals.next().await;
    }
    Ok(agent.is_released())
}

/// What ends the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

fn signals() -> Result<Signals> {
    let terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(Signals { terminate, interrupt })
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The URL for commands on this machine: a listener on all addresses is reached on the loopback one.
fn reachable(addr: SocketAddr) -> String {
    let ip = match addr.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, addr.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_the_loopback_one() {
        for (addr, url) in [
            ("0.0.0.0:9301", "http://127.0.0.1:9301"),
            ("[::]:9301", "http://127.0.0.1:9301"),
            ("10.0.0.7:1", "http://10.0.0.7:1"),
            ("[::1]:1", "http://[::1]:1"),
        ] {
            assert_eq!(reachable(addr.parse().unwrap()), url);
        }
    }
}
