//! Row ranges: a table's rows in key order, cut into pieces that two nodes cut alike, each with a hash.
//!
//! A range ends after a row whose key hashes to ten zero bits (one row in about 1,000), or when it has grown to
//! `MAX_RANGE_BYTES`. So the cuts depend on content alone: an insert or delete moves at most the cuts around it. Rows are
//! hashed as typed, binary values: 'A' and 'a', 1 and 1.0, NULL and '' differ. Ranges tile the whole key space: the
//! first begins below every key, the last has no end.
//!
//! Comparing two tables takes three steps of growing detail: the table's hash, its ranges' hashes, and within ranges
//! that differ the rows' hashes. What remains are the rows that one side has and the other has not.
//!
//! No step holds more in memory than one range and one row: ranges are handed out one by one, and whoever needs all of
//! them keeps them on the disk (`RangeList`).

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};
use serde::{Deserialize, Serialize};

use crate::position::{DatabaseId, Position, SchemaHash, hex};
use crate::schema::Object;
use crate::schema::sql::quote_name;

mod list;

pub use list::{Listed, RangeList};

/// Zero bits that a key's hash begins with where a range ends.
const CUT_BITS: u32 = 10;

/// Encoded rows after which a range ends whatever its keys: bounds what one range can hold in memory.
pub const MAX_RANGE_BYTES: usize = 1 << 20;

/// Bytes of a row's hash: enough that two rows of one range never share one.
pub const ROW_HASH_BYTES: usize = 12;

/// The hash of one row.
pub type RowHash = [u8; ROW_HASH_BYTES];

impl Range {
    /// The hashes of its rows, if `bytes` are those that its own hash promised.
    pub fn row_hashes(&self, bytes: &[u8]) -> Result<Vec<RowHash>, RowError> {
        let (hashes, rest) = bytes.as_chunks::<ROW_HASH_BYTES>();
        let right =
            rest.is_empty() && hashes.len() as u64 == self.rows && *blake3::hash(bytes).as_bytes() == self.hash.0[..];
        if right { Ok(hashes.to_vec()) } else { Err(RowError) }
    }
}

/// Puts rows, or anything else with a length, one behind the other: length of 4 bytes, then the bytes.
pub fn frame(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(u32::try_from(bytes.len()).expect("a row is at most 2 GiB").to_be_bytes());
    out.extend(bytes);
}

/// The same for bytes that `write` appends, without a copy of them; nothing is added if it says `false`.
pub fn frame_with<E>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>) -> Result<bool, E> {
    let begin = out.len();
    out.extend([0; 4]);
    let written = write(out)?;
    if written {
        let length = u32::try_from(out.len() - begin - 4).expect("a row is at most 2 GiB");
        out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
    } else {
        out.truncate(begin);
    }
    Ok(written)
}

/// The frames that [`frame`] has put together.
pub fn frames(mut input: &[u8]) -> Result<Vec<&[u8]>, RowError> {
    let mut found = Vec::new();
    while !input.is_empty() {
        let (length, rest) = input.split_first_chunk().ok_or(RowError)?;
        let (bytes, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or(RowError)?;
        found.push(bytes);
        input = rest;
    }
    Ok(found)
}

/// Bytes that are no row of a table, or not those that a hash promised.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the bytes are not the rows, hashes or ranges that they should be")]
pub struct RowError;

/// How a table's rows are read and written: its stored columns, and which of them are the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    table: String,
    /// Stored columns in order; generated ones are computed anew on each node.
    columns: Vec<String>,
    /// The key's columns in the key's order, as indexes into `columns`.
    key: Vec<usize>,
}

/// One range of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The key of its last row, encoded; `None` for the table's last range.
    pub end: Option<Hex>,
    /// How many rows it has.
    pub rows: u64,
    /// BLAKE3 over its rows' hashes.
    pub hash: Hex,
}

/// Bytes that are hex digits in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hex(pub Vec<u8>);

/// What a snapshot holds: enough to see which tables differ, and to stand where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// The database's identity.
    pub database_id: DatabaseId,
    /// Where the snapshot stands.
    pub position: Position,
    /// Schema entries up to there.
    pub schema_version: u64,
    /// The schema there.
    pub schema_hash: SchemaHash,
    /// When the entry there was committed, ms since 1970.
    pub committed_ms: i64,
    /// The schema's objects.
    pub objects: Vec<Object>,
    /// Each table's content.
    pub tables: Vec<TableDigest>,
    /// BLAKE3 over everything above: see [`Overview::sealed`].
    pub digest: Hex,
}

impl Overview {
    /// Fills in the digest, once the rest is complete.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.digest = self.computed();
        self
    }

    /// Whether these are the values that were sealed.
    pub fn verify(&self) -> Result<(), RowError> {
        if self.digest == self.computed() { Ok(()) } else { Err(RowError) }
    }

    fn computed(&self) -> Hex {
        let mut rest = self.clone();
        rest.digest = Hex(Vec::new());
        let json = serde_json::to_vec(&rest).expect("plain fields always serialise");
        Hex(blake3::hash(&json).as_bytes().to_vec())
    }
}

