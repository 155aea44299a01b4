use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Row, params_from_iter};
use serde_json::Value;

use super::{ALIAS, Asking, Shape, expand, rules};
use crate::config::FilterLimits;
use crate::filter::{self, Condition, Scope, shows_email};
use crate::store::collections::{Collection, seen};
use crate::store::error::StoreError;
use crate::store::records::{Shows, columns, missing, on_table, to_json, write_json};

/// What a caller wants listed.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Which page, from 1.
    pub page: u64,
    /// Records per page.
    pub per_page: u64,
    /// Whether to count all records.
    pub count: bool,
    /// Which records.
    pub filter: Option<String>,
    /// In which order.
    pub sort: Option<String>,
    /// How much these may ask for.
    pub limits: FilterLimits,
}

/// One page of records, and how many there are in all.
#[derive(Debug)]
pub struct Page {
    /// Which page, from 1.
    pub page: u64,
    /// Records per page.
    pub per_page: u64,
    /// All records, unless the caller did not want them counted.
    pub total: Option<u64>,
    /// This page's records: a JSON array.
    pub items: Vec<u8>,
}

/// A record that was read.
#[derive(Clone, Debug)]
pub enum Found {
    /// As it is sent, where nothing is to be added and nothing to be left out.
    Text(Vec<u8>),
    /// Still to be shaped.
    Tree(Value),
}

impl Found {
    /// As text, without the records that its shape would expand.
    #[must_use]
    pub fn alone(self, shape: &Shape) -> Vec<u8> {
        match self {
            Self::Text(found) => found,
            Self::Tree(found) => text(&shape.project(found)),
        }
    }
}

/// Room for a record's text, bytes, before it has to grow.
const TEXT_BYTES: usize = 512;

/// Lists the records that the list rule shows and the filter wants.
pub fn list(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    query: &ListQuery,
    shape: &Shape,
) -> Result<Page, StoreError> {
    let scope = Scope { limits: query.limits, ..asking.scope(collection) };
    let wanted = conditions(asking, collection, query)?;
    let order = filter::order_by(query.sort.as_deref().unwrap_or_default(), &scope)
        .map_err(|error| StoreError::Invalid(format!("sort, {error}")))?;
    let total = query.count.then(|| count(conn, asking, collection, &wanted)).transpose()?;
    let mut paged = wanted;
    paged.append(&Condition::new(" ORDER BY "));
    paged.append(&order);
    paged.append(&Condition::new(" LIMIT ? OFFSET ?"));
    let offset = (query.page - 1).saturating_mul(query.per_page);
    let bounds = [query.per_page, offset].map(|bound| Sql::Integer(i64::try_from(bound).unwrap_or(i64::MAX)));
    paged.params.extend(bounds);
    let items = if shape.is_plain() {
        array(conn, asking, collection, &paged)?
    } else {
        let items = read(conn, asking, collection, &paged)?;
        let items = expand::expand(conn, asking, collection, items, &shape.expand)?;
        text(&items.into_iter().map(|item| shape.project(item)).collect())
    };
    Ok(Page { page: query.page, per_page: query.per_page, total, items })
}

/// One record that the view rule shows, as JSON text.
pub fn view(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    id: &str,
    shape: &Shape,
) -> Result<Vec<u8>, StoreError> {
    let rule = rules::condition(asking, collection, |rules| &rules.view_rule)?;
    let found = one(conn, asking, collection, &is_it(id, rule), shape)?;
    sent(conn, asking, collection, found, shape)
}

/// The same for [`Reader::now`](crate::store::reader::Reader::now): nothing where more than the one record is to be read, by
/// a view's SELECT, a rule's or for what is expanded.
pub fn look_up(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    id: &str,
    shape: &Shape,
) -> Result<Option<Vec<u8>>, StoreError> {
    let reads_more = |rule: &Condition| rule.sql.to_ascii_uppercase().contains("SELECT");
    let rule = rules::condition(asking, collection, |rules| &rules.view_rule)?;
    if collection.is_view() || shape.expands() || rule.as_ref().is_some_and(reads_more) {
        return Ok(None);
    }
    view(conn, asking, collection, id, shape).map(Some)
}

/// A record that the caller has just written, whatever the view rule says.
pub fn written(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    id: &str,
    shape: &Shape,
) -> Result<Found, StoreError> {
    one(conn, asking, collection, &is_it(id, None), shape)
}

/// The same in its shape, for an answer that has the record inside.
pub fn tree(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    id: &str,
    shape: &Shape,
) -> Result<Value, StoreError> {
    let found = one_tree(conn, asking, collection, &is_it(id, None))?;
    shaped(conn, asking, collection, found, shape)
}

/// A record that was read, in its shape, as text.
pub fn sent(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    found: Found,
    shape: &Shape,
) -> Result<Vec<u8>, StoreError> {
    match found {
        Found::Text(found) => Ok(found),
        Found::Tree(found) => Ok(text(&shaped(conn, asking, collection, found, shape)?)),
    }
}

/// A record that was read, with what is expanded, and the wanted fields.
fn shaped(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    record: Value,
    shape: &Shape,
) -> Result<Value, StoreError> {
    let mut records = expand::expand(conn, asking, collection, vec![record], &shape.expand)?;
    Ok(records.pop().map(|record| shape.project(record)).unwrap_or_default())
}

/// A record by its id.
struct Wanted<'a> {
    id: &'a str,
    condition: Condition,
}

