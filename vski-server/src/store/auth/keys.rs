//! API keys for machines (`X-API-Key`): rows of `_api_keys` in the default database, replicated, so that a key works on
//! every node.
//!
//! A key is 32 random bytes behind a prefix by which scanners for leaked secrets know it. Only its SHA-256 is stored: such a
//! key cannot be guessed, so nothing slower is needed, and a lookup by the hash takes the same time whatever was sent.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use vski_replication::position::hex;

use super::equal;
use crate::store::error::StoreError;
use crate::store::ids;

/// The statements that make the table in the default database.
pub const TABLES: [&str; 2] = [
    "CREATE TABLE _api_keys (
        id TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        hash TEXT NOT NULL,
        expires TEXT NOT NULL,
        created TEXT NOT NULL
    )",
    "CREATE UNIQUE INDEX _api_keys_hash ON _api_keys (hash)",
];

/// The statements that a default database from before there were keys lacks.
pub fn upgrade(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let lacking = if conn.table_exists(None, "_api_keys")? { &[][..] } else { &TABLES[..] };
    Ok(lacking.iter().map(|statement| (*statement).to_owned()).collect())
}

/// What every key begins with.
pub const PREFIX: &str = "vski_key_";

/// Keys there may be.
const MAX_KEYS: u32 = 1000;

/// Longest name, characters.
const MAX_NAME_CHARS: usize = 100;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// What an admin may.
    Full,
    /// What an admin may read.
    ReadOnly,
}

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ApiKey {
    /// Its id.
    pub id: String,
    /// What it is for, in its maker's words.
    pub name: String,
    /// What it may do.
    pub kind: KeyKind,
    /// When it ends; blank if never.
    pub expires: String,
    /// When it was made.
    pub created: String,
}

/// What is wanted of a new key.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct NewKey {
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub kind: KeyKind,
    /// When it ends.
    pub expires: Option<String>,
}

impl NewKey {
    /// Checks it; its end is then in the form that is stored.
    pub fn checked(mut self) -> Result<Self, StoreError> {
        self.name = self.name.trim().to_owned();
        if self.name.is_empty() || self.name.chars().count() > MAX_NAME_CHARS {
            let message = format!("must have 1 to {MAX_NAME_CHARS} characters: say what the key is for");
            return Err(StoreError::field("name", "validation_length_out_of_range", message));
        }
        let wrong = |message: &str| StoreError::field("expires", "validation_invalid_value", message);
        self.expires = match self.expires.as_deref().map(str::trim) {
            None | Some("") => None,
            Some(text) => {
                let end: Timestamp =
                    text.parse().map_err(|_| wrong("must be a time such as 2027-01-31 12:00:00.000Z, or left out"))?;
                if end <= Timestamp::now() {
                    return Err(wrong("must be in the future"));
                }
                Some(ids::format_time(end.as_millisecond()))
            }
        };
        Ok(self)
    }
}

/// A secret for a new key, and the hash of it that is stored.
pub fn new_secret() -> (String, String) {
    let secret = format!("{PREFIX}{}", hex(&rand::random::<[u8; 32]>()));
    let hash = hash(&secret);
    (secret, hash)
}

/// Stores a key.
pub fn create(conn: &Connection, wanted: &NewKey, hash: &str) -> Result<ApiKey, StoreError> {
    let count: u32 = conn.query_row("SELECT count(*) FROM _api_keys", [], |row| row.get(0))?;
    if count >= MAX_KEYS {
        return Err(StoreError::Invalid(format!("there are {MAX_KEYS} API keys already: revoke some first")));
    }
    let key = ApiKey {
        id: ids::record_id(),
        name: wanted.name.clone(),
        kind: wanted.kind,
        expires: wanted.expires.clone().unwrap_or_default(),
        created: ids::now(),
    };
    let sql = "INSERT INTO _api_keys (id, name, kind, hash, expires, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let kind = match key.kind {
        KeyKind::Full => "full",
        KeyKind::ReadOnly => "read-only",
    };
    conn.prepare_cached(sql)?.execute(params![key.id, key.name, kind, hash, key.expires, key.created])?;
    Ok(key)
}

/// All of them, the oldest first.
pub fn list(conn: &Connection) -> Result<Vec<ApiKey>, StoreError> {
    if !conn.table_exists(None, "_api_keys")? {
        return Ok(Vec::new());
    }
    let mut statement = conn.prepare_cached("SELECT id, name, kind, expires, created FROM _api_keys ORDER BY id")?;
    Ok(statement.query_map([], from_row)?.collect::<Result<_, _>>()?)
}

