//! All usable collections of one database, in memory, cached by the content of the catalogue's rows: neither an edit by hand
//! nor a replicated entry needs to tell anybody.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};

use rusqlite::Connection;

use super::rows::{self, Unreadable};
use super::{Collection, seen};
use crate::store::error::StoreError;
use crate::store::fields::{Field, FieldKind};

/// Catalogues that are kept: of all databases, and a few of their pasts.
const KEPT: usize = 64;

/// Names of all password fields that this process has seen, of all collections.
static PASSWORDS: LazyLock<RwLock<HashSet<String>>> = LazyLock::new(RwLock::default);

static KNOWN: LazyLock<Mutex<HashMap<[u8; 32], Arc<Catalogue>>>> = LazyLock::new(Mutex::default);

/// The collections of one database that can be used.
#[derive(Default)]
pub struct Catalogue {
    /// By name.
    collections: Vec<Collection>,
    /// Rows that cannot be read.
    unusable: Vec<Unreadable>,
    /// Where a name in small letters, or an id, stands in `collections`.
    places: HashMap<String, usize>,
}

impl Catalogue {
    /// The catalogue as this connection sees it. Cheap: rows are parsed only where they differ from all known ones.
    pub fn load(conn: &Connection) -> Result<Arc<Self>, StoreError> {
        if let Some(catalogue) = seen::catalogue(conn) {
            return Ok(catalogue);
        }
        let catalogue = Self::look_up(conn)?;
        seen::keep(conn, &catalogue);
        Ok(catalogue)
    }

    fn look_up(conn: &Connection) -> Result<Arc<Self>, StoreError> {
        let digest = *rows::digest(conn)?.as_bytes();
        let known = |digest| KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
        if let Some(catalogue) = known(&digest) {
            return Ok(catalogue);
        }
        let catalogue = Arc::new(Self::read(conn)?);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(digest, Arc::clone(&catalogue));
        Ok(catalogue)
    }

    /// A catalogue of these collections.
    #[must_use]
    pub fn new(mut collections: Vec<Collection>) -> Self {
        collections.sort_by(|a, b| a.name.cmp(&b.name));
        let is_password = |field: &&Field| matches!(field.kind, FieldKind::Password { .. });
        let passwords = collections.iter().flat_map(|collection| collection.fields.iter().filter(is_password));
        PASSWORDS.write().unwrap_or_else(PoisonError::into_inner).extend(passwords.map(|field| field.name.clone()));
        let mut places = HashMap::new();
        for (at, collection) in collections.iter().enumerate() {
            places.entry(collection.id.clone()).or_insert(at);
        }
        for (at, collection) in collections.iter().enumerate() {
            places.insert(collection.name.to_ascii_lowercase(), at);
        }
        Self { collections, unusable: Vec::new(), places }
    }

    /// Whether some collection has a password field of this name. Those of a database are known once its catalogue was read,
    /// those of a new collection once it is stored.
    #[must_use]
    pub fn knows_password(field: &str) -> bool {
        PASSWORDS.read().unwrap_or_else(PoisonError::into_inner).contains(field)
    }

    fn read(conn: &Connection) -> Result<Self, StoreError> {
        let (mut collections, mut unusable) = (Vec::new(), Vec::new());
        for collection in rows::all(conn)? {
            match collection {
                Ok(collection) if collection.deleted.is_some() => {}
                Ok(collection) => collections.push(collection),
                Err(unreadable) => {
                    let error = &unreadable.reason;
                    tracing::error!(error, "a collection cannot be used; the others are listed");
                    unusable.push(unreadable);
                }
            }
        }
        Ok(Self { unusable, ..Self::new(collections) })
    }

    /// The collection with this name, in any case of letters, or id.
    #[must_use]
    pub fn find(&self, name_or_id: &str) -> Option<&Collection> {
        let place = self.places.get(&name_or_id.to_ascii_lowercase()).or_else(|| self.places.get(name_or_id));
        place.map(|at| &self.collections[*at])
    }

    /// The collection with this name or id; the error is the answer to whoever asked for it.
    pub fn get(&self, name_or_id: &str) -> Result<&Collection, StoreError> {
        self.find(name_or_id).ok_or_else(|| {
            let is_meant = |name: &String| name.eq_ignore_ascii_case(name_or_id);
            match self.unusable.iter().find(|row| row.names.iter().any(is_meant)) {
                Some(row) => StoreError::Catalogue(row.reason.clone()),
                None => StoreError::NotFound(format!("there is no collection {name_or_id:?}")),
            }
        })
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Collection> {
        self.collections.iter()
    }

    /// The collection that a relation field points to.
    #[must_use]
    pub fn target(&self, field: &Field) -> Option<&Collection> {
        match &field.kind {
            FieldKind::Relation { collection_id, .. } => {
                self.collections.iter().find(|collection| collection.id == *collection_id)
            }
            _ => None,
        }
    }

    /// Relation fields that point to this collection, with those that have them. Views are among them: see
    /// [`Collection::is_view`].
    pub fn referrers<'a>(&'a self, collection: &'a Collection) -> impl Iterator<Item = (&'a Collection, &'a Field)> {
        let points = |field: &&Field| matches!(&field.kind, FieldKind::Relation { collection_id, .. } if *collection_id == collection.id);
        self.collections.iter().flat_map(move |from| from.visible().filter(points).map(move |field| (from, field)))
    }
}
