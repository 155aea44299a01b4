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
    /// The password, 8 characters or more; - reads it from standard input
    password: String,
    #[command(flatten)]
    node: NodeArgs,
}

pub fn execute(command: AdminCommand) -> Result<(), Failure> {
    let AdminCommand::Upsert(UpsertArgs { email, password, node }) = command;
    let node = node.resolve().map_err(Failure::setup)?;
    let password = match password.as_str() {
        "-" => {
            let read = std::io::read_to_string(std::io::stdin());
            read.map_err(|error| Failure::setup(format!("read the password: {error}")))?
                .trim_end_matches(['\r', '\n'])
                .to_owned()
        }
        _ => password,
    };
    block_on(async {
        let target = Target::find(&node)?;
        target.upsert_admin(&email, &password).await?;
        tokio::task::block_in_place(|| target.close());
        println!("admin {email} can log in");
        Ok(())
    })
}
