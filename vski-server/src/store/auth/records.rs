//! Records of auth collections: found by what they log in with and by their tokens, and what only some may change of them.
//!
//! A record's own password and address are what opens its account, so whoever changes them shows the password that they
//! have now, unless they are an admin or the collection's manageRule lets them manage the record.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Map, Value};
use vski_replication::schema::sql::quote_name;
use vski_replication::token::{Audience, Bearer, Claims};

use super::{equal, new_token_key, token_digest};
use crate::filter;
use crate::store::collections::{Catalogue, Collection};
use crate::store::error::{FieldError, StoreError};
use crate::store::passwords;
use crate::store::query::{ALIAS, Asking, rules};
use crate::store::reader::Reader;
use crate::store::records;
use crate::store::requester::AuthRecord;

/// What a record logs in with, and what its tokens are tied to. Never shown.
pub struct Credentials {
    /// The record's id.
    pub id: String,
    /// Blank if it has no password.
    pub password_hash: String,
    token_key: String,
}

impl Credentials {
    /// The digest that tokens carry.
    pub fn token_digest(&self) -> String {
        token_digest(&self.token_key)
    }
}

/// The collection with this name or id, if its records can log in; the error is the answer to whoever asked for it.
pub fn collection<'a>(catalogue: &'a Catalogue, name: &str) -> Result<&'a Collection, StoreError> {
    let collection = catalogue.get(name)?;
    if collection.is_auth() {
        return Ok(collection);
    }
    Err(StoreError::NotFound(format!(
        "collection {} is no auth collection: its records cannot log in",
        collection.name
    )))
}

