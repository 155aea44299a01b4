//! Row ranges: a table's rows in key order, cut into pieces that two nodes cut alike, each with a hash.
//!
//! A range ends after a row whose key hashes to ten zero bits (one row in about 1,000), or when it has grown to
//! `MAX_RANGE_BYTES`. So the cuts depend on content alone: an insert or delete moves at most the cuts around it. Rows are
//! hashed as typed, binary values: 'A' and 'a', 1 and 1.0, NULL and '' differ. Ranges tile the whole key space: the
//! first begins below every key, the last has no end.
//!
//! Comparing two tables takes three steps of growing detail: the table's hash, its ranges' hashes, and within ranges
//! that differ the rows' hashes. What remains are the rows that one side has and the other has not.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};
use serde::{Deserialize, Serialize};

use crate::position::{DatabaseId, Position, SchemaHash, hex};
use crate::schema::Object;
use crate::schema::sql::quote_name;

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
    /// [`TableRanges::hash`].
    pub hash: Hex,
}

/// All ranges of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRanges {
    /// How many rows the table has.
    pub rows: u64,
    /// BLAKE3 over the ranges.
    pub hash: Hex,
    /// The ranges in key order, at least one.
    pub ranges: Vec<Range>,
}

impl TableRanges {
    /// Where range `index` begins: after the end of the one before.
    #[must_use]
    pub fn start(&self, index: usize) -> Option<&Hex> {
        self.ranges[..index].last().and_then(|before| before.end.as_ref())
    }

    /// Whether the ranges are those that `hash` promised.
    pub fn verify(&self, hash: &Hex) -> Result<(), RowError> {
        let tiled = self.ranges.iter().rev().enumerate().all(|(at, range)| range.end.is_none() == (at == 0));
        let rows = self.ranges.iter().try_fold(0_u64, |sum, range| sum.checked_add(range.rows));
        let told = self.hash == *hash && rows == Some(self.rows);
        if tiled && told && !self.ranges.is_empty() && *hash == self.computed() { Ok(()) } else { Err(RowError) }
    }

    fn computed(&self) -> Hex {
        let mut hasher = blake3::Hasher::new();
        for range in &self.ranges {
            let end = range.end.as_ref().map_or(&[][..], |end| &end.0);
            hasher
                .update(&(end.len() as u64).to_be_bytes())
                .update(end)
                .update(&range.rows.to_be_bytes())
                .update(&range.hash.0);
        }
        Hex(hasher.finalize().as_bytes().to_vec())
    }

    /// The ranges of `self` that `other` does not have alike: every difference lies in one of them.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<usize> {
        let theirs: std::collections::HashSet<_> =
            (0..other.ranges.len()).map(|at| (other.start(at), &other.ranges[at])).collect();
        (0..self.ranges.len()).filter(|&at| !theirs.contains(&(self.start(at), &self.ranges[at]))).collect()
    }
}

impl std::hash::Hash for Range {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
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

    /// The table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Cuts the whole table into ranges. Reads every row once.
    pub fn ranges(&self, conn: &Connection) -> rusqlite::Result<TableRanges> {
        let mut ranges = Vec::new();
        let (mut hasher, mut rows, mut bytes, mut total) = (blake3::Hasher::new(), 0, 0, 0);
        self.scan(conn, None, None, |key, row| {
            hasher.update(&row_hash(row));
            (rows, bytes, total) = (rows + 1, bytes + row.len(), total + 1);
            if is_cut(key) || bytes >= MAX_RANGE_BYTES {
                ranges.push(Range {
                    end: Some(Hex(key.to_vec())),
                    rows,
                    hash: Hex(hasher.finalize().as_bytes().to_vec()),
                });
                hasher.reset();
                (rows, bytes) = (0, 0);
            }
        })?;
        ranges.push(Range { end: None, rows, hash: Hex(hasher.finalize().as_bytes().to_vec()) });
        let found = TableRanges { rows: total, hash: Hex(Vec::new()), ranges };
        Ok(TableRanges { hash: found.computed(), ..found })
    }

