//! A changeset, change by change.

use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use rusqlite::ffi;
use rusqlite::types::ValueRef;

use super::{bytes_of, check, error};

/// Walks through a changeset.
pub(super) struct Changes<'bytes> {
    raw: NonNull<ffi::sqlite3_changeset_iter>,
    /// SQLite reads them as it walks.
    bytes: PhantomData<&'bytes [u8]>,
}

/// What happened to a row. Valid until the next one is asked for.
pub(super) struct Change<'walk> {
    raw: NonNull<ffi::sqlite3_changeset_iter>,
    /// The row's table.
    pub(super) table: &'walk str,
    /// For each column of it whether it belongs to the primary key.
    pub(super) key: &'walk [u8],
    pub(super) operation: Operation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Insert,
    Update,
    Delete,
}

impl<'bytes> Changes<'bytes> {
    pub(super) fn start(changeset: &'bytes [u8]) -> rusqlite::Result<Self> {
        let length = c_int::try_from(changeset.len()).map_err(|_| error(ffi::SQLITE_TOOBIG))?;
        let mut raw = ptr::null_mut();
        // SAFETY: SQLite reads `length` bytes, which live as long as this does, and writes none despite the mutable pointer.
        check(unsafe { ffi::sqlite3changeset_start(&raw mut raw, length, changeset.as_ptr().cast_mut().cast()) })?;
        let raw = NonNull::new(raw).ok_or_else(|| error(ffi::SQLITE_NOMEM))?;
        Ok(Self { raw, bytes: PhantomData })
    }

    /// The next change, `None` at the end. An error where the bytes are no changeset.
    pub(super) fn next(&mut self) -> rusqlite::Result<Option<Change<'_>>> {
        // SAFETY: the iterator is valid.
        match unsafe { ffi::sqlite3changeset_next(self.raw.as_ptr()) } {
            ffi::SQLITE_ROW => {}
            ffi::SQLITE_DONE => return Ok(None),
            code => return Err(error(code)),
        }
        let (mut table, mut columns, mut operation, mut indirect) = (ptr::null(), 0, 0, 0);
        let (mut key, mut key_columns) = (ptr::null_mut(), 0);
        // SAFETY: the iterator points at a change, and all out-pointers are valid.
        unsafe {
            let raw = self.raw.as_ptr();
            check(ffi::sqlite3changeset_op(
                raw,
                &raw mut table,
                &raw mut columns,
                &raw mut operation,
                &raw mut indirect,
            ))?;
            check(ffi::sqlite3changeset_pk(raw, &raw mut key, &raw mut key_columns))?;
        }
        // SAFETY: the name ends with NUL, the key has a byte for each column; both live until the next step, which needs `self`.
        let (table, key) = unsafe { (CStr::from_ptr(table), bytes_of(key.cast(), key_columns)) };
        let operation = match operation {
            ffi::SQLITE_INSERT => Operation::Insert,
            ffi::SQLITE_UPDATE => Operation::Update,
            ffi::SQLITE_DELETE => Operation::Delete,
            _ => return Err(error(ffi::SQLITE_CORRUPT)),
        };
        let table = table.to_str().map_err(|_| error(ffi::SQLITE_CORRUPT))?;
        Ok(Some(Change { raw: self.raw, table, key, operation }))
    }
}

impl Drop for Changes<'_> {
    fn drop(&mut self) {
        // SAFETY: finalized exactly once. What it returns was returned by the last step.
        unsafe { ffi::sqlite3changeset_finalize(self.raw.as_ptr()) };
    }
}

impl Change<'_> {
    /// What a column held before; `None` where the change does not tell, as for an insert.
    pub(super) fn before(&self, column: usize) -> rusqlite::Result<Option<ValueRef<'_>>> {
        if self.operation == Operation::Insert {
            return Ok(None);
        }
        self.value(column, ffi::sqlite3changeset_old)
    }

    /// What a column holds then; `None` where it is unchanged, and for a delete.
    pub(super) fn after(&self, column: usize) -> rusqlite::Result<Option<ValueRef<'_>>> {
        if self.operation == Operation::Delete {
            return Ok(None);
        }
        self.value(column, ffi::sqlite3changeset_new)
    }

    fn value(
        &self,
        column: usize,
        get: unsafe extern "C" fn(*mut ffi::sqlite3_changeset_iter, c_int, *mut *mut ffi::sqlite3_value) -> c_int,
    ) -> rusqlite::Result<Option<ValueRef<'_>>> {
        let column = c_int::try_from(column).map_err(|_| error(ffi::SQLITE_RANGE))?;
        let mut value = ptr::null_mut();
        // SAFETY: the iterator points at a change of a kind that has such values; SQLite looks at the column's number. The
        // value lives until the next step, as its bytes do: nothing converts it to another type.
        unsafe {
            check(get(self.raw.as_ptr(), column, &raw mut value))?;
            if value.is_null() {
                return Ok(None);
            }
            Ok(Some(match ffi::sqlite3_value_type(value) {
                ffi::SQLITE_NULL => ValueRef::Null,
                ffi::SQLITE_INTEGER => ValueRef::Integer(ffi::sqlite3_value_int64(value)),
                ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_value_double(value)),
                ffi::SQLITE_TEXT => {
                    let text = ffi::sqlite3_value_text(value);
                    ValueRef::Text(bytes_of(text.cast(), ffi::sqlite3_value_bytes(value)))
                }
                _ => {
                    let blob = ffi::sqlite3_value_blob(value);
                    ValueRef::Blob(bytes_of(blob, ffi::sqlite3_value_bytes(value)))
                }
            }))
        }
    }
}
