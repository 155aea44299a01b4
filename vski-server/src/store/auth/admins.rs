//! Admins: rows of `_superusers` in the default database, replicated, so that a login works on every node.
//!
//! A login writes nothing. A token carries a digest of the admin's token key; a new password makes a new key, which
//! ends all older tokens.

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;

use super::{check_email, new_token_key, token_digest};
use crate::config::FilterLimits;
use crate::store::collections::Collection;
use crate::store::error::{NOT_UNIQUE, StoreError};
use crate::store::query::own;
use crate::store::{ids, passwords};

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

const SELECT: &str = "SELECT id, email, created, updated, tokenKey, passwordHash FROM _superusers";

/// An admin, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
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
        token_digest(&self.token_key)
    }
}

/// Checks an address and a password before anything is hashed or stored.
pub fn check(email: &str, password: &str) -> Result<(), StoreError> {
    check_email(email)?;
    passwords::check(password)
}

/// Makes an admin. Its address must be a new one.
pub fn create(conn: &Connection, email: &str, password_hash: &str) -> Result<Admin, StoreError> {
    if by_email(conn, email)?.is_some() {
        return Err(taken(email));
    }
    upsert(conn, email, password_hash)
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

/// What a list of admins can be asked for: never their secrets.
static TABLE: LazyLock<Collection> = LazyLock::new(|| own::table("_superusers", &["email"]));

/// Which admins are wanted, and in which order: as with records, the oldest first if `sort` is blank.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// A filter of `id`, `email`, `created` and `updated`.
    pub filter: String,
    /// Keys of the same.
    pub sort: String,
    /// How much these may ask for.
    pub limits: FilterLimits,
}

/// A page of admins, and how many there are in all.
pub fn list(conn: &Connection, wanted: &Wanted, page: u64, per_page: u64) -> Result<(Vec<Admin>, u64), StoreError> {
    let sort = if wanted.sort.trim().is_empty() { "created" } else { &wanted.sort };
    let found = own::select(conn, &TABLE, &wanted.filter, sort, wanted.limits)?;
    let bound = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let page = found.iter().skip(bound((page - 1).saturating_mul(per_page))).take(bound(per_page));
    let admins = page.map(|id| view(conn, id)).collect::<Result<_, _>>()?;
    Ok((admins, u64::try_from(found.len()).unwrap_or(u64::MAX)))
}

/// The admin with this id; the error is the answer to whoever asked for it.
pub fn view(conn: &Connection, id: &str) -> Result<Admin, StoreError> {
    by_id(conn, id)?.ok_or_else(|| StoreError::NotFound(format!("there is no admin {id:?}")))
}

/// Gives an admin another address, another password, or both. Either ends its tokens.
pub fn update(
    conn: &Connection,
    id: &str,
    email: Option<&str>,
    password_hash: Option<&str>,
) -> Result<Admin, StoreError> {
    let old = view(conn, id)?;
    let email = email.unwrap_or(&old.email);
    if by_email(conn, email)?.is_some_and(|other| other.id != id) {
        return Err(taken(email));
    }
    let changed = email != old.email || password_hash.is_some();
    let key = if changed { new_token_key() } else { old.token_key };
    let hash = password_hash.unwrap_or(&old.password_hash);
    let sql = "UPDATE _superusers SET email = ?2, passwordHash = ?3, tokenKey = ?4, updated = ?5 WHERE id = ?1";
    conn.prepare_cached(sql)?.execute([id, email, hash, &key, &ids::now()])?;
    view(conn, id)
}

