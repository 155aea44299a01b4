//! `demote`: a stopped master's directory becomes a replica's. Its databases stay as they are: the next start as a
//! replica makes them the new master's.

use clap::Args;
use vski_replication::datadir::{DataDir, Holder};
use vski_replication::node::{self, NodeDb, Role};
use vski_sync_agent::config::NodeArgs;

use super::Failure;
use crate::store::promotion::{self, Copy};

#[derive(Args)]
pub struct DemoteArgs {
    /// Change nothing: print what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    node: NodeArgs,
}

pub fn execute(args: &DemoteArgs) -> Result<(), Failure> {
    let config = args.node.resolve().map_err(Failure::setup)?;
    let dir = DataDir::existing(&config.data_dir).map_err(Failure::setup)?;
    let path = dir.root().display();
    let recorded = NodeDb::read(&dir).map_err(Failure::setup)?;
    match recorded.as_ref().map(NodeDb::role).transpose().map_err(Failure::setup)?.flatten() {
        Some(Role::Master) => {}
        Some(Role::Replica) => {
            println!("{path} is a replica's directory already: nothing to do");
            return Ok(());
        }
        None => return Err(Failure::setup(format!("{path} is no master's directory: set DATA_DIR to that of one"))),
    }
    // Taken for a dry run too: it tells of a master that still runs.
    let (_lock, mut node) = node::claim(&dir, Role::Master, Holder::this_process("command")).map_err(Failure::setup)?;
    match promotion::copies(&dir) {
        Ok(copies) => copies.iter().for_each(Copy::print),
        // No obstacle: an agent sets aside what it cannot use.
        Err(error) => println!("{}", error.describe()),
    }
    if args.dry_run {
        println!("{path} would become a replica's directory; nothing was changed");
        return Ok(());
    }
    node.demote().map_err(Failure::setup)?;
    println!("{path} is a replica's directory now. Next:");
    println!("- start it with REPLICA_MODE=replica and MASTER_URL set to the new master's address");
    println!("- rows and entries that the new master lacks will then be in {}", dir.private().join("lost").display());
    Ok(())
}
