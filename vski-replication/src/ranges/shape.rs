//! A table as ranges see it: reads its rows in the order of their key, encoded, and writes encoded rows back.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::value::{bound, decode, encode_column, encode_value, owned, unusable};
use super::{Hex, MAX_RANGE_BYTES, Range, RangesHasher, RowError, TableDigest, is_cut, row_hash};
use crate::schema::sql::quote_name;

/// How a table's rows are read and written: its stored columns, and which of them are the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    table: String,
    /// Stored columns in order; generated ones are computed anew on each node.
    columns: Vec<String>,
    /// The key's columns in the key's order, as indexes into `columns`.
    key: Vec<usize>,
}

impl Shape {
    /// The shape of a table that passed the gate.
    pub fn read(conn: &Connection, table: &str) -> rusqlite::Result<Self> {
        let mut statement =
            conn.prepare_cached("SELECT name, pk FROM pragma_table_xinfo(?1) WHERE hidden = 0 ORDER BY cid")?;
        let found: Vec<(String, i64)> =
            statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let mut key: Vec<usize> = (0..found.len()).filter(|&at| found[at].1 > 0).collect();
        key.sort_by_key(|&at| found[at].1);
        let columns = found.into_iter().map(|(name, _)| name).collect();
        Ok(Self { table: table.to_owned(), columns, key })
    }

    /// Whether its rows can be put in order, which is so for all tables that passed the gate.
    #[must_use]
    pub fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    /// The table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Cuts the whole table into ranges and hands them out one by one, each with its rows' hashes. Reads every row once.
    pub fn cut(
        &self,
        conn: &Connection,
        mut put: impl FnMut(&Range, &[u8]) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<TableDigest> {
        let (mut table, mut hashes, mut rows, mut bytes) = (RangesHasher::default(), Vec::new(), 0, 0);
        let mut close = |end: Option<&[u8]>, rows: u64, hashes: &mut Vec<u8>| -> rusqlite::Result<()> {
            let hash = Hex(blake3::hash(hashes).as_bytes().to_vec());
            let range = Range { end: end.map(|key| Hex(key.to_vec())), rows, hash };
            table.add(&range);
            put(&range, hashes)?;
            hashes.clear();
            Ok(())
        };
        self.scan(conn, None, None, |key, row| {
            hashes.extend(row_hash(row));
            (rows, bytes) = (rows + 1, bytes + row.len());
            if is_cut(key) || bytes >= MAX_RANGE_BYTES {
                close(Some(key), rows, &mut hashes)?;
                (rows, bytes) = (0, 0);
            }
            Ok(true)
        })?;
        close(None, rows, &mut hashes)?;
        Ok(table.finish(&self.table))
    }

    /// Visits the rows after `start` up to and including `end`, in key order, while `visit` says `true`: key and row,
    /// both encoded.
    pub fn scan(
        &self,
        conn: &Connection,
        start: Option<&Hex>,
        end: Option<&Hex>,
        mut visit: impl FnMut(&[u8], &[u8]) -> rusqlite::Result<bool>,
    ) -> rusqlite::Result<()> {
        let all = self.names(0..self.columns.len());
        let (filter, values) = self.between(start, end)?;
        let key = self.names(self.key.iter().copied());
        let sql = format!("SELECT {all} FROM {} {filter} ORDER BY {key}", quote_name(&self.table));
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let (mut key, mut encoded) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            key.clear();
            encoded.clear();
            self.key.iter().try_for_each(|&at| encode_column(row, at, &mut key))?;
            (0..self.columns.len()).try_for_each(|at| encode_column(row, at, &mut encoded))?;
            if !visit(&key, &encoded)? {
                break;
            }
        }
        Ok(())
    }

    /// The encoded keys of the rows at `places` (sorted) after `start` up to and including `end`. Rows are only counted
    /// on the way there, which is several times cheaper than reading them.
    pub fn keys_at(
        &self,
        conn: &Connection,
        start: Option<&Hex>,
        end: Option<&Hex>,
        places: &[usize],
    ) -> rusqlite::Result<Vec<Vec<u8>>> {
        let (filter, values) = self.between(start, end)?;
        let key = self.names(self.key.iter().copied());
        let sql = format!("SELECT {key} FROM {} {filter} ORDER BY {key}", quote_name(&self.table));
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let (mut found, mut next) = (Vec::new(), 0);
        for &place in places {
            while next < place && rows.next()?.is_some() {
                next += 1;
            }
            let Some(row) = rows.next()? else { break };
            next += 1;
            let mut key = Vec::new();
            (0..self.key.len()).try_for_each(|at| encode_column(row, at, &mut key))?;
            found.push(key);
        }
        Ok(found)
    }