/// Removes an admin, but never the last: nobody could log in any more.
pub fn delete(conn: &Connection, id: &str) -> Result<(), StoreError> {
    view(conn, id)?;
    let count: i64 = conn.query_row("SELECT count(*) FROM _superusers", [], |row| row.get(0))?;
    if count <= 1 {
        return Err(StoreError::Invalid("this is the last admin: make another one first".to_owned()));
    }
    conn.prepare_cached("DELETE FROM _superusers WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Whether the password is this admin's. Without an admin it takes as long, so that nobody learns who exists.
pub fn verify_password(admin: Option<&Admin>, password: &str) -> bool {
    passwords::verify(admin.map(|admin| admin.password_hash.as_str()), password)
}

fn taken(email: &str) -> StoreError {
    StoreError::field("email", NOT_UNIQUE, format!("an admin {email} exists already"))
}

fn find(conn: &Connection, condition: &str, value: &str) -> Result<Option<Admin>, StoreError> {
    Ok(conn.prepare_cached(&format!("{SELECT} WHERE {condition}"))?.query_row([value], from_row).optional()?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::passwords::hash as hash_password;

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        TABLES.iter().for_each(|sql| conn.execute_batch(sql).unwrap());
        conn
    }

    #[test]
    fn only_the_right_password_of_an_existing_admin_opens() {
        let conn = database();
        upsert(&conn, "Ann@example.com", &hash_password("correct horse").unwrap()).unwrap();
        let ann = by_email(&conn, "ann@EXAMPLE.com").unwrap().unwrap();
        assert!(verify_password(Some(&ann), "correct horse"));
        assert!(!verify_password(Some(&ann), "wrong horse"));
        assert!(!verify_password(None, "correct horse"));
    }

    #[test]
    fn a_new_password_changes_the_digest_that_tokens_carry() {
        let conn = database();
        let first = upsert(&conn, "a@b", "h1").unwrap();
        let second = upsert(&conn, "A@b", "h2").unwrap();
        assert_eq!(first.id, second.id);
        assert_ne!(first.token_digest(), second.token_digest());
    }

    #[test]
    fn an_admins_tokens_end_with_another_address_and_outlive_an_update_that_changes_nothing() {
        let conn = database();
        let ann = create(&conn, "ann@x", "h").unwrap();
        let same = update(&conn, &ann.id, Some("ann@x"), None).unwrap();
        assert_eq!(same.token_digest(), ann.token_digest());
        let other = update(&conn, &ann.id, Some("anne@x"), None).unwrap();
        assert_ne!(other.token_digest(), ann.token_digest());
        assert!(update(&conn, "nobody", Some("b@x"), None).is_err());
    }

    #[test]
    fn two_admins_never_share_an_address_and_the_last_one_stays() {
        let conn = database();
        let ann = create(&conn, "ann@x", "h").unwrap();
        assert!(matches!(create(&conn, "ANN@x", "h"), Err(StoreError::Fields(_))));
        let bob = create(&conn, "bob@x", "h").unwrap();
        assert!(matches!(update(&conn, &bob.id, Some("Ann@x"), None), Err(StoreError::Fields(_))));
        assert_eq!(list(&conn, &Wanted::default(), 2, 1).unwrap(), (vec![bob.clone()], 2));
        delete(&conn, &ann.id).unwrap();
        assert!(matches!(delete(&conn, &ann.id), Err(StoreError::NotFound(_))));
        assert!(matches!(delete(&conn, &bob.id), Err(StoreError::Invalid(_))));
    }

    #[test]
    fn admins_are_found_and_sorted_by_what_may_be_known_of_them() {
        let conn = database();
        for email in ["bob@x", "ann@x", "cid@y"] {
            create(&conn, email, "h").unwrap();
        }
        let found = |filter: &str, sort: &str| {
            let wanted = Wanted { filter: filter.into(), sort: sort.into(), ..Wanted::default() };
            list(&conn, &wanted, 1, 9).map(|(found, _)| found.into_iter().map(|admin| admin.email).collect::<Vec<_>>())
        };
        assert_eq!(found("", "-email").unwrap(), ["cid@y", "bob@x", "ann@x"]);
        assert_eq!(found("email ~ '@x'", "email").unwrap(), ["ann@x", "bob@x"]);
        assert_eq!(found("email = 'cid@y' || email = 'ann@x'", "email").unwrap(), ["ann@x", "cid@y"]);
        for (filter, sort) in [
            ("tokenKey != ''", ""),
            ("passwordHash ~ 'h'", ""),
            ("email = ", ""),
            ("", "tokenKey"),
            ("@collection._superusers.id != ''", ""),
        ] {
            assert!(found(filter, sort).is_err(), "{filter} {sort}");
        }
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
