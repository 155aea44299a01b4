//! Verifying uploaded files: each one that a row names is here, with the size and the BLAKE3 of its row.

use std::time::Duration;

use tokio::select;
use tokio::time::timeout;
use vski_replication::connection;
use vski_replication::files::{self, Audit, Flaw};

use super::Agent;
use crate::blocking;
use crate::error::AgentError;
use crate::round::Verified;

/// Files that a report names, and that are mended at once.
const FILES_NAMED: usize = 1000;

/// How long files are waited for that are on their way.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

impl Agent {
    /// Compares the files here with the rows, which are the master's. Those that may be on their way are waited for; with
    /// `repair`, those that are not what their rows say are set aside, and all that are missing fetched.
    pub(super) async fn compare_files(&mut self, verified: &mut Verified, repair: bool) -> Result<(), AgentError> {
        let mut audit = self.audit_files().await?;
        if repair && audit.flawed() > 0 {
            while audit.damaged > 0 && self.set_files_aside(&audit).await? {
                audit = self.audit_files().await?;
            }
            self.context.board.recheck_files(&self.db);
        }
        if audit.missing > 0 {
            select! {
                () = self.shutdown.cancelled() => {}
                // Whether they came, the next look tells.
                _ = timeout(PATIENCE, self.context.board.files_settled(Some(&self.db))) => {}
            }
            audit = self.audit_files().await?;
        }
        (verified.files, verified.files_differing) = (audit.files, audit.flawed());
        verified.file_differences = audit.first.iter().map(|(name, flaw)| format!("{name} ({flaw})")).collect();
        Ok(())
    }

    async fn audit_files(&mut self) -> Result<Audit, AgentError> {
        let (dir, db) = (self.context.dir.clone(), self.db.clone());
        blocking::run(move || {
            let conn = connection::reader(&dir.database(&db))?;
            Ok(Audit::run(&conn, &dir, &db, true, FILES_NAMED)?)
        })
        .await
    }

    /// Moves damaged files out of the way. `false`: none of those that are named is.
    async fn set_files_aside(&mut self, audit: &Audit) -> Result<bool, AgentError> {
        let damaged = audit.first.iter().filter(|(_, flaw)| *flaw != Flaw::Missing);
        let damaged: Vec<String> = damaged.map(|(name, _)| name.clone()).collect();
        let (dir, db) = (self.context.dir.clone(), self.db.clone());
        blocking::run(move || {
            let mut any = false;
            for name in damaged {
                if let Some(kept) = files::set_aside(&dir, &db, &name)? {
                    tracing::warn!(db, file = name, kept = %kept.display(), "a damaged uploaded file was set aside");
                    any = true;
                }
            }
            Ok(any)
        })
        .await
    }
}