/// The record with this id, if the rule shows it.
fn is_it(id: &str, rule: Option<Condition>) -> Wanted<'_> {
    let is_it = Condition { sql: format!("{ALIAS}.id = ?"), params: vec![Sql::Text(id.to_owned())] };
    Wanted { id, condition: Condition::all(std::iter::once(is_it).chain(rule).collect()) }
}

/// The one record that is wanted, as its shape needs it.
fn one(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    wanted: &Wanted<'_>,
    shape: &Shape,
) -> Result<Found, StoreError> {
    if !shape.is_plain() {
        return one_tree(conn, asking, collection, wanted).map(Found::Tree);
    }
    let mut found = Vec::with_capacity(TEXT_BYTES);
    let statement = select(asking, collection, &wanted.condition);
    each(conn, asking, collection, &statement, |row, shows| write_json(&mut found, collection, row, shows))?;
    if found.is_empty() { Err(missing(collection, wanted.id)) } else { Ok(Found::Text(found)) }
}

fn one_tree(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    wanted: &Wanted<'_>,
) -> Result<Value, StoreError> {
    read(conn, asking, collection, &wanted.condition)?.pop().ok_or_else(|| missing(collection, wanted.id))
}

fn conditions(asking: Asking<'_>, collection: &Collection, query: &ListQuery) -> Result<Condition, StoreError> {
    let rule = rules::condition(asking, collection, |rules| &rules.list_rule)?;
    let filter = match query.filter.as_deref().filter(|text| !text.trim().is_empty()) {
        None => None,
        Some(text) => {
            let scope = Scope { limits: query.limits, ..asking.scope(collection) };
            let compiled = filter::parse_sent(text, query.limits).and_then(|expr| filter::compile(&expr, text, &scope));
            Some(compiled.map_err(|error| StoreError::Invalid(format!("filter, {error}")))?)
        }
    };
    Ok(Condition::all(rule.into_iter().chain(filter).collect()))
}

/// How many there are. Counted once for as long as nobody commits.
fn count(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    wanted: &Condition,
) -> Result<u64, StoreError> {
    let sql = format!("SELECT count(*) FROM {} AS {ALIAS} WHERE {}", collection.source(), wanted.sql);
    let statement = Condition { sql, params: wanted.params.clone() };
    let run = |Condition { sql, params }: &Condition| {
        let counted: i64 = on_table(conn, collection, sql, |statement| {
            statement.query_row(params_from_iter(params), |row| row.get(0))
        })?;
        Ok(u64::try_from(counted).unwrap_or(0))
    };
    if is_fixed(asking, &statement) { seen::counted(conn, statement, run) } else { run(&statement) }
}

/// Whether a statement gives the same until somebody commits. A view's SELECT, and a random order, may give something else
/// each time.
fn is_fixed(asking: Asking<'_>, Condition { sql, .. }: &Condition) -> bool {
    let reads_view = || asking.catalogue.iter().any(|other| other.is_view() && sql.contains(&*other.source()));
    !sql.contains("random()") && !reads_view()
}

/// Records that satisfy `wanted`, which may end in an order and bounds; without what this caller may not see of them.
pub(super) fn read(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    wanted: &Condition,
) -> Result<Vec<Value>, StoreError> {
    let mut records = Vec::new();
    each(conn, asking, collection, &select(asking, collection, wanted), |row, shows| {
        let mut record = to_json(collection, row)?;
        if let Value::Object(record) = &mut record {
            if !shows.hidden {
                collection.hide(record);
            }
            if !shows.email && collection.is_auth() {
                record.shift_remove("email");
            }
        }
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

/// The same as the text of a JSON array. Read once for as long as nobody commits.
fn array(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    wanted: &Condition,
) -> Result<Vec<u8>, StoreError> {
    let read = |statement: &Condition| {
        let mut items = Vec::with_capacity(16 * TEXT_BYTES);
        items.push(b'[');
        each(conn, asking, collection, statement, |row, shows| {
            if items.len() > 1 {
                items.push(b',');
            }
            write_json(&mut items, collection, row, shows)
        })?;
        items.push(b']');
        Ok(items)
    };
    let statement = select(asking, collection, wanted);
    if is_fixed(asking, &statement) { seen::page(conn, statement, asking.is_admin(), read) } else { read(&statement) }
}

/// The statement that reads the records that satisfy `wanted`, and last whether the caller may see their addresses.
fn select(asking: Asking<'_>, collection: &Collection, wanted: &Condition) -> Condition {
    let asks = collection.is_auth() && !asking.is_admin();
    let shows = if asks { shows_email(&asking.scope(collection), collection, ALIAS) } else { Condition::new("1") };
    let (columns, source) = (columns(collection), collection.source());
    let sql = format!("SELECT {columns}, {} AS _shows FROM {source} AS {ALIAS} WHERE {}", shows.sql, wanted.sql);
    let mut params = shows.params;
    params.extend(wanted.params.iter().cloned());
    Condition { sql, params }
}

/// Gives each row of a [`select`] to `take`, and what this caller may see of it.
fn each(
    conn: &Connection,
    asking: Asking<'_>,
    collection: &Collection,
    Condition { sql, params }: &Condition,
    mut take: impl FnMut(&Row<'_>, Shows) -> rusqlite::Result<()>,
) -> Result<(), StoreError> {
    let hidden = asking.is_admin();
    on_table(conn, collection, sql, |statement| {
        let shows_at = statement.column_count() - 1;
        let mut rows = statement.query(params_from_iter(params))?;
        while let Some(row) = rows.next()? {
            take(row, Shows { hidden, email: row.get(shows_at)? })?;
        }
        Ok(())
    })
}

/// As it is sent.
fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}
