//! `forget`: a master misses a database no longer whose file is lost for good.

use clap::Args;
use vski_replication::datadir::{DataDir, Holder};
use vski_replication::names;
use vski_replication::node::{self, NodeDb, Role};
use vski_sync_agent::config::NodeArgs;

use super::Failure;

#[derive(Args)]
pub struct ForgetArgs {
    /// The database
    db: String,
    #[command(flatten)]
    node: NodeArgs,
}

pub fn execute(args: &ForgetArgs) -> Result<(), Failure> {
    let (config, db) = (args.node.resolve().map_err(Failure::setup)?, &args.db);
    if !names::is_database_name(db) {
        return Err(Failure::setup(format!("{db:?} is no database name: a name is {}", names::DATABASE_NAME_RULE)));
    }
    let dir = DataDir::existing(&config.data_dir).map_err(Failure::setup)?;
    let recorded = NodeDb::read(&dir).map_err(Failure::setup)?;
    if recorded.as_ref().map(NodeDb::role).transpose().map_err(Failure::setup)?.flatten() != Some(Role::Master) {
        let path = dir.root().display();
        return Err(Failure::setup(format!("{path} is no master's directory: set DATA_DIR to that of one")));
    }
    let (_lock, mut node) = node::claim(&dir, Role::Master, Holder::this_process("command")).map_err(Failure::setup)?;
    let file = dir.database(db);
    if file.exists() {
        let file = file.display();
        return Err(Failure::setup(format!("{file} is still there: move it and its -wal away first")));
    }
    if !node.give_up(db).map_err(Failure::setup)? {
        println!("no database {db} is missed in {}: nothing to do", dir.root().display());
    } else if db == names::DEFAULT_DATABASE {
        println!("{db} is given up: the next start makes a new one, which has no admins");
    } else {
        println!("{db} is given up: the next start does without it");
    }
    Ok(())
}
