//! SQLite's session extension, wrapped: here and in `changes` is the only `unsafe` code of the workspace.
//!
//! The C contract (sqlite.org/session.html and the comments of `sqlite3.h`), and how this file keeps it:
//!
//! - A session belongs to one connection and must be deleted before it is closed: `Session` borrows the
//!   `Connection` and deletes in `Drop`.
//! - `object_config(SIZE)` must come before the first attach: both happen in `Session::start`.
//! - A connection with a session must not have a pre-update hook of its own: rusqlite is built without that feature.
//! - The changeset is built from the tables' **current** content: it has to be taken inside the write transaction that
//!   it describes, before COMMIT, or another connection's rows leak into it. The writer does so; so must any caller.
//! - DDL on a recorded table makes `changeset()` fail and loses all tables of the session: callers run DDL before
//!   `Session::start`.
//! - Buffers come from `sqlite3_malloc` and are released with `sqlite3_free`: copied to a `Vec` and freed at once.
//! - Callbacks run on the calling thread during the call. They must not unwind into C: ours cannot panic. The
//!   iterator passed to the conflict callback is valid only within it.
//! - A changeset has **no checksum**; most flipped bits apply as wrong data. `apply` must be given verified bytes.
//! - `apply` silently skips tables that are missing or shaped otherwise: callers compare schema hashes first.
#![expect(unsafe_code, reason = "the C interface of the session extension; see the module's contract")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ffi};

use crate::names;

mod applier;
mod changes;

pub use applier::Applier;

/// Records which rows of a connection change, from [`Session::start`] until it is dropped.
pub struct Session<'conn> {
    raw: NonNull<ffi::sqlite3_session>,
    /// The connection outlives the session, and neither leaves its thread.
    conn: PhantomData<&'conn Connection>,
}

impl<'conn> Session<'conn> {
    /// Starts recording all tables with a primary key but our own and SQLite's.
    pub fn start(conn: &'conn Connection) -> rusqlite::Result<Self> {
        let mut raw = ptr::null_mut();
        // SAFETY: the handle is open as long as `conn` is borrowed; "main" is NUL-terminated.
        check(unsafe { ffi::sqlite3session_create(conn.handle(), c"main".as_ptr(), &raw mut raw) })?;
        let raw = NonNull::new(raw).ok_or_else(|| error(ffi::SQLITE_NOMEM))?;
        let session = Self { raw, conn: PhantomData };
        let mut on: c_int = 1;
        // SAFETY: the session is valid; SIZE takes a pointer to an int; nothing is attached yet. The filter needs no
        // context. A NULL table name attaches all tables that pass the filter.
        unsafe {
            let on = (&raw mut on).cast::<c_void>();
            check(ffi::sqlite3session_object_config(raw.as_ptr(), ffi::SQLITE_SESSION_OBJCONFIG_SIZE, on))?;
            ffi::sqlite3session_table_filter(raw.as_ptr(), Some(is_captured), ptr::null_mut());
            check(ffi::sqlite3session_attach(raw.as_ptr(), ptr::null()))?;
        }
        Ok(session)
    }

    /// An upper bound of the changeset's size so far, bytes. Cheap: SQLite counts along.
    #[must_use]
    pub fn changeset_size(&self) -> usize {
        // SAFETY: the session is valid.
        let size = unsafe { ffi::sqlite3session_changeset_size(self.raw.as_ptr()) };
        usize::try_from(size).unwrap_or(0)
    }

    /// What the recorded rows look like now. Empty where nothing is left of the changes, as after a rollback.
    pub fn changeset(&self) -> rusqlite::Result<Vec<u8>> {
        let (mut length, mut buffer) = (0, ptr::null_mut());
        // SAFETY: the session is valid, both out-pointers are; a buffer is ours to free, also after an error.
        let (code, bytes) = unsafe {
            let code = ffi::sqlite3session_changeset(self.raw.as_ptr(), &raw mut length, &raw mut buffer);
            let bytes = bytes_of(buffer, length).to_vec();
            ffi::sqlite3_free(buffer);
            (code, bytes)
        };
        check(code)?;
        Ok(bytes)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // SAFETY: deleted exactly once, and the connection is still open.
        unsafe { ffi::sqlite3session_delete(self.raw.as_ptr()) }
    }
}

/// Why a changeset met a database that is not the one it was captured from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The table, unless the conflict is about foreign keys as a whole.
    pub table: Option<String>,
    /// `insert`, `update` or `delete`, likewise.
    pub operation: Option<&'static str>,
    /// What was found instead.
    pub kind: &'static str,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.operation, &self.table) {
            (Some(operation), Some(table)) => write!(f, "{operation} on {table}: {}", self.kind),
            _ => f.write_str(self.kind),
        }
    }
}