/// Ends a key.
pub fn revoke(conn: &Connection, id: &str) -> Result<(), StoreError> {
    match conn.prepare_cached("DELETE FROM _api_keys WHERE id = ?1")?.execute([id])? {
        0 => Err(StoreError::NotFound(format!("there is no API key {id:?}"))),
        _ => Ok(()),
    }
}

/// The key that somebody shows, unless it has ended.
pub fn find(conn: &Connection, secret: &str) -> Result<Option<ApiKey>, StoreError> {
    // A replica of an older master has no such table yet.
    if !secret.starts_with(PREFIX) || !conn.table_exists(None, "_api_keys")? {
        return Ok(None);
    }
    let wanted = hash(secret);
    let sql = "SELECT id, name, kind, expires, created, hash FROM _api_keys WHERE hash = ?1";
    let row = |row: &Row<'_>| Ok((from_row(row)?, row.get::<_, String>(5)?));
    let found = conn.prepare_cached(sql)?.query_row([&wanted], row).optional()?;
    let valid = |key: &ApiKey| key.expires.is_empty() || key.expires.as_str() > ids::now().as_str();
    Ok(found.filter(|(key, stored)| equal(stored, &wanted) && valid(key)).map(|(key, _)| key))
}

fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret))
}

/// A kind that was edited by hand may be anything, and then allows the least.
fn from_row(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    let kind: String = row.get(2)?;
    let kind = if kind == "full" { KeyKind::Full } else { KeyKind::ReadOnly };
    Ok(ApiKey { id: row.get(0)?, name: row.get(1)?, kind, expires: row.get(3)?, created: row.get(4)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        TABLES.iter().for_each(|sql| conn.execute_batch(sql).unwrap());
        conn
    }

    fn wanted(kind: KeyKind, expires: Option<&str>) -> NewKey {
        NewKey { name: " backup ".into(), kind, expires: expires.map(str::to_owned) }
    }

    #[test]
    fn a_key_is_found_by_its_secret_until_it_is_revoked_and_only_its_hash_is_stored() {
        let conn = database();
        let (secret, hash) = new_secret();
        assert!(secret.starts_with(PREFIX) && secret.len() == PREFIX.len() + 64);
        let key = create(&conn, &wanted(KeyKind::ReadOnly, None).checked().unwrap(), &hash).unwrap();
        assert_eq!(key.name, "backup");
        assert_eq!(find(&conn, &secret).unwrap().as_ref(), Some(&key));
        assert_eq!(list(&conn).unwrap(), std::slice::from_ref(&key));
        for wrong in ["", PREFIX, &secret[PREFIX.len()..], &format!("{secret}0"), &hash] {
            assert_eq!(find(&conn, wrong).unwrap(), None, "{wrong}");
        }
        let stored: String = conn.query_row("SELECT hash FROM _api_keys", [], |row| row.get(0)).unwrap();
        assert!(!secret.contains(&stored));
        revoke(&conn, &key.id).unwrap();
        assert_eq!(find(&conn, &secret).unwrap(), None);
        assert!(matches!(revoke(&conn, &key.id), Err(StoreError::NotFound(_))));
    }

    #[test]
    fn a_key_that_has_ended_opens_nothing() {
        let conn = database();
        let (secret, hash) = new_secret();
        create(&conn, &wanted(KeyKind::Full, Some("2999-01-31T12:00:00Z")).checked().unwrap(), &hash).unwrap();
        assert_eq!(find(&conn, &secret).unwrap().unwrap().expires, "2999-01-31 12:00:00.000Z");
        conn.execute("UPDATE _api_keys SET expires = '2020-01-31 12:00:00.000Z'", []).unwrap();
        assert_eq!(find(&conn, &secret).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_a_key_is_refused_and_a_node_without_the_table_knows_none() {
        for expires in ["tomorrow", "2020-01-31 12:00:00.000Z"] {
            assert!(wanted(KeyKind::Full, Some(expires)).checked().is_err(), "{expires}");
        }
        assert!(NewKey { name: " ".into(), ..wanted(KeyKind::Full, None) }.checked().is_err());
        let conn = Connection::open_in_memory().unwrap();
        assert_eq!(find(&conn, &new_secret().0).unwrap(), None);
        assert_eq!(list(&conn).unwrap(), []);
    }

    #[test]
    fn a_kind_that_nobody_knows_allows_the_least() {
        let conn = database();
        let (secret, hash) = new_secret();
        create(&conn, &wanted(KeyKind::Full, None).checked().unwrap(), &hash).unwrap();
        conn.execute("UPDATE _api_keys SET kind = 'everything'", []).unwrap();
        assert_eq!(find(&conn, &secret).unwrap().unwrap().kind, KeyKind::ReadOnly);
    }
}