    /// Appends the row with an encoded key, encoded, to `out`; `false` if there is none.
    pub fn row(&self, conn: &Connection, key: &[u8], out: &mut Vec<u8>) -> rusqlite::Result<bool> {
        let all = self.names(0..self.columns.len());
        let sql = format!("SELECT {all} FROM {} WHERE {}", quote_name(&self.table), self.is_key());
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query(bound(decode(key).map_err(unusable)?))?;
        let Some(row) = rows.next()? else { return Ok(false) };
        (0..self.columns.len()).try_for_each(|at| encode_column(row, at, out))?;
        Ok(true)
    }

    /// How many rows there are after `start` up to and including `end`.
    pub fn count(&self, conn: &Connection, start: Option<&Hex>, end: Option<&Hex>) -> rusqlite::Result<u64> {
        let (filter, values) = self.between(start, end)?;
        let sql = format!("SELECT count(*) FROM {} {filter}", quote_name(&self.table));
        let count: i64 = conn.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    fn names(&self, at: impl Iterator<Item = usize>) -> String {
        at.map(|at| quote_name(&self.columns[at])).collect::<Vec<_>>().join(", ")
    }

    fn is_key(&self) -> String {
        let parts: Vec<_> = self.key.iter().map(|&at| format!("{} = ?", quote_name(&self.columns[at]))).collect();
        parts.join(" AND ")
    }

    /// The condition for rows after `start` up to and including `end`, and its values.
    fn between(&self, start: Option<&Hex>, end: Option<&Hex>) -> rusqlite::Result<(String, Vec<Value>)> {
        let (key, marks) = (self.names(self.key.iter().copied()), vec!["?"; self.key.len()].join(", "));
        let (mut conditions, mut values) = (Vec::new(), Vec::new());
        for (bound, operator) in [(start, ">"), (end, "<=")] {
            if let Some(bound) = bound {
                conditions.push(format!("({key}) {operator} ({marks})"));
                values.extend(decode(&bound.0).map_err(unusable)?.into_iter().map(owned));
            }
        }
        let filter = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
        Ok((filter, values))
    }

    /// The key of an encoded row, encoded.
    pub fn key_of(&self, row: &[u8]) -> Result<Vec<u8>, RowError> {
        let values = self.values(row)?;
        let mut key = Vec::new();
        self.key.iter().for_each(|&at| encode_value(values[at], &mut key));
        Ok(key)
    }

    /// Adds an encoded row. A row of that key must not exist.
    pub fn insert(&self, conn: &Connection, row: &[u8]) -> rusqlite::Result<()> {
        let values = self.values(row).map_err(unusable)?;
        let names = self.names(0..self.columns.len());
        let marks = vec!["?"; values.len()].join(", ");
        let sql = format!("INSERT INTO {} ({names}) VALUES ({marks})", quote_name(&self.table));
        conn.prepare_cached(&sql)?.execute(bound(values)).map(|_| ())
    }

    /// Removes the row with an encoded key.
    pub fn delete(&self, conn: &Connection, key: &[u8]) -> rusqlite::Result<usize> {
        let sql = format!("DELETE FROM {} WHERE {}", quote_name(&self.table), self.is_key());
        conn.prepare_cached(&sql)?.execute(bound(decode(key).map_err(unusable)?))
    }

    /// The columns and values of an encoded row.
    pub fn named<'a>(&'a self, row: &'a [u8]) -> Result<Vec<(&'a str, ValueRef<'a>)>, RowError> {
        Ok(self.columns.iter().map(String::as_str).zip(self.values(row)?).collect())
    }

    fn values<'a>(&self, row: &'a [u8]) -> Result<Vec<ValueRef<'a>>, RowError> {
        let values = decode(row)?;
        if values.len() == self.columns.len() { Ok(values) } else { Err(RowError) }
    }
}
