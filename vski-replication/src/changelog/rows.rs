//! Stored rows as values of this crate. Whatever this program would not have written there is damage.

use rusqlite::Row;

use super::{Head, LogError, traces};
use crate::entry::{Entry, Kind};
use crate::position::{Chain, Epoch, EpochId, Position, SchemaHash};

pub(super) const ENTRY_COLUMNS: &str = "version, kind, generation, epoch, schema_hash, committed_ms, chain, payload";

pub(super) fn head_row(row: &Row<'_>) -> Result<Head, LogError> {
    let position = Position {
        epoch: Epoch {
            generation: unsigned(row.get(0)?)?,
            id: EpochId::from_slice(row.get_ref(1)?.as_blob().map_err(damaged)?)?,
        },
        version: unsigned(row.get(2)?)?,
        chain: Chain::from_slice(row.get_ref(3)?.as_blob().map_err(damaged)?)?,
    };
    let schema_hash = SchemaHash::from_slice(row.get_ref(4)?.as_blob().map_err(damaged)?)?;
    Ok(Head { position, schema_hash, committed_ms: row.get(5)? })
}

pub(super) fn entry_row(row: &Row<'_>) -> Result<Entry, LogError> {
    let kind: String = row.get(1)?;
    Ok(Entry {
        version: unsigned(row.get(0)?)?,
        kind: Kind::from_name(&kind).ok_or_else(|| LogError::Damaged(format!("unknown kind {kind:?}")))?,
        epoch: Epoch {
            generation: unsigned(row.get(2)?)?,
            id: EpochId::from_slice(row.get_ref(3)?.as_blob().map_err(damaged)?)?,
        },
        schema_hash: SchemaHash::from_slice(row.get_ref(4)?.as_blob().map_err(damaged)?)?,
        committed_ms: row.get(5)?,
        chain: Chain::from_slice(row.get_ref(6)?.as_blob().map_err(damaged)?)?,
        payload: row.get(7)?,
        trace: traces::read(row.get_ref(8)?),
    })
}

pub(super) fn damaged(error: impl std::fmt::Display) -> LogError {
    LogError::Damaged(error.to_string())
}

/// Versions and generations count up from 0 one by one: they never reach 2^63.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> Result<u64, LogError> {
    u64::try_from(number).map_err(|_| LogError::Damaged(format!("negative number {number}")))
}
