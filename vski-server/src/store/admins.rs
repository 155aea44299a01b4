//! Admins: rows of `_superusers` in the default database, replicated, so that a login works on every node.
//!
//! A login writes nothing. A token carries a digest of the admin's token key; a new password makes a new key, which
//! ends all older tokens.

use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;
use sha2::{Digest, Sha256};
use vski_replication::position::hex;

use super::error::StoreError;
use super::ids;

/// The statements that make the table of a new default database.
pub const TABLES: [&str; 2] = [
    "CREATE TABLE _superusers (
        id TEXT PRIMARY KEY NOT NULL,
        email TEXT NOT NULL,
        passwordHash TEXT NOT NULL,
        tokenKey TEXT NOT NULL,
        created TEXT NOT NULL,
        updated TEXT NOT NULL
    )",
    "CREATE UNIQUE INDEX _superusers_email ON _superusers (email COLLATE NOCASE)",
];

/// Shortest password, characters (PocketBase's).
pub const MIN_PASSWORD_CHARS: usize = 8;

/// Longest, bytes: argon2 reads all of it.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// An admin, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Admin {
    /// The record id.
    pub id: String,
    /// The address to log in with.
    pub email: String,
    /// When it was made.
    pub created: String,
    /// When it was last changed.
    pub updated: String,
    /// What tokens are tied to.
    #[serde(skip)]
    pub token_key: String,
    #[serde(skip)]
    password_hash: String,
}

impl Admin {
    /// The digest that tokens carry.
    pub fn token_digest(&self) -> String {
        hex(&Sha256::digest(&self.token_key)[..8])
    }
}

/// Checks an address and a password before anything is hashed or stored.
pub fn check(email: &str, password: &str) -> Result<(), StoreError> {
    let plausible = email.len() <= 254
        && email
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
        && !email.chars().any(|c| c.is_whitespace() || c.is_control());
    if !plausible {
        return Err(StoreError::field("email", "validation_is_email", "must be an email address"));
    }
    if password.chars().count() < MIN_PASSWORD_CHARS || password.len() > MAX_PASSWORD_BYTES {
        let message = format!("must have {MIN_PASSWORD_CHARS} characters or more, at most {MAX_PASSWORD_BYTES} bytes");
        return Err(StoreError::field("password", "validation_length_out_of_range", message));
    }
    Ok(())
}

/// The argon2id hash of a password. Takes tens of milliseconds: not for an async thread.
pub fn hash_password(password: &str) -> Result<String, StoreError> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(|error| StoreError::Invalid(format!("hash the password: {error}")))?.to_string())
}

/// Makes an admin, or gives an existing one a new password, which ends its tokens.
pub fn upsert(conn: &Connection, email: &str, password_hash: &str) -> Result<Admin, StoreError> {
    let (now, key) = (ids::now(), new_token_key());
    let sql = "INSERT INTO _superusers (id, email, passwordHash, tokenKey, created, updated)
        VALUES (?1, ?2, ?3, ?4, ?5, ?5)
        ON CONFLICT (email COLLATE NOCASE) DO UPDATE SET passwordHash = ?3, tokenKey = ?4, updated = ?5";
    conn.prepare_cached(sql)?.execute([ids::record_id().as_str(), email, password_hash, &key, &now])?;
    by_email(conn, email)?.ok_or_else(|| StoreError::NotFound(format!("there is no admin {email}")))
}

/// Whether there is any.
pub fn any(conn: &Connection) -> Result<bool, StoreError> {
    Ok(conn.query_row("SELECT EXISTS (SELECT 1 FROM _superusers)", [], |row| row.get(0))?)
}

/// The admin with this address, in any case of letters.
pub fn by_email(conn: &Connection, email: &str) -> Result<Option<Admin>, StoreError> {
    find(conn, "email = ?1 COLLATE NOCASE", email)
}

/// The admin with this id.
pub fn by_id(conn: &Connection, id: &str) -> Result<Option<Admin>, StoreError> {
    find(conn, "id = ?1", id)
}

/// Whether the password is this admin's. Without an admin it takes as long, so that nobody learns who exists.
pub fn verify_password(admin: Option<&Admin>, password: &str) -> bool {
    static NOBODY: LazyLock<String> = LazyLock::new(|| hash_password("no such admin").unwrap_or_default());
    if password.len() > MAX_PASSWORD_BYTES {
        return false;
    }
    let stored = admin.map_or(NOBODY.as_str(), |admin| &admin.password_hash);
    let matches = PasswordHash::new(stored)
        .is_ok_and(|stored| Argon2::default().verify_password(password.as_bytes(), &stored).is_ok());
    matches && admin.is_some()
}

fn find(conn: &Connection, condition: &str, value: &str) -> Result<Option<Admin>, StoreError> {
    let sql = format!("SELECT id, email, created, updated, tokenKey, passwordHash FROM _superusers WHERE {condition}");
    Ok(conn.prepare_cached(&sql)?.query_row([value], from_row).optional()?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Admin> {
    Ok(Admin {
        id: row.get(0)?,
        email: row.get(1)?,
        created: row.get(2)?,
        updated: row.get(3)?,
        token_key: row.get(4)?,
        password_hash: row.get(5)?,
    })
}

/// A key for tokens to be tied to.
pub(super) fn new_token_key() -> String {
    hex(&rand::random::<[u8; 24]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_of_an_existing_admin_opens() {
        let conn = Connection::open_in_memory().unwrap();
        TABLES.iter().for_each(|sql| conn.execute_batch(sql).unwrap());
        upsert(&conn, "Ann@example.com", &hash_password("correct horse").unwrap()).unwrap();
        let ann = by_email(&conn, "ann@EXAMPLE.com").unwrap().unwrap();
        assert!(verify_password(Some(&ann), "correct horse"));
        assert!(!verify_password(Some(&ann), "wrong horse"));
        assert!(!verify_password(None, "correct horse"));
    }

    #[test]
    fn a_new_password_changes_the_digest_that_tokens_carry() {
        let conn = Connection::open_in_memory().unwrap();
        TABLES.iter().for_each(|sql| conn.execute_batch(sql).unwrap());
        let first = upsert(&conn, "a@b", "h1").unwrap();
        let second = upsert(&conn, "A@b", "h2").unwrap();
        assert_eq!(first.id, second.id);
        assert_ne!(first.token_digest(), second.token_digest());
    }

    #[test]
    fn bad_addresses_and_short_passwords_are_refused() {
        for (email, password) in
            [("", "12345678"), ("a", "12345678"), ("a@", "12345678"), ("a b@c", "12345678"), ("a@b", "1234567")]
        {
            assert!(check(email, password).is_err(), "{email} {password}");
        }
        check("admin@example.com", "12345678").unwrap();
    }
}
