//! The sync agent as a process of its own. Everything is in the library: see `vski_sync_agent::cli`.

use std::process::ExitCode;

use clap::Parser;
use vski_sync_agent::cli::{self, AgentCommand};
use vski_sync_agent::config;

/// Keeps a VSKI data directory equal to its master.
#[derive(Parser)]
#[command(name = "vski-sync-agent", version, subcommand_required = true, arg_required_else_help = true)]
struct Program {
    #[command(subcommand)]
    command: AgentCommand,
}

fn main() -> ExitCode {
    let program: Program = config::parse_or_exit();
    cli::execute(program.command)
}
