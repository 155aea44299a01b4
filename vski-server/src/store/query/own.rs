//! Lists of the server's own tables, found and sorted by what filters of records can say. Each is as a collection with the few
//! columns that may be asked for; all others are no fields, and cannot be.

use axum::http::Method;
use rusqlite::{Connection, params_from_iter};

use super::ALIAS;
use crate::config::FilterLimits;
use crate::filter::{self, Condition, RequestInfo, Scope};
use crate::store::collections::{Catalogue, Collection};
use crate::store::error::StoreError;
use crate::store::fields::{Field, FieldKind};
use crate::store::requester::Requester;

/// A table of the server's own, with these texts beside `id`, `created` and `updated`.
#[must_use]
pub fn table(name: &str, texts: &[&str]) -> Collection {
    let fields = texts.iter().map(|text| Field::new(text, FieldKind::text())).collect();
    Collection { id: name.to_owned(), name: name.to_owned(), table: name.to_owned(), fields, ..Collection::default() }
}

/// Ids of the rows that a filter finds, all of them if it is blank, in the order of `sort`. For admins.
pub fn select(
    conn: &Connection,
    table: &Collection,
    filter: &str,
    sort: &str,
    limits: FilterLimits,
) -> Result<Vec<String>, StoreError> {
    let (catalogue, request) = (Catalogue::default(), RequestInfo::new(Requester::Admin, Method::GET));
    let scope =
        Scope { catalogue: &catalogue, collection: table, request: &request, trusted: true, alias: ALIAS, limits };
    let wanted = match filter.trim() {
        "" => Condition::new("1"),
        _ => filter::parse_sent(filter, limits)
            .and_then(|expr| filter::compile(&expr, filter, &scope))
            .map_err(|error| StoreError::Invalid(format!("filter, {error}")))?,
    };
    let order = filter::order_by(sort, &scope).map_err(|error| StoreError::Invalid(format!("sort, {error}")))?;
    let (source, params) = (table.source(), wanted.params.iter().chain(&order.params));
    let sql = format!("SELECT {ALIAS}.id FROM {source} AS {ALIAS} WHERE {} ORDER BY {}", wanted.sql, order.sql);
    Ok(conn.prepare(&sql)?.query_map(params_from_iter(params), |row| row.get(0))?.collect::<Result<_, _>>()?)
}
