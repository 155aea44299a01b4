//! The list of collections.

use std::collections::HashMap;
use std::sync::LazyLock;

use rusqlite::Connection;

use super::{Catalogue, Collection};
use crate::config::FilterLimits;
use crate::store::error::StoreError;
use crate::store::query::own;

/// What a list of collections can be asked for.
static TABLE: LazyLock<Collection> = LazyLock::new(|| own::table("_collections", &["name", "type"]));

/// Collections that the filter finds, in the order of `sort`, by name unless it says otherwise.
pub fn select(
    conn: &Connection,
    filter: &str,
    sort: &str,
    limits: FilterLimits,
) -> Result<Vec<Collection>, StoreError> {
    let catalogue = Catalogue::load(conn)?;
    let sort = if sort.trim().is_empty() { "name" } else { sort };
    let found = own::select(conn, &TABLE, filter, sort, limits)?;
    // Rows of deleted collections, and those that cannot be read, are not in the catalogue.
    let usable: HashMap<&str, &Collection> = catalogue.iter().map(|usable| (usable.id.as_str(), usable)).collect();
    Ok(found.iter().filter_map(|id| usable.get(id.as_str()).map(|found| (*found).clone())).collect())
}
