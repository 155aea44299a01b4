use std::time::Duration;

use prometheus::Registry;
use vski_replication::datadir::DirLock;
use vski_replication::node::NodeDb;
use vski_replication::position::Position;
use vski_sync_agent::config::SyncConfig;
use vski_sync_agent::error;
use vski_sync_agent::metrics::AgentMetrics;
use vski_sync_agent::source::{Identity, List, Source, SourceError};
use vski_sync_agent::supervisor::{self, AgentConfig, Outcome};

use super::super::Failure;
use super::{Promotion, told};
use crate::store::promotion;

/// What the old master says when it is asked for its positions.
pub(super) enum Word {
    /// There is nobody to ask, or no reason to.
    NotAsked,
    /// Nothing, or a proxy says that it is gone.
    Silent(String),
    /// It is there and does not let this node follow it.
    Refuses(String),
    /// Where its databases stand.
    Answers(List),
    /// Where the databases of the replica stand that this node follows.
    ReplicaAnswers(List),
}

impl Word {
    /// How many entries a copy lacks; `None` where that is not known.
    pub(super) fn missing(&self, name: &str, position: Position) -> Option<u64> {
        let (Self::Answers(list) | Self::ReplicaAnswers(list)) = self else { return None };
        let head = list.dbs.iter().find(|listed| listed.name == name)?.head();
        (head.epoch.generation >= position.epoch.generation).then(|| head.version.saturating_sub(position.version))
    }

    /// What a promotion does about it.
    pub(super) fn step(&self) -> String {
        match self {
            Self::NotAsked => "fetch nothing from the old master".to_owned(),
            Self::Silent(reason) => format!("go on without the old master, which does not answer ({reason}),"),
            Self::Refuses(reason) => format!("refuse, unless forced, because of the old master ({reason})"),
            Self::Answers(_) => {
                "have the old master take no more writes, and fetch what is missing from it,".to_owned()
            }
            Self::ReplicaAnswers(_) => "fetch what is missing from the replica, not from the old master,".to_owned(),
        }
    }
}

impl Promotion {
    /// Asks the old master for its positions.
    pub(super) async fn ask(&self) -> Word {
        let Some(sync) = &self.sync else { return Word::NotAsked };
        let source = match self.source(sync) {
            Ok(source) => source,
            Err(reason) => return Word::Refuses(reason),
        };
        match source.status(None, Duration::ZERO).await {
            Ok(list) if source.is_replica() => Word::ReplicaAnswers(list),
            Ok(list) => Word::Answers(list),
            Err(error) if is_gone(&error) => Word::Silent(error::chain(&error)),
            Err(error) => Word::Refuses(error::chain(&error)),
        }
    }

    /// Brings every database to the old master's head, if there is one to be had.
    pub(super) async fn catch_up(&self, lock: DirLock, node: NodeDb) -> Result<(DirLock, NodeDb), Failure> {
        let Some(sync) = &self.sync else {
            println!("MASTER_URL is not set: nothing is fetched from the old master");
            return Ok((lock, node));
        };
        let (url, word) = (&sync.master_url, self.ask().await);
        let who = if matches!(word, Word::ReplicaAnswers(_)) { "replica" } else { "old master" };
        match word {
            Word::Answers(_) => {}
            Word::ReplicaAnswers(_) => {
                println!("the node at {url} is a replica: what the old master took beyond it is not here");
            }
            Word::Refuses(reason) => {
                self.insist(&format!("the old master at {url} answers and cannot be followed: {reason}"))?;
                return Ok((lock, node));
            }
            Word::NotAsked | Word::Silent(_) => {
                println!("the old master at {url} does not answer: what it took since is not here");
                return Ok((lock, node));
            }
        }
        let source = self.source(sync).map_err(Failure::work)?;
        let is_master = who == "old master";
        let handed_over = is_master && self.hand_over(&source).await?;
        let caught_up = self.to_the_head(who, sync, lock, node).await;
        match &caught_up {
            Err(_) if handed_over => match source.hand_back().await {
                Ok(()) => println!("the old master at {url} takes writes again"),
                Err(error) => println!(
                    "the old master at {url} takes no writes until it is restarted, it could not be told: {}",
                    error::chain(&error)
                ),
            },
            Ok(_) if handed_over => {
                println!(
                    "the old master at {url} still answers; it takes no more writes unless it is restarted: stop it"
                );
            }
            Ok(_) if is_master => {
                println!("the old master at {url} still answers: stop it, what it takes from now on will be lost");
            }
            _ => {}
        }
        caught_up
    }

