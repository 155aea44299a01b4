use clap::{Args, Subcommand};
use jiff::SignedDuration;
use vski_replication::datadir;
use vski_replication::token::Claims;
use vski_sync_agent::config::NodeArgs;

use super::Failure;

/// Longest life of a printed token, seconds: a day.
const MAX_TTL_SECONDS: u64 = 24 * 3600;

#[derive(Subcommand)]
pub enum TokenCommand {
    /// Print a replica's token, to call /api/replica/* with curl
    Replica(ReplicaToken),
}

#[derive(Args)]
pub struct ReplicaToken {
    /// The replica's id
    #[arg(long, default_value = "operator")]
    id: String,
    /// How long it is valid, such as 30s, 5m or 1h
    #[arg(long, default_value = "5m")]
    ttl: SignedDuration,
    #[command(flatten)]
    node: NodeArgs,
}

/// Prints the token alone, so that a shell can substitute it.
pub fn execute(command: TokenCommand) -> Result<(), Failure> {
    let TokenCommand::Replica(ReplicaToken { id, ttl, node }) = command;
    let node = node.resolve().map_err(Failure::setup)?;
    if !datadir::is_node_id(&id) {
        return Err(Failure::setup(format!("--id {id:?} is not {}", datadir::NODE_ID_RULE)));
    }
    let seconds = u64::try_from(ttl.as_secs()).unwrap_or(0);
    if !(1..=MAX_TTL_SECONDS).contains(&seconds) {
        return Err(Failure::setup("--ttl must be between 1s and 24h"));
    }
    println!("{}", node.secrets.mint(&Claims::replica(&id, seconds)));
    Ok(())
}
