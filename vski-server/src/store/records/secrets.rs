use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::store::auth::records::Proof;
use crate::store::collections::{Catalogue, Collection};
use crate::store::error::StoreError;
use crate::store::fields::{Field, FieldKind};
use crate::store::passwords;
use crate::store::reader::Reader;

/// What was found out about the passwords in a body, on threads that may take their time.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Hashes of new passwords, by field.
    hashes: BTreeMap<String, String>,
    /// That the caller knows the password that an auth record has now.
    pub proof: Proof,
}

impl Secrets {
    /// The hash of a field's password.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&str> {
        self.hashes.get(field).map(String::as_str)
    }
}

/// Hashes the passwords in bodies for a collection, on threads that are there for it: the writer's thread is for writing. A
/// password that would be refused is not hashed, and the check of the body says why.
pub async fn hash_passwords(
    reader: &Reader,
    collection: &str,
    bodies: &[&Map<String, Value>],
) -> Result<Vec<Secrets>, StoreError> {
    let none = || vec![Secrets::default(); bodies.len()];
    if !bodies.iter().any(|body| body.keys().any(|key| Catalogue::knows_password(key))) {
        return Ok(none());
    }
    let name = collection.to_owned();
    let fields =
        reader.read(move |conn| Ok(Catalogue::load(conn)?.find(&name).map(password_fields).unwrap_or_default()));
    let fields = fields.await?;
    let clear: Vec<BTreeMap<String, String>> = bodies.iter().map(|body| clear(&fields, body)).collect();
    if clear.iter().all(BTreeMap::is_empty) {
        return Ok(none());
    }
    let hash_all = |clear: BTreeMap<String, String>| {
        let hashed = clear.into_iter().map(|(field, password)| Ok((field, passwords::hash(&password)?)));
        let hashes = hashed.collect::<Result<_, StoreError>>()?;
        Ok(Secrets { hashes, proof: Proof::default() })
    };
    passwords::run(move || clear.into_iter().map(hash_all).collect()).await?
}

/// Password fields, as they check values.
fn password_fields(collection: &Collection) -> Vec<Field> {
    collection.visible().filter(|field| matches!(field.kind, FieldKind::Password { .. })).cloned().collect()
}

/// The passwords in clear that the fields take.
fn clear(fields: &[Field], body: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut clear = BTreeMap::new();
    for field in fields {
        if let Some(value @ Value::String(text)) = body.get(&field.name)
            && !text.is_empty()
            && field.to_sql(value).is_ok()
        {
            clear.insert(field.name.clone(), text.clone());
        }
    }
    clear
}
