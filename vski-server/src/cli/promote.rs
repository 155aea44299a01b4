//! `promote`: a replica's directory becomes a master's.
//!
//! The directory is taken from the agent that holds it, brought to the old master's head if that answers, every
//! database begins a new generation, and the role is recorded last: killed at any point, it is simply run again.

/// The directory's lock, from whoever holds it.
mod lock;

/// What the old master says.
mod old_master;

use std::collections::BTreeSet;

use clap::Args;
use vski_replication::datadir::{DataDir, DirLock};
use vski_replication::node::{DatabaseState, NodeDb, Role};
use vski_replication::{clock, connection, fault, names};
use vski_sync_agent::config::{ConfigError, NodeArgs, NodeConfig, RetentionArgs, Schedule, SyncArgs, SyncConfig};
use vski_sync_agent::telemetry;

use self::old_master::Word;
use super::{Failure, block_on};
use crate::store::error::StoreError;
use crate::store::promotion::{self, Copy};

#[derive(Args)]
pub struct PromoteArgs {
    /// Change nothing: print positions, missing entries and the steps
    #[arg(long)]
    dry_run: bool,
    /// Promote even if the old master answers but cannot be caught up with, or a database was never copied whole
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    sync: SyncArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// A promotion of one directory.
struct Promotion {
    dir: DataDir,
    config: NodeConfig,
    /// How to reach the old master, if that is wanted.
    sync: Option<SyncConfig>,
    retention: RetentionArgs,
    force: bool,
}

pub fn execute(args: &PromoteArgs) -> Result<(), Failure> {
    let config = args.node.resolve().map_err(Failure::setup)?;
    let sync = match args.sync.resolve() {
        Ok(sync) => Some(SyncConfig { schedule: Schedule::Manual, ..sync }),
        Err(ConfigError::MasterMissing) => None,
        Err(error) => return Err(Failure::setup(error)),
    };
    connection::check_version().map_err(Failure::setup)?;
    let dir = DataDir::existing(&config.data_dir).map_err(Failure::setup)?;
    let node = NodeDb::read(&dir).map_err(Failure::setup)?;
    match node.as_ref().map(NodeDb::role).transpose().map_err(Failure::setup)?.flatten() {
        Some(Role::Replica) => {}
        Some(Role::Master) => {
            // Where there are two masters the generations tell which one is to go.
            match promotion::copies(&dir) {
                Ok(copies) => copies.iter().for_each(Copy::print),
                Err(error) => println!("{}", error.describe()),
            }
            println!("{} is a master's directory already: nothing to do", dir.root().display());
            return Ok(());
        }
        None => {
            let path = dir.root().display();
            return Err(Failure::setup(format!("{path} is no replica's directory: set DATA_DIR to that of one")));
        }
    }
    let telemetry = telemetry::init("vski-server", config.log_format, config.otlp_endpoint.as_deref());
    let promotion = Promotion { dir, config, sync, retention: args.retention, force: args.force };
    let done = block_on(async { if args.dry_run { promotion.plan().await } else { promotion.run().await } });
    telemetry.shutdown();
    done
}

impl Promotion {
    /// Prints what a run would do.
    async fn plan(&self) -> Result<(), Failure> {
        let node = NodeDb::read(&self.dir).map_err(Failure::setup)?;
        let node = node.ok_or_else(|| Failure::setup("node.db has vanished"))?;
        let begun = node.promotion().map_err(Failure::setup)?;
        let copies = self.copies(&node)?;
        let word = if begun.is_some() { Word::NotAsked } else { self.ask().await };
        for Copy { name, position } in &copies {
            let missing = match word.missing(name, *position) {
                Some(missing) => format!("{missing} entries of the old master are missing"),
                None => "what the old master has more is not known".to_owned(),
            };
            println!("{name}: generation {}, version {}; {missing}", position.epoch.generation, position.version);
            self.tell_files(name)?;
        }
        println!("steps:");
        if let Some(holder) = self.dir.holder().map_err(Failure::setup)? {
            println!("- ask {holder} to let go of the directory");
        }
        match (&begun, &self.sync) {
            (Some(_), _) => println!("- go on with a promotion that was interrupted"),
            (None, None) => println!("- fetch nothing: MASTER_URL is not set"),
            (None, Some(sync)) => println!("- {} at {}", word.step(), sync.master_url),
        }
        let epoch = begun.map(|begun| begun.epoch);
        for Copy { name, position } in copies.iter().filter(|copy| Some(copy.position.epoch.id) != epoch) {
            println!("- {name}: begin generation {}", position.epoch.generation + 1);
        }
        println!("- record that this is a master's directory");
        println!("nothing was changed");
        Ok(())
    }

    async fn run(&self) -> Result<(), Failure> {
        let (mut lock, mut node) = self.take().await?;
        if node.promotion().map_err(Failure::setup)?.is_some() {
            println!("a promotion was interrupted here: going on with it");
        } else {
            self.copies(&node)?;
            (lock, node) = self.catch_up(lock, node).await?;
        }
        let copies = self.copies(&node)?;
        tokio::task::block_in_place(|| self.promote(&copies, &mut node, &lock))?;
        println!("{} is a master's directory now. Next:", self.dir.root().display());
        println!("- start it with REPLICA_MODE=master and no sync agent");
        println!("- set MASTER_URL of the other replicas to its address and restart them");
        println!("- stop the old master; before it comes back, run there: vski-server demote");
        Ok(())
    }

    /// Tells the uploaded files that a copy's rows name and that never came: nobody else asks for them afterwards.
    fn tell_files(&self, db: &str) -> Result<(), Failure> {
        if let Some(missing) = promotion::missing_files(&self.dir, db).map_err(told)? {
            println!("{db}: {missing}");
        }
        Ok(())
    }

    /// The databases that will be promoted. Refuses a directory that lacks one.
    fn copies(&self, node: &NodeDb) -> Result<Vec<Copy>, Failure> {
        let copies = promotion::copies(&self.dir).map_err(told)?;
        let here: BTreeSet<&str> = copies.iter().map(|copy| copy.name.as_str()).collect();
        if !here.contains(names::DEFAULT_DATABASE) {
            return Err(Failure::work("the default database was never copied whole: there is nothing to promote"));
        }
        let states = node.databases().map_err(Failure::setup)?;
        let mut absent = states.iter().filter(|state| state.is_awaited() && !here.contains(state.name.as_str()));
        match absent.next() {
            Some(DatabaseState { name, .. }) if !self.force => Err(Failure::work(format!(
                "database {name} was never copied whole and would be lost: --force promotes without it"
            ))),
            _ => Ok(copies),
        }
    }

    /// Every database, and then the role. `_lock`: only its holder may do this.
    fn promote(&self, copies: &[Copy], node: &mut NodeDb, _lock: &DirLock) -> Result<(), Failure> {
        let epoch = node.begin_promotion().map_err(Failure::setup)?;
        fault::point("promote:begun");
        for Copy { name, .. } in copies {
            let position = promotion::begin_epoch(&self.dir.database(name), epoch).map_err(told)?;
            fault::point("promote:appended");
            println!("{name}: generation {}, version {}", position.epoch.generation, position.version);
            self.tell_files(name)?;
        }
        fault::point("promote:before-role");
        node.finish_promotion(clock::now_ms()).map_err(Failure::setup)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn told(error: StoreError) -> Failure {
    Failure::work(error.describe())
}
