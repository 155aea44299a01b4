use std::io::IsTerminal;

use clap::{Args, Subcommand};
use vski_sync_agent::config::NodeArgs;

use super::target::Target;
use super::{Failure, block_on};

#[derive(Subcommand)]
pub enum AdminCommand {
    /// Make an admin, or give one a new password, which ends all older tokens
    Upsert(UpsertArgs),
}

#[derive(Args)]
pub struct UpsertArgs {
    /// The address to log in with
    email: String,
    /// The password, 8 characters or more; - reads a line of standard input
    password: String,
    #[command(flatten)]
    node: NodeArgs,
}

pub fn execute(command: AdminCommand) -> Result<(), Failure> {
    let AdminCommand::Upsert(UpsertArgs { email, password, node }) = command;
    let node = node.resolve().map_err(Failure::setup)?;
    let password = match password.as_str() {
        "-" => typed(&email).map_err(|error| Failure::setup(format!("read the password: {error}")))?,
        _ => password,
    };
    block_on(async {
        let target = Target::find_or_make(&node)?;
        target.upsert_admin(&email, &password).await?;
        tokio::task::block_in_place(|| target.close());
        println!("admin {email} can log in");
        Ok(())
    })
}

/// The password, from the terminal or a pipe.
fn typed(email: &str) -> std::io::Result<String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprint!("new password of {email}: ");
    }
    let mut line = String::new();
    stdin.read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
