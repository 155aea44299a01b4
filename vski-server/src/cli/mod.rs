//! What can be typed. `vski-server` and `vski-prod` are the same program.

/// `serve`.
mod serve;

/// `admin upsert`.
mod admin;

/// `token replica`.
mod token;

/// `import`.
mod import;

/// `sql`.
mod sql;

/// `replicas`.
mod replicas;

/// `promote`.
mod promote;

/// `demote`.
mod demote;

/// `forget`.
mod forget;

/// `doctor`.
mod doctor;

/// `healthcheck`.
mod healthcheck;

/// `secret`.
mod secret;

/// `demo`.
mod demo;

/// The running node that a command goes through, or the directory itself.
mod target;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vski_sync_agent::cli::AgentCommand;
use vski_sync_agent::config::parse_or_exit;

/// A backend in a box over SQLite that scales reads with replicas
#[derive(Parser)]
#[command(name = "vski-server", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the databases of a directory, as a master or a replica
    Serve(Box<crate::config::ServeArgs>),
    /// Make admins
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// Mint tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Import a file of records, one JSON object a line
    Import(import::ImportArgs),
    Sql(sql::SqlArgs),
    /// Show the replicas that this master has heard of, and how they are doing
    Replicas(replicas::ReplicasArgs),
    /// Make a replica's directory a master's, after its master was lost or is to be replaced
    Promote(promote::PromoteArgs),
    /// Make a stopped master's directory a replica's, so that it can follow the new master
    Demote(demote::DemoteArgs),
    /// Give up a database of a stopped master whose file is lost, so that the master misses it no longer
    Forget(forget::ForgetArgs),
    /// Look for what keeps this node from working, and say how to repair it; changes nothing
    Doctor(Box<doctor::DoctorArgs>),
    /// Ask the node that runs on this machine whether it lives: exit code 0 if it does, else 1
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Make a file with a random JWT_SECRET, unless it is there
    Secret(secret::SecretArgs),
    /// Start a master and replicas on this machine, with real data to try
    Demo(demo::DemoArgs),
    /// The sync agent: the same program as vski-sync-agent
    #[command(subcommand)]
    Agent(AgentCommand),
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    end_with_parent();
    if is_called("vski-sync-agent") {
        return vski_sync_agent::cli::main();
    }
    match parse_or_exit::<Cli>().command {
        Command::Serve(args) => serve::execute(&args),
        Command::Admin(command) => report(admin::execute(command)),
        Command::Token(command) => report(token::execute(command)),
        Command::Import(args) => report(import::execute(&args)),
        Command::Sql(args) => report(sql::execute(&args)),
        Command::Replicas(args) => report(replicas::execute(&args)),
        Command::Promote(args) => report(promote::execute(&args)),
        Command::Demote(args) => report(demote::execute(&args)),
        Command::Forget(args) => report(forget::execute(&args)),
        Command::Doctor(args) => doctor::execute(&args).unwrap_or_else(|failure| report(Err(failure))),
        Command::Healthcheck(args) => healthcheck::execute(&args),
        Command::Secret(args) => report(secret::execute(&args)),
        Command::Demo(args) => report(demo::execute(&args)),
        Command::Agent(command) => vski_sync_agent::cli::execute(command),
    }
}

/// Whether the program was started under that name: an image holds one program and links to it.
fn is_called(name: &str) -> bool {
    std::env::args_os().next().is_some_and(|called| Path::new(&called).file_name() == Some(name.as_ref()))
}

/// A command that failed: what to tell, and the exit code: 2 for wrong use or setup, 1 for the rest.
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// The command was used wrongly or its surroundings are not fit.
    pub fn setup(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), code: 2 }
    }

    /// The work itself failed.
    pub fn work(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), code: 1 }
    }
}

fn report(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message, code }) => {
            eprintln!("error: {}", message.replace('\n', " "));
            ExitCode::from(code)
        }
    }
}

/// Runs a command's async part on a runtime of its own.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime =
        tokio::runtime::Runtime::new().map_err(|error| Failure::setup(format!("start the runtime: {error}")))?;
    runtime.block_on(work)
}

/// The demo's nodes end with it, even if it is killed.
fn end_with_parent() {
    if std::env::var_os(demo::END_WITH_PARENT).is_some() {
        // Without it the node merely outlives a killed demo.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    }
}