    /// Visits the rows after `start` up to and including `end`, in key order: key and row, both encoded.
    pub fn scan(
        &self,
        conn: &Connection,
        start: Option<&Hex>,
        end: Option<&Hex>,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> rusqlite::Result<()> {
        let names = |at: &[usize]| at.iter().map(|&at| quote_name(&self.columns[at])).collect::<Vec<_>>().join(", ");
        let marks = vec!["?"; self.key.len()].join(", ");
        let (all, key) = (names(&(0..self.columns.len()).collect::<Vec<_>>()), names(&self.key));
        let mut conditions = Vec::new();
        let mut values = Vec::new();
        for (bound, operator) in [(start, ">"), (end, "<=")] {
            if let Some(bound) = bound {
                conditions.push(format!("({key}) {operator} ({marks})"));
                values.extend(
                    decode(&bound.0).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?,
                );
            }
        }
        let filter = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
        let sql = format!("SELECT {all} FROM {} {filter} ORDER BY {key}", quote_name(&self.table));
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let (mut key, mut encoded) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            key.clear();
            encoded.clear();
            self.key.iter().try_for_each(|&at| encode_column(row, at, &mut key))?;
            (0..self.columns.len()).try_for_each(|at| encode_column(row, at, &mut encoded))?;
            visit(&key, &encoded);
        }
        Ok(())
    }

    /// The key of an encoded row, encoded.
    pub fn key_of(&self, row: &[u8]) -> Result<Vec<u8>, RowError> {
        let values = self.values(row)?;
        let mut key = Vec::new();
        self.key.iter().for_each(|&at| encode_value((&values[at]).into(), &mut key));
        Ok(key)
    }

    /// Adds an encoded row. A row of that key must not exist.
    pub fn insert(&self, conn: &Connection, row: &[u8]) -> rusqlite::Result<()> {
        let values = self.values(row).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        let names = self.columns.iter().map(|name| quote_name(name)).collect::<Vec<_>>().join(", ");
        let marks = vec!["?"; values.len()].join(", ");
        let sql = format!("INSERT INTO {} ({names}) VALUES ({marks})", quote_name(&self.table));
        conn.prepare_cached(&sql)?.execute(params_from_iter(values)).map(|_| ())
    }

    /// Removes the row with an encoded key.
    pub fn delete(&self, conn: &Connection, key: &[u8]) -> rusqlite::Result<usize> {
        let values = decode(key).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        let filter: Vec<_> = self.key.iter().map(|&at| format!("{} = ?", quote_name(&self.columns[at]))).collect();
        let sql = format!("DELETE FROM {} WHERE {}", quote_name(&self.table), filter.join(" AND "));
        conn.prepare_cached(&sql)?.execute(params_from_iter(values))
    }

    /// The columns and values of an encoded row.
    pub fn named(&self, row: &[u8]) -> Result<Vec<(&str, Value)>, RowError> {
        Ok(self.columns.iter().map(String::as_str).zip(self.values(row)?).collect())
    }

    fn values(&self, row: &[u8]) -> Result<Vec<Value>, RowError> {
        let values = decode(row)?;
        if values.len() == self.columns.len() { Ok(values) } else { Err(RowError) }
    }
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

fn decode(mut input: &[u8]) -> Result<Vec<Value>, RowError> {
    let mut values = Vec::new();
    while let Some((tag, rest)) = input.split_first() {
        let (value, rest) = match tag {
            0 => (Value::Null, rest),
            1 => rest
                .split_first_chunk()
                .map(|(b, rest)| (Value::Integer(i64::from_be_bytes(*b)), rest))
                .ok_or(RowError)?,
            2 => rest
                .split_first_chunk()
                .map(|(b, rest)| (Value::Real(f64::from_bits(u64::from_be_bytes(*b))), rest))
                .ok_or(RowError)?,
            3 | 4 => {
                let (length, rest) = rest.split_first_chunk().ok_or(RowError)?;
                let (bytes, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or(RowError)?;
                let text = || String::from_utf8(bytes.to_vec()).map(Value::Text);
                // Text that is not UTF-8 cannot be bound as text: such a row is refused instead of changed.
                (if *tag == 3 { text().map_err(|_| RowError)? } else { Value::Blob(bytes.to_vec()) }, rest)
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
