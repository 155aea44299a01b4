//! Whether a database can be replicated: looked at where its schema changes, also by another program, and told once.

use rusqlite::Connection;
use tokio::sync::watch;
use vski_replication::schema::gate;

/// What is said of a database with such tables, beside their names.
const REMEDY: &str = "drop or change them with vski-server sql or sqlite3: until then its replicas stop where they are, and \
    this master does not start with it";

/// What stands in the way of replicating this database, in one line; `None` is good.
pub fn problems(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let found: Vec<String> = gate::problems(conn)?.iter().map(ToString::to_string).collect();
    Ok((!found.is_empty()).then(|| found.join("; ")))
}

/// The verdict on one open database.
pub struct Verdict {
    database: String,
    told: watch::Sender<Option<String>>,
}

impl Verdict {
    /// Of a database that was found good when it was opened.
    pub fn good(database: &str) -> Self {
        Self { database: database.to_owned(), told: watch::Sender::new(None) }
    }

    /// What stands in the way, as of the last look.
    pub fn subscribe(&self) -> watch::Receiver<Option<String>> {
        self.told.subscribe()
    }

    /// Whether something stands in the way, as of the last look.
    pub fn is_bad(&self) -> bool {
        self.told.borrow().is_some()
    }

    /// Looks, outside a transaction, and logs what is new. What is committed stays whatever is found.
    pub fn look(&self, conn: &Connection) {
        let db = &self.database;
        let found = match problems(conn) {
            Ok(found) => found,
            Err(error) => return tracing::warn!(db, %error, "could not look whether all tables can be replicated"),
        };
        let before = self.told.send_replace(found.clone());
        match found {
            Some(error) if before.as_ref() != Some(&error) => {
                tracing::error!(db, error, remedy = REMEDY, "the database has tables that cannot be replicated");
            }
            None if before.is_some() => tracing::info!(db, "all tables of the database can be replicated again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_follows_the_schema_in_both_directions() {
        let (conn, verdict) = (Connection::open_in_memory().unwrap(), Verdict::good("shop"));
        let told = verdict.subscribe();
        conn.execute_batch("CREATE TABLE good (id TEXT PRIMARY KEY NOT NULL)").unwrap();
        verdict.look(&conn);
        assert!(!verdict.is_bad());
        conn.execute_batch("CREATE TABLE nokey (x); CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT)")
            .unwrap();
        verdict.look(&conn);
        let said = told.borrow().clone().unwrap();
        assert!(said.contains("table nokey has no primary key") && said.contains("table counted uses AUTO"), "{said}");
        conn.execute_batch("DROP TABLE nokey; DROP TABLE counted").unwrap();
        verdict.look(&conn);
        assert_eq!(*told.borrow(), None);
    }
}