/// The credentials of the record in whose first of these fields the identity stands.
pub fn by_identity(
    conn: &Connection,
    collection: &Collection,
    fields: &[String],
    identity: &str,
) -> Result<Option<Credentials>, StoreError> {
    if identity.is_empty() {
        return Ok(None);
    }
    for name in fields {
        let Some(field) = collection.field(name).filter(|field| !field.is_secret()) else { continue };
        let column = quote_name(field.column_name());
        // As their unique indexes compare, which leave out the blank.
        let collation = if field.system && field.name == "email" { " COLLATE NOCASE" } else { "" };
        let sql = format!("{column} = ?1{collation} AND {column} != ''");
        if let Some(found) = only(conn, collection, &sql, identity)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The credentials of a record.
pub fn by_id(conn: &Connection, collection: &Collection, id: &str) -> Result<Option<Credentials>, StoreError> {
    only(conn, collection, "id = ?1", id)
}

/// The record that a token belongs to, if it still does.
pub fn by_token(conn: &Connection, claims: &Claims) -> Result<Option<AuthRecord>, StoreError> {
    let Claims { bearer: Bearer::Record, aud: Audience::User, collection: Some(collection), tk: Some(shown), .. } =
        claims
    else {
        return Ok(None);
    };
    let catalogue = Catalogue::load(conn)?;
    // By id only: another collection of the same name is another one.
    let collection = catalogue.find(collection).filter(|found| found.is_auth() && found.id == *collection);
    let Some(collection) = collection else { return Ok(None) };
    match by_id(conn, collection, &claims.sub)? {
        Some(found) if equal(shown, &found.token_digest()) => view(conn, collection, &found.id).map(Some),
        _ => Ok(None),
    }
}

/// A record as rules see it when it asks.
pub fn view(conn: &Connection, collection: &Collection, id: &str) -> Result<AuthRecord, StoreError> {
    let Value::Object(record) = records::view(conn, collection, id)? else {
        return Err(StoreError::NotFound(format!("collection {} has no record {id:?}", collection.name)));
    };
    Ok(AuthRecord { collection_id: collection.id.clone(), collection_name: collection.name.clone(), record })
}

/// Whether the collection's authRule lets a record log in, who asks as itself.
pub fn may_log_in(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    id: &str,
) -> Result<bool, StoreError> {
    fulfils(conn, asking, collection, id, collection.rules.auth_rule.as_deref())
}

/// Whether the caller may change all of a record: an admin, or whoever the collection's manageRule lets in.
pub fn manages(conn: &Connection, asking: Asking<'_>, collection: &Collection, id: &str) -> Result<bool, StoreError> {
    fulfils(conn, asking, collection, id, collection.rules.manage_rule.as_deref())
}

fn fulfils(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    id: &str,
    rule: Option<&str>,
) -> Result<bool, StoreError> {
    match filter::rule(&asking.scope(collection), collection, rule, ALIAS) {
        None => Ok(true),
        Some(condition) => rules::holds(conn, collection, id, &condition),
    }
}

/// That whoever asks for an update knows the record's password: the hash that it fits.
#[derive(Clone, Debug, Default)]
pub struct Proof(Option<String>);

impl Proof {
    /// Whether the right password was shown.
    pub fn is_given(&self) -> bool {
        self.0.is_some()
    }
}

/// Compares the `oldPassword` of an update with the record's, on a thread that may take its time.
pub async fn prove(
    reader: &Reader,
    collection: &str,
    id: &str,
    body: &Map<String, Value>,
) -> Result<Proof, StoreError> {
    let Some(Value::String(shown)) = body.get("oldPassword") else { return Ok(Proof::default()) };
    let (collection, id, shown) = (collection.to_owned(), id.to_owned(), shown.clone());
    let found = reader.read(move |conn| match Catalogue::load(conn)?.find(&collection) {
        Some(collection) if collection.is_auth() => by_id(conn, collection, &id),
        _ => Ok(None),
    });
    let hash = found.await?.map(|found| found.password_hash);
    let check = move || passwords::verify(hash.as_deref(), &shown).then_some(hash).flatten();
    passwords::run(check).await.map(Proof)
}

/// Checks what is particular about a new record of an auth collection. Runs after the insert, in its savepoint.
pub fn check_created(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    id: &str,
    body: &Map<String, Value>,
) -> Result<(), StoreError> {
    if !collection.is_auth() {
        return Ok(());
    }
    if manages(conn, asking, collection, id)? {
        return Ok(());
    }
    let mut errors = Vec::from_iter(unconfirmed(body));
    // As it was stored: `1` may be true, too.
    if view(conn, collection, id)?.record.get("verified") == Some(&Value::Bool(true)) {
        errors.push(not_verified());
    }
    if errors.is_empty() { Ok(()) } else { Err(StoreError::Fields(errors)) }
}

/// Checks what is particular about an update of an auth record, and ends its tokens where its address changes (a new
/// password does so by itself). Runs before the update, in its savepoint.
pub fn before_update(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    id: &str,
    body: &Map<String, Value>,
    proof: &Proof,
) -> Result<(), StoreError> {
    let particular = ["email", "password", "verified", "oldPassword"];
    if !collection.is_auth() || !particular.iter().any(|key| body.contains_key(*key)) {
        return Ok(());
    }
    let Some(credentials) = by_id(conn, collection, id)? else { return Ok(()) };
    let old = view(conn, collection, id)?.record;
    let manages = manages(conn, asking, collection, id)?;
    let changes = |key: &str| body.get(key).is_some_and(|new| old.get(key) != Some(new));
    let new_password = body.get("password").and_then(Value::as_str).is_some_and(|password| !password.is_empty());
    let new_email = changes("email");
    let proven = proof.0.as_deref().is_some_and(|hash| equal(hash, &credentials.password_hash));
    let mut errors = Vec::new();
    if new_password && !manages {
        errors.extend(unconfirmed(body));
    }
    let shown = body.get("oldPassword").and_then(Value::as_str).is_some_and(|shown| !shown.is_empty());
    if !proven && (shown || (!manages && (new_password || new_email))) {
        let (code, message) = if shown {
            ("validation_invalid_old_password", "is not the password that this record has now")
        } else {
            ("validation_required", "must be the present password: it is needed for a new password or address")
        };
        errors.push(FieldError { field: "oldPassword".into(), code, message: message.into() });
    }
    if !manages && changes("verified") {
        errors.push(not_verified());
    }
    if !errors.is_empty() {
        return Err(StoreError::Fields(errors));
    }
    if new_email {
        let verified = if manages { "" } else { ", verified = 0" };
        let sql = format!("UPDATE {} SET tokenKey = ?2{verified} WHERE id = ?1", quote_name(&collection.table));
        records::on_table(conn, collection, &sql, |statement| statement.execute([id, &new_token_key()]))?;
    }
    Ok(())
}

fn unconfirmed(body: &Map<String, Value>) -> Option<FieldError> {
    let again = body.get("passwordConfirm").filter(|value| !value.is_null());
    (again.is_none()).then(|| FieldError {
        field: "passwordConfirm".into(),
        code: "validation_required",
        message: "must be the password once more".into(),
    })
}

fn not_verified() -> FieldError {
    FieldError {
        field: "verified".into(),
        code: "validation_values_mismatch",
        message: "can be changed by admins, and by those whom the collection's manageRule lets in".into(),
    }
}

/// The one record that a condition with one parameter finds.
fn only(
    conn: &Connection,
    collection: &Collection,
    condition: &str,
    value: &str,
) -> Result<Option<Credentials>, StoreError> {
    let sql = format!("SELECT id, passwordHash, tokenKey FROM {} WHERE {condition}", quote_name(&collection.table));
    records::on_table(conn, collection, &sql, |statement| statement.query_row([value], from_row).optional())
}

/// What nobody ever set is NULL.
fn from_row(row: &Row<'_>) -> rusqlite::Result<Credentials> {
    let text = |at| match row.get_ref(at)? {
        ValueRef::Text(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        _ => Ok::<_, rusqlite::Error>(String::new()),
    };
    Ok(Credentials { id: text(0)?, password_hash: text(1)?, token_key: text(2)? })
}