    /// Has the old master take no more writes, so that nothing that it acknowledges can be missing here. One that cannot
    /// be asked is followed to its head all the same.
    async fn hand_over(&self, source: &Source) -> Result<bool, Failure> {
        match source.hand_over().await {
            Ok(()) => Ok(true),
            Err(SourceError::NotFound { .. }) => Ok(false),
            Err(error) => {
                let reason = error::chain(&error);
                self.insist(&format!("the old master answers and does not stop taking writes: {reason}"))?;
                Ok(false)
            }
        }
    }

    /// Brings every database to the head of the node at MASTER_URL, which is `who`.
    async fn to_the_head(
        &self,
        who: &str,
        sync: &SyncConfig,
        lock: DirLock,
        node: NodeDb,
    ) -> Result<(DirLock, NodeDb), Failure> {
        let before = self.entries()?;
        let outcome = self.sync(sync.clone(), lock, node).await?;
        let claimed = self.take().await?;
        match outcome {
            Outcome::AtHead => println!("{} entries came from the {who}", self.entries()?.saturating_sub(before)),
            Outcome::Failed(reason) | Outcome::Stopped(reason) => {
                let url = &sync.master_url;
                self.insist(&format!("the {who} at {url} answers and its head was not reached: {reason}"))?;
            }
        }
        Ok(claimed)
    }

    /// One sync by the agent's own code. The lock is let go at its end.
    async fn sync(&self, sync_config: SyncConfig, lock: DirLock, node: NodeDb) -> Result<Outcome, Failure> {
        let (dir, node_config) = (self.dir.clone(), self.config.clone());
        let node_id = dir.node_id(node_config.replica_id.as_deref()).map_err(Failure::setup)?;
        let metrics = AgentMetrics::register(&Registry::new()).map_err(Failure::setup)?;
        let (retention, file_grace) = (self.retention.resolve(), self.retention.file_grace);
        let config = AgentConfig { dir, lock, node, node_id, node_config, sync_config, retention, file_grace, metrics };
        Ok(supervisor::sync_once(config).await.map_err(Failure::setup)?.outcome)
    }

    fn source(&self, sync: &SyncConfig) -> Result<Source, String> {
        let id = self.dir.node_id(self.config.replica_id.as_deref()).map_err(|error| error.to_string())?;
        let identity = Identity::new(self.config.secrets.clone(), id, self.config.public_url.clone());
        Source::new(sync, identity).map_err(|error| error.to_string())
    }

    /// Entries of all databases.
    fn entries(&self) -> Result<u64, Failure> {
        Ok(promotion::copies(&self.dir).map_err(told)?.iter().map(|copy| copy.position.version).sum())
    }

    /// Goes on if the operator wants it all the same.
    fn insist(&self, obstacle: &str) -> Result<(), Failure> {
        if self.force {
            println!("{obstacle}; going on, as --force says");
            return Ok(());
        }
        Err(Failure::work(format!("{obstacle}; nothing was promoted, --force promotes all the same")))
    }
}

/// Whether nobody is there: no connection, or a proxy that has nobody to pass the request on to.
fn is_gone(error: &SourceError) -> bool {
    match error {
        SourceError::Unreachable { .. } | SourceError::Silent { .. } | SourceError::Overloaded { .. } => true,
        SourceError::Refused { status, .. } => *status >= 500,
        _ => false,
    }
}
