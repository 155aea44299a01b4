//! `sql`: a manual migration, in one transaction, through the running master or in its directory.

use std::path::PathBuf;

use clap::Args;
use vski_replication::names;
use vski_sync_agent::config::NodeArgs;

use super::target::Target;
use super::{Failure, block_on};

/// Runs the statements of a file in one transaction and logs them for the replicas.
///
/// Schema statements first, then rows: one entry, which replicas repeat exactly. Rows only: the same. Schema statements
/// after rows, or more than 64 MiB of changes: run all the same, but the log only says that something changed, and
/// every replica has to be made equal to this master anew.
///
/// The catalogue of collections is not touched: a renamed or dropped column of a collection's table has to be renamed or
/// dropped there too, in the same file.
#[derive(Args)]
pub struct SqlArgs {
    /// File of SQL statements; - reads standard input
    file: PathBuf,
    /// The database to change
    #[arg(long, default_value = names::DEFAULT_DATABASE)]
    db: String,
    #[command(flatten)]
    node: NodeArgs,
}

pub fn execute(args: &SqlArgs) -> Result<(), Failure> {
    let node = args.node.resolve().map_err(Failure::setup)?;
    let read = if args.file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(&args.file)
    };
    let sql = read.map_err(|error| Failure::setup(format!("cannot read {}: {error}", args.file.display())))?;
    block_on(async {
        let target = Target::find(&node)?;
        let done = target.sql(&args.db, sql).await;
        tokio::task::block_in_place(|| target.close());
        let (before, version, entry) = done?;
        match entry.as_str() {
            "none" => println!("{}: nothing changed, version {version}", args.db),
            "epoch" => println!(
                "{}: version {before} to {version}, an epoch entry: the log does not carry these changes, every \
                 replica has to be made equal anew",
                args.db
            ),
            kind => println!("{}: version {before} to {version}, one {kind} entry", args.db),
        }
        Ok(())
    })
}
