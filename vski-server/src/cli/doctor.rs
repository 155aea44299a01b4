//! `doctor`: the agent's findings, and those about a server.

use std::net::TcpListener;
use std::process::ExitCode;

use clap::Args;
use vski_replication::datadir::DataDir;
use vski_replication::names;
use vski_replication::node::Role;
use vski_sync_agent::doctor::{self, Finding, Look, Subject};

use super::Failure;
use crate::config::{Mode, ServeArgs};
use crate::store::auth::admins;
use crate::store::collections;

#[derive(Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    serve: ServeArgs,
}

pub fn execute(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let role = match args.serve.replica_mode {
        Mode::Master => Role::Master,
        Mode::Replica => Role::Replica,
    };
    let subject = Subject { node: &args.serve.node, sync: &args.serve.sync, role };
    let mut found = doctor::examine(&subject, &args.look).map_err(Failure::setup)?;
    let dir = DataDir::untouched(&args.serve.node.data_dir);
    // What is wrong with the settings of every node was found already.
    let settings_stand =
        args.serve.node.resolve().is_ok() && (role == Role::Master || args.serve.sync.resolve().is_ok());
    match args.serve.resolve() {
        Err(message) if settings_stand => found.push(doctor::refused(&message)),
        _ => {}
    }
    if matches!(dir.holder(), Ok(None)) {
        found.push(port(&args.serve));
    }
    found.extend(catalogues(&dir));
    if role == Role::Master {
        found.extend(no_admin(&dir, &args.serve));
    }
    doctor::report(&found, &args.look).map_err(Failure::setup)
}

/// Whether a stopped server could listen. One that runs has the port itself.
fn port(args: &ServeArgs) -> Finding {
    match TcpListener::bind((args.host, args.port)) {
        Ok(_) => Finding::ok(format!("{}:{} is free to listen on", args.host, args.port)),
        Err(error) => Finding::error(
            format!("{}:{} cannot be listened on: {error}", args.host, args.port),
            "set HOST and PORT to an address of this machine that nobody uses",
        ),
    }
}

/// Collections that requests cannot use. What keeps a database from being read is found by the agent's part.
fn catalogues(dir: &DataDir) -> Vec<Finding> {
    let mut found = Vec::new();
    for db in dir.databases().unwrap_or_default() {
        let problems = doctor::open(dir, &db).ok().and_then(|conn| collections::problems(&conn).ok());
        found.extend(problems.into_iter().flatten().map(|problem| {
            let (what, repair) = problem.rsplit_once(": ").unwrap_or((&problem, "mend _collections"));
            Finding::error(format!("database {db}: {what}"), repair)
        }));
    }
    found
}

/// A master that nobody can log in to.
fn no_admin(dir: &DataDir, args: &ServeArgs) -> Option<Finding> {
    let made_at_start = args.admin_email.as_ref().is_some_and(|email| !email.is_empty());
    let conn = doctor::open(dir, names::DEFAULT_DATABASE).ok()?;
    let none = !admins::any(&conn).ok()? && !made_at_start;
    none.then(|| Finding::info("there is no admin yet", "vski-server admin upsert admin@example.com -"))
}
