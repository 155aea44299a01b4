//! The commands `run`, `sync`, `verify`, `status`, `doctor` and `healthcheck`, shared by `vski-sync-agent` and `vski-server agent`.
//!
//! A failure at start is one line on stderr and exit code 2. `sync` exits 0 at the master's head, 1 failed, 3 diverged
//! or stopped; `status` exits 0, or 1 where there is nothing to tell; `doctor` 0, or 1 where something should be
//! repaired; `healthcheck` 0, or 1 where the process does not live.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use vski_replication::node::Role;

use crate::config::{NodeArgs, RetentionArgs, SyncArgs, parse_or_exit};
use crate::doctor::{self, Look, Subject};
use crate::healthcheck::{self, Probe};
use crate::round::Ask;

mod run;
mod status;
mod sync;

/// Exit code of a command that cannot start.
const CANNOT_START: u8 = 2;

/// What the agent can be told to do.
#[derive(Subcommand)]
pub enum AgentCommand {
    /// Keep DATA_DIR equal to the master until told to stop
    Run(RunArgs),
    /// Bring DATA_DIR to the master's head now: through the running process, else by itself
    Sync(SyncNowArgs),
    /// Sync, and compare every row with the master's at the same version
    Verify(VerifyArgs),
    /// Show how the databases of DATA_DIR are doing
    Status(StatusArgs),
    /// Look for what keeps this node from working, and say how to repair it; changes nothing
    Doctor(DoctorArgs),
    /// Ask the agent that runs on this machine whether it lives: exit code 0 if it does, else 1
    Healthcheck(HealthcheckArgs),
}

/// Settings of `run`.
#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(flatten)]
    pub(crate) sync: SyncArgs,
    #[command(flatten)]
    pub(crate) retention: RetentionArgs,
    /// Address to listen on for probes, metrics and sync requests
    #[arg(long, env = "AGENT_ADDR", default_value = "0.0.0.0:9301")]
    pub(crate) agent_addr: String,
}

/// Settings of `sync`.
#[derive(Args)]
pub struct SyncNowArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(flatten)]
    pub(crate) sync: SyncArgs,
    #[command(flatten)]
    pub(crate) retention: RetentionArgs,
}

/// Settings of `verify`.
#[derive(Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub(crate) sync: SyncNowArgs,
    /// Where rows differ, fetch the master's
    #[arg(long)]
    pub(crate) repair: bool,
}

/// Settings of `status`.
#[derive(Args)]
pub struct StatusArgs {
    /// Directory of the databases
    #[arg(long, env = "DATA_DIR", default_value = "./data")]
    pub(crate) data_dir: std::path::PathBuf,
    /// Print a JSON array
    #[arg(long)]
    pub(crate) json: bool,
}

/// Settings of `doctor`.
#[derive(Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub(crate) look: Look,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(flatten)]
    pub(crate) sync: SyncArgs,
    #[command(flatten)]
    pub(crate) retention: RetentionArgs,
}

/// Settings of `healthcheck`.
#[derive(Args)]
pub struct HealthcheckArgs {
    #[command(flatten)]
    pub(crate) probe: Probe,
    /// Address on which the agent listens
    #[arg(long, env = "AGENT_ADDR", default_value = "0.0.0.0:9301")]
    pub(crate) agent_addr: String,
}

/// Keeps a VSKI data directory equal to its master.
#[derive(Parser)]
#[command(name = "vski-sync-agent", version, subcommand_required = true, arg_required_else_help = true)]
struct Program {
    #[command(subcommand)]
    command: AgentCommand,
}

/// The whole program `vski-sync-agent`, from its command line on.
#[must_use]
pub fn main() -> ExitCode {
    let program: Program = parse_or_exit();
    execute(program.command)
}

/// Does it. Call outside any tokio runtime.
#[must_use]
pub fn execute(command: AgentCommand) -> ExitCode {
    let outcome = match command {
        AgentCommand::Run(args) => run::execute(&args),
        AgentCommand::Sync(args) => sync::execute(&args, Ask::Sync),
        AgentCommand::Verify(args) => sync::execute(&args.sync, Ask::Verify { repair: args.repair }),
        AgentCommand::Status(args) => status::execute(&args),
        AgentCommand::Healthcheck(args) => Ok(healthcheck::report(args.probe.ask(&args.agent_addr))),
        AgentCommand::Doctor(args) => {
            let subject = Subject { node: &args.node, sync: &args.sync, role: Role::Replica };
            let findings = doctor::examine(&subject, &args.look);
            findings.and_then(|findings| doctor::report(&findings, &args.look))
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {}", one_line(&error));
        ExitCode::from(CANNOT_START)
    })
}

/// The error and its causes on one line, so that an operator's log and a test see one record. A cause that an error
/// tells of itself already is not told again.
fn one_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| {
        if told.is_empty() {
            cause
        } else if told.contains(&cause) {
            told
        } else {
            format!("{told}: {cause}")
        }
    })
}
