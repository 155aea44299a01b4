//! Rows and keys as bytes: every value with its type, so that 'A' and 'a', 1 and 1.0, NULL and '' differ. These bytes are
//! hashed, are the ends of ranges, and travel to a replica that lacks the row.

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Row, params_from_iter};

use super::RowError;

pub(super) fn encode_column(row: &Row<'_>, at: usize, out: &mut Vec<u8>) -> rusqlite::Result<()> {
    encode_value(row.get_ref(at)?, out);
    Ok(())
}

/// Tag and value: NULL 0; integer 1, 8 bytes; real 2, 8 bytes; text 3 and blob 4, length of 4 bytes and the bytes.
pub(super) fn encode_value(value: ValueRef<'_>, out: &mut Vec<u8>) {
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

pub(super) fn decode(mut input: &[u8]) -> Result<Vec<ValueRef<'_>>, RowError> {
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

pub(super) fn owned(value: ValueRef<'_>) -> Value {
    value.try_into().expect("decoding checks that text is UTF-8")
}

pub(super) fn unusable(error: RowError) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// Values as parameters, not copied before SQLite does.
pub(super) fn bound(values: Vec<ValueRef<'_>>) -> impl rusqlite::Params {
    params_from_iter(values.into_iter().map(ToSqlOutput::Borrowed))
}
