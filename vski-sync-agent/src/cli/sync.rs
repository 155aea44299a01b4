//! `sync` and `verify`: through the process that holds the directory if there is one, else one round in this process.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use prometheus::Registry;
use reqwest::redirect::Policy;
use vski_replication::connection;
use vski_replication::datadir::{DataDir, Holder};
use vski_replication::names::route;
use vski_replication::token::{Claims, Secrets};

use super::{SyncNowArgs, run, status};
use crate::admin;
use crate::config::{Schedule, SyncConfig};
use crate::metrics::AgentMetrics;
use crate::supervisor::{self, Ask, Outcome, SYNC_PATIENCE, SyncReport, Verified};
use crate::telemetry;

/// Time for a report to come back, beyond the time that the sync may take.
const MARGIN: Duration = Duration::from_secs(30);

pub(super) fn execute(args: &SyncNowArgs, ask: Ask) -> Result<ExitCode> {
    let node = args.node.resolve()?;
    connection::check_version().map_err(anyhow::Error::msg)?;
    let holder = match DataDir::existing(&node.data_dir) {
        Ok(dir) => dir.holder()?,
        // A first copy, made once or by a timer: nobody can hold a directory that no node has used.
        Err(_) if ask == Ask::Sync => None,
        Err(error) => return Err(error.into()),
    };
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let report = if let Some(holder) = holder {
        runtime.block_on(through(&holder, &node.secrets, ask))?
    } else {
        let sync = SyncConfig { schedule: Schedule::Manual, ..args.sync.resolve()? };
        let telemetry = telemetry::init("vski-sync-agent", node.log_format, node.otlp_endpoint.as_deref());
        let metrics = AgentMetrics::register(&Registry::new()).context("register metrics")?;
        let report = runtime.block_on(async {
            let config = run::prepare(node, sync, args.retention, metrics, "agent")?;
            anyhow::Ok(supervisor::ask_once(config, ask).await?)
        })?;
        telemetry.shutdown();
        report
    };
    print!("{}{}", status::table(&report.dbs), status::errors(&report.dbs));
    for verified in &report.verified {
        let Verified { db, version, tables, rows, files, .. } = verified;
        let verdict = if verified.is_equal() { "equal to the master".to_owned() } else { verified.told() };
        println!("{db}: {verdict}, compared at version {version}: {tables} tables, {rows} rows, {files} files");
    }
    Ok(exit_code(&report.outcome))
}

/// Asks the process that holds the directory.
async fn through(holder: &Holder, secrets: &Secrets, ask: Ask) -> Result<SyncReport> {
    let (sync, verify) = match holder.role.as_str() {
        "agent" => (admin::SYNC, admin::VERIFY),
        "replica" => (route::SYNC, route::VERIFY),
        _ => bail!("DATA_DIR is in use by {holder}, which follows no master: nothing to sync"),
    };
    let path = match ask {
        Ask::Sync => sync.to_owned(),
        Ask::Verify { repair } => format!("{verify}?repair={repair}"),
    };
    let Some(base) = &holder.admin else {
        bail!("DATA_DIR is in use by {holder}, which does not listen yet: try again in a moment");
    };
    let client = || reqwest::Client::builder().no_proxy().redirect(Policy::none());
    // The holder is on this machine, over http: an image without CA certificates must not matter.
    let client = client().build().or_else(|_| client().tls_certs_only([]).build()).context("make an HTTP client")?;
    let response = client
        .post(format!("{}{path}", base.trim_end_matches('/')))
        .bearer_auth(secrets.mint(&Claims::operator()))
        .timeout(SYNC_PATIENCE + MARGIN)
        .send()
        .await;
    let failed =
        |reason: String| SyncReport { dbs: Vec::new(), outcome: Outcome::Failed(reason), verified: Vec::new() };
    let response = match response {
        Ok(response) => response,
        Err(error) => return Ok(failed(format!("reach {holder} at {base}: {}", crate::error::chain(&error)))),
    };
    let status = response.status();
    let body = response.bytes().await.context("read the report")?;
    Ok(serde_json::from_slice(&body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&body);
        failed(format!("{holder} answered {}: {}", status.as_u16(), text.chars().take(300).collect::<String>()))
    }))
}

fn exit_code(outcome: &Outcome) -> ExitCode {
    match outcome {
        Outcome::AtHead => ExitCode::SUCCESS,
        Outcome::Failed(reason) => {
            eprintln!("error: sync failed: {reason}");
            ExitCode::from(1)
        }
        Outcome::Stopped(reason) => {
            eprintln!("error: sync stopped: {reason}");
            ExitCode::from(3)
        }
    }
}
