use std::time::{Duration, Instant};

use reqwest::Method;
use vski_replication::datadir::{DataDirError, DirLock, Holder};
use vski_replication::names::route;
use vski_replication::node::{self, ClaimError, NodeDb, Role};
use vski_sync_agent::admin;

use super::super::Failure;
use super::super::target::Api;
use super::Promotion;

/// How long to ask: a process that is starting cannot be asked yet, and another command has the lock for a moment only.
const LET_GO: Duration = Duration::from_secs(5);

impl Promotion {
    /// Takes the lock, asking an agent that holds it to let go. Refuses by name if that does not happen.
    pub(super) async fn take(&self) -> Result<(DirLock, NodeDb), Failure> {
        let deadline = Instant::now() + LET_GO;
        let mut refusal = None;
        loop {
            if let Some(holder) = self.dir.holder().map_err(Failure::setup)? {
                match self.ask_to_let_go(&holder).await {
                    Ok(()) => println!("{holder} has let go of the directory; restart it if this command fails"),
                    Err(reason) => refusal = Some(reason),
                }
            }
            // This waits a moment for a lock that is held, which paces the loop.
            let claim = || node::claim(&self.dir, Role::Replica, Holder::this_process("command"));
            match tokio::task::block_in_place(claim) {
                Ok(claimed) => return Ok(claimed),
                Err(ClaimError::Directory(DataDirError::Held { .. })) if Instant::now() < deadline => {}
                Err(error) => {
                    let reason = refusal.map_or_else(String::new, |reason| format!("; asked to let go: {reason}"));
                    return Err(Failure::setup(format!("{error}{reason}")));
                }
            }
        }
    }

    async fn ask_to_let_go(&self, holder: &Holder) -> Result<(), String> {
        let (path, url) = match (holder.role.as_str(), &holder.admin) {
            ("agent", Some(url)) => (admin::RELEASE, url),
            ("replica", Some(url)) => (route::RELEASE, url),
            (_, None) => return Err("it does not listen anywhere".to_owned()),
            _ => return Err("it is no agent".to_owned()),
        };
        let api = Api::new(url, &self.config.secrets).map_err(|failure| failure.message)?;
        let asked = api.call(Method::POST, path, None, None).await.map(drop).map_err(|failure| failure.message);
        asked.map_err(|reason| if holder.is_elsewhere() { format!("{reason}; {}", there(holder)) } else { reason })
    }
}

/// Another container does not reach the address that a process gives for commands beside it.
fn there(holder: &Holder) -> String {
    let host = holder.host.as_deref().unwrap_or_default();
    format!("run this command where it runs, on {host} (the {}'s container)", holder.role)
}
