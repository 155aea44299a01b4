use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use vski_replication::files::{self, Needed, Sweeper};

use super::Uploads;
use crate::store::database::Database;
use crate::store::error::StoreError;
use crate::store::master::Master;

/// The longest time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10 * 60);

/// The shortest.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// Removes files of a master that no row has named for a while.
pub struct Keeper {
    master: Arc<Master>,
    uploads: Uploads,
    grace: Duration,
    sweepers: BTreeMap<String, Sweeper>,
}

impl Keeper {
    /// Files stay for `grace` after their row was first missed.
    pub fn new(master: Arc<Master>, grace: Duration) -> Self {
        let uploads = master.uploads().clone();
        Self { master, uploads, grace, sweepers: BTreeMap::new() }
    }

    /// Looks again and again.
    pub async fn keep(mut self, shutdown: CancellationToken) {
        let pause = (self.grace / 2).clamp(LOOK_PAUSE, LOOK_EVERY);
        loop {
            for database in self.master.all() {
                let name = database.name.clone();
                match self.look(database).await {
                    Ok(0) => {}
                    Ok(files) => tracing::info!(db = name, files, "removed uploaded files that no record names"),
                    Err(error) => {
                        tracing::warn!(db = name, error = error.describe(), "cannot remove uploaded files now");
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn look(&mut self, database: Database) -> Result<usize, StoreError> {
        let (name, grace) = (database.name.clone(), self.grace);
        let mut sweeper = self.sweepers.remove(&name).unwrap_or_default();
        let (uploads, dir) = (self.uploads.clone(), self.master.dir().clone());
        let conn = database.reader.dedicated()?;
        let swept = tokio::task::spawn_blocking(move || {
            let removed = sweeper.sweep(&dir, &database.name, grace, Instant::now(), |names| {
                // First: what is let go of meanwhile has its row by then.
                let under_way = uploads.is_under_way(&database.name, names);
                let mut needed = Needed { under_way, ..Needed::default() };
                let read = conn.unchecked_transaction()?;
                for name in names {
                    if files::find(&read, name)?.is_some() {
                        needed.named.insert(name.clone());
                    }
                }
                Ok::<Needed, StoreError>(needed)
            });
            (sweeper, removed)
        });
        let (sweeper, removed) = swept.await.map_err(|_| StoreError::ShuttingDown)?;
        self.sweepers.insert(name, sweeper);
        removed
    }
}