/// The content of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDigest {
    /// Its name.
    pub name: String,
    /// How many rows it has.
    pub rows: u64,
    /// BLAKE3 over its ranges: see [`RangesHasher`].
    pub hash: Hex,
}

/// Some of a table's ranges, as a master tells them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangesPage {
    /// Neighbouring ranges in key order, at least one; the table's last one has no end.
    pub ranges: Vec<Range>,
}

/// Puts a table's hash together from its ranges, in their order.
#[derive(Default)]
pub struct RangesHasher {
    hasher: blake3::Hasher,
    rows: u64,
}

impl RangesHasher {
    /// Adds the next range.
    pub fn add(&mut self, range: &Range) {
        let end = range.end.as_ref().map_or(&[][..], |end| &end.0);
        self.hasher
            .update(&(end.len() as u64).to_be_bytes())
            .update(end)
            .update(&range.rows.to_be_bytes())
            .update(&range.hash.0);
        // The hash tells, whatever rows a wrong answer claims.
        self.rows = self.rows.saturating_add(range.rows);
    }

    /// The digest of the table, once all ranges were added.
    #[must_use]
    pub fn finish(&self, table: &str) -> TableDigest {
        let hash = Hex(self.hasher.finalize().as_bytes().to_vec());
        TableDigest { name: table.to_owned(), rows: self.rows, hash }
    }
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

fn owned(value: ValueRef<'_>) -> Value {
    value.try_into().expect("decoding checks that text is UTF-8")
}

fn unusable(error: RowError) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// Values as parameters, not copied before SQLite does.
fn bound(values: Vec<ValueRef<'_>>) -> impl rusqlite::Params {
    params_from_iter(values.into_iter().map(ToSqlOutput::Borrowed))
}

/// The hash by which one row is told from another.
#[must_use]
pub fn row_hash(row: &[u8]) -> RowHash {
    let hash = blake3::hash(row);
    *hash.as_bytes().first_chunk().expect("a BLAKE3 hash has 32 bytes")
}

fn is_cut(key: &[u8]) -> bool {
    let hash = blake3::hash(key);
    let first = hash.as_bytes().first_chunk().expect("a BLAKE3 hash has 32 bytes");
    u32::from_be_bytes(*first).leading_zeros() >= CUT_BITS
}

fn encode_column(row: &Row<'_>, at: usize, out: &mut Vec<u8>) -> rusqlite::Result<()> {
    encode_value(row.get_ref(at)?, out);
    Ok(())
}

/// Tag and value: NULL 0; integer 1, 8 bytes; real 2, 8 bytes; text 3 and blob 4, length of 4 bytes and the bytes.
fn encode_value(value: ValueRef<'_>, out: &mut Vec<u8>) {
    match value {
        ValueRef::Null => out.push(0),
        ValueRef::Integer(number) => {
            out.push(1);
            out.extend(number.to_be_bytes());
        }
        ValueRef::Real(number) => {
            out.push(2);
            // SQLite takes -0.0 and 0.0 for the same, also in a session: an update from one to the other is in no
            // changeset, so it must be no difference here either.
            out.extend((number + 0.0).to_bits().to_be_bytes());
        }
        ValueRef::Text(bytes) => encode_bytes(3, bytes, out),
        ValueRef::Blob(bytes) => encode_bytes(4, bytes, out),
    }
}

fn encode_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend(u32::try_from(bytes.len()).expect("SQLite's values are at most 2 GiB").to_be_bytes());
    out.extend(bytes);
}

fn decode(mut input: &[u8]) -> Result<Vec<ValueRef<'_>>, RowError> {
    let mut values = Vec::new();
    while let Some((tag, rest)) = input.split_first() {
        let (value, rest) = match tag {
            0 => (ValueRef::Null, rest),
            1 => rest
                .split_first_chunk()
                .map(|(b, rest)| (ValueRef::Integer(i64::from_be_bytes(*b)), rest))
                .ok_or(RowError)?,
            2 => rest
                .split_first_chunk()
                .map(|(b, rest)| (ValueRef::Real(f64::from_bits(u64::from_be_bytes(*b))), rest))
                .ok_or(RowError)?,
            3 | 4 => {
                let (length, rest) = rest.split_first_chunk().ok_or(RowError)?;
                let (bytes, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or(RowError)?;
                // Text that is not UTF-8 cannot be bound as text: such a row is refused instead of changed.
                let value = if *tag == 3 {
                    ValueRef::Text(std::str::from_utf8(bytes).map_err(|_| RowError)?.as_bytes())
                } else {
                    ValueRef::Blob(bytes)
                };
                (value, rest)
            }
            _ => return Err(RowError),
        };
        values.push(value);
        input = rest;
    }
    Ok(values)
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.as_bytes();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
        match bytes {
            Some(bytes) if digits.len() % 2 == 0 && digits.iter().all(u8::is_ascii_hexdigit) => Ok(Self(bytes)),
            _ => Err(serde::de::Error::custom("not an even number of hex digits")),
        }
    }
}

#[cfg(test)]
mod tests;
