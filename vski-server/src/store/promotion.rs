//! The databases of a replica's directory on their way to being a master's. Nobody else writes them meanwhile: the
//! caller holds the directory's lock.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use vski_replication::changelog;
use vski_replication::datadir::DataDir;
use vski_replication::entry::{EpochChange, EpochReason, Kind};
use vski_replication::files::Audit;
use vski_replication::position::{Epoch, EpochId, Position};
use vski_replication::{connection, fault};

use super::error::StoreError;
use super::replicable;

/// A database that is here.
pub struct Copy {
    /// Its name.
    pub name: String,
    /// Where its log ends.
    pub position: Position,
}

impl Copy {
    /// Tells its place in history on stdout.
    pub fn print(&self) {
        println!("{}: generation {}, version {}", self.name, self.position.epoch.generation, self.position.version);
    }
}

/// The databases of a directory, by name. One that no master could open is refused.
pub fn copies(dir: &DataDir) -> Result<Vec<Copy>, StoreError> {
    let copy = |name: String| {
        let path = dir.database(&name);
        let position = examine(&path).map_err(|error| {
            let (path, reason) = (path.display(), error.describe());
            StoreError::Invalid(format!("{path} cannot become a master's: {reason}; move the file away"))
        })?;
        Ok(Copy { name, position })
    };
    dir.databases()?.into_iter().map(copy).collect()
}

fn examine(path: &Path) -> Result<Position, StoreError> {
    let conn = connection::reader(path)?;
    changelog::database_id(&conn)?;
    if let Some(problems) = replicable::problems(&conn)? {
        return Err(StoreError::Invalid(problems));
    }
    Ok(changelog::head(&conn)?.position)
}

/// Uploaded files that a promotion tells by name.
const FILES_NAMED: usize = 20;

/// The uploaded files that rows of a copy name and that are not here, told; `None` where all of them are.
pub fn missing_files(dir: &DataDir, db: &str) -> Result<Option<String>, StoreError> {
    let audit = Audit::run(&connection::reader(&dir.database(db))?, dir, db, false, FILES_NAMED)?;
    let count = audit.flawed();
    Ok((count > 0).then(|| {
        let names = audit.told(FILES_NAMED);
        format!(
            "{count} files are missing here: {names}; nodes that have them give them back once they follow this one, the old \
             master after its demote; else they are lost, unless storage/{db}/NAME is in a backup"
        )
    }))
}

/// Begins the next generation under epoch `id`, durably, unless that was done already. Returns where the log ends.
pub fn begin_epoch(path: &Path, id: EpochId) -> Result<Position, StoreError> {
    let conn = connection::writer(path)?;
    changelog::upgrade(&conn)?;
    let transaction = Transaction::new_unchecked(&conn, TransactionBehavior::Immediate)?;
    let position = append_epoch(&transaction, id)?;
    fault::sql("promote:before-commit")?;
    transaction.commit()?;
    Ok(position)
}

fn append_epoch(conn: &Connection, id: EpochId) -> Result<Position, StoreError> {
    let head = changelog::head(conn)?;
    if head.position.epoch.id == id {
        return Ok(head.position);
    }
    let epoch = Epoch { generation: head.position.epoch.generation + 1, id };
    let change = EpochChange { reason: EpochReason::Promoted };
    let payload = serde_json::to_vec(&change).expect("a unit enum always serialises");
    let entry = head.next(Kind::Epoch, epoch, head.schema_hash, payload);
    changelog::append(conn, &entry)?;
    Ok(entry.position())
}

#[cfg(test)]
mod tests {
    use vski_replication::position::DatabaseId;

    use super::*;

    #[test]
    fn one_promotion_begins_one_generation_and_the_next_promotion_another() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("default.db");
        changelog::create(&connection::writer(&path).unwrap(), DatabaseId::random()).unwrap();
        let [first, second] = [[1; 8], [2; 8]].map(EpochId);
        let promoted = begin_epoch(&path, first).unwrap();
        assert_eq!((promoted.epoch, promoted.version), (Epoch { generation: 2, id: first }, 1));
        assert_eq!(begin_epoch(&path, first).unwrap(), promoted, "run again");
        // The head is a promotion's entry, but of another node: to stay in its epoch would be two masters in one.
        let again = begin_epoch(&path, second).unwrap();
        assert_eq!((again.epoch, again.version), (Epoch { generation: 3, id: second }, 2));
    }
}
