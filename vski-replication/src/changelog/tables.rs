//! The tables of our own in each database: made with it, and looked for before anything else is read.

use rusqlite::{Connection, params};

use super::rows::signed;
use super::{Head, LogError, traces};
use crate::position::{DatabaseId, Epoch, EpochId, Position};
use crate::{chain, clock};

/// The layout of our own tables. A database with another one is refused.
pub(super) const FORMAT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE _vski_meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        format INTEGER NOT NULL,
        database_id BLOB NOT NULL
    );
    CREATE TABLE _vski_base (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        generation INTEGER NOT NULL,
        epoch BLOB NOT NULL,
        version INTEGER NOT NULL,
        chain BLOB NOT NULL,
        schema_hash BLOB NOT NULL,
        schema_version INTEGER NOT NULL,
        committed_ms INTEGER NOT NULL,
        objects TEXT,
        pruned_bytes INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE _vski_changelog (
        version INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        generation INTEGER NOT NULL,
        epoch BLOB NOT NULL,
        schema_hash BLOB NOT NULL,
        committed_ms INTEGER NOT NULL,
        chain BLOB NOT NULL,
        payload BLOB NOT NULL
    );
    -- Small: finding the schema in force somewhere must not read every payload.
    CREATE INDEX _vski_changelog_schema ON _vski_changelog (version) WHERE kind = 'schema';";

/// Makes the log tables of a new database, with an empty history in generation 1.
pub fn create(conn: &Connection, id: DatabaseId) -> Result<Head, LogError> {
    conn.execute_batch(TABLES)?;
    traces::create(conn)?;
    conn.execute("INSERT INTO _vski_meta VALUES (1, ?1, ?2)", params![FORMAT, id.0])?;
    let (epoch, chain) = (Epoch { generation: 1, id: EpochId::random() }, chain::genesis(id));
    let (objects, committed_ms) = (crate::schema::objects(conn)?, clock::now_ms());
    let schema_hash = crate::schema::hash_objects(&objects);
    let objects = serde_json::to_string(&objects).expect("strings always serialise");
    conn.execute(
        "INSERT INTO _vski_base (one, generation, epoch, version, chain, schema_hash, schema_version, committed_ms, objects)
         VALUES (1, ?1, ?2, 0, ?3, ?4, 0, ?5, ?6)",
        params![signed(epoch.generation), epoch.id.0, chain.0, schema_hash.0, committed_ms, objects],
    )?;
    Ok(Head { position: Position { epoch, version: 0, chain }, schema_hash, committed_ms })
}

/// The database's id, once its log is known to be of this program's format.
pub fn database_id(conn: &Connection) -> Result<DatabaseId, LogError> {
    let found = conn
        .prepare_cached("SELECT format, database_id FROM _vski_meta")
        .and_then(|mut meta| meta.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))));
    match found {
        Ok((FORMAT, id)) => Ok(DatabaseId::from_slice(&id)?),
        Ok((format, _)) => Err(LogError::NotOurs(format!(" but of format {format}"))),
        Err(error) if error.to_string().contains("no such table") => Err(LogError::NotOurs(String::new())),
        Err(error) => Err(error.into()),
    }
}