/// A changeset that was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The rows here differ from those that the changeset was captured from: the databases have diverged.
    #[error("changeset conflict: {0}")]
    Conflict(Conflict),
    /// SQLite failed, or the bytes are no changeset.
    #[error("apply changeset")]
    Sqlite(#[from] rusqlite::Error),
}

/// Applies a changeset. Inside the caller's transaction, which the caller rolls back after an error: some of it may have been
/// applied then. A savepoint would have SQLite copy each page once more; outside of a transaction there is one, and any
/// conflict undoes all of it.
///
/// The caller has turned triggers and foreign keys off, compared schema hashes and verified the bytes.
pub fn apply(conn: &Connection, changeset: &[u8]) -> Result<(), ApplyError> {
    if changeset.is_empty() {
        return Ok(());
    }
    let length = c_int::try_from(changeset.len()).map_err(|_| error(ffi::SQLITE_TOOBIG))?;
    // With foreign keys off none of their actions runs anyway, and the flag would have SQLite read the whole schema anew,
    // twice for each changeset.
    let mut flags = 0;
    if conn.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY)? {
        flags |= ffi::SQLITE_CHANGESETAPPLY_FKNOACTION;
    }
    if !conn.is_autocommit() {
        flags |= ffi::SQLITE_CHANGESETAPPLY_NOSAVEPOINT;
    }
    let mut conflict: Option<Conflict> = None;
    // SAFETY: the handle is open; SQLite reads `length` bytes and writes none despite the mutable pointer; the context
    // points to `conflict`, which outlives the call and is touched by nobody else during it.
    let code = unsafe {
        ffi::sqlite3changeset_apply_v2(
            conn.handle(),
            length,
            changeset.as_ptr().cast_mut().cast(),
            None,
            Some(on_conflict),
            (&raw mut conflict).cast(),
            ptr::null_mut(),
            ptr::null_mut(),
            flags,
        )
    };
    match conflict {
        Some(conflict) => Err(ApplyError::Conflict(conflict)),
        None => Ok(check(code)?),
    }
}

unsafe extern "C" fn is_captured(_context: *mut c_void, table: *const c_char) -> c_int {
    // SAFETY: SQLite passes a NUL-terminated name that lives through the call.
    let name = unsafe { CStr::from_ptr(table) }.to_string_lossy();
    c_int::from(!names::is_reserved_table(&name))
}

unsafe extern "C" fn on_conflict(
    context: *mut c_void,
    kind: c_int,
    iterator: *mut ffi::sqlite3_changeset_iter,
) -> c_int {
    let (mut table, mut columns, mut operation, mut indirect) = (ptr::null(), 0, 0, 0);
    // SAFETY: the iterator is valid within this callback, and points at a change unless the conflict is about foreign
    // keys; `context` is the `conflict` of `apply`.
    unsafe {
        let about_a_row = kind != ffi::SQLITE_CHANGESET_FOREIGN_KEY
            && ffi::sqlite3changeset_op(
                iterator,
                &raw mut table,
                &raw mut columns,
                &raw mut operation,
                &raw mut indirect,
            ) == ffi::SQLITE_OK;
        let conflict = Conflict {
            table: about_a_row.then(|| CStr::from_ptr(table).to_string_lossy().into_owned()),
            operation: about_a_row.then_some(match operation {
                ffi::SQLITE_INSERT => "insert",
                ffi::SQLITE_DELETE => "delete",
                _ => "update",
            }),
            kind: match kind {
                ffi::SQLITE_CHANGESET_DATA => "the row has other values here",
                ffi::SQLITE_CHANGESET_NOTFOUND => "the row is missing here",
                ffi::SQLITE_CHANGESET_CONFLICT => "the row exists here already",
                ffi::SQLITE_CHANGESET_CONSTRAINT => "a constraint forbids it here",
                _ => "foreign keys are violated",
            },
        };
        *context.cast::<Option<Conflict>>() = Some(conflict);
    }
    ffi::SQLITE_CHANGESET_ABORT
}

/// # Safety
/// `buffer` is NULL or points to `length` bytes that live as long as the result is used.
unsafe fn bytes_of<'a>(buffer: *const c_void, length: c_int) -> &'a [u8] {
    let length = usize::try_from(length).unwrap_or(0);
    if buffer.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(buffer.cast(), length) }
}

fn check(code: c_int) -> rusqlite::Result<()> {
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(error(code)) }
}

fn error(code: c_int) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

#[cfg(test)]
mod tests;
