//! What a node loses when it converges: rows and entries that nobody else may have, one JSON object a line.
//!
//! Written and fsynced before the transaction that removes them commits. `{"table", "row": {column: value}}`, a blob as
//! `{"blob": "<hex>"}`; `{"entry": {version, kind, epoch, committedMs, payload: "<hex>"}}`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use rusqlite::types::ValueRef;
use serde_json::{Map, Value, json};
use vski_replication::datadir::{self, DataDir};
use vski_replication::entry::Entry;
use vski_replication::fault;
use vski_replication::position::{Position, hex};
use vski_replication::ranges::Shape;

use crate::error::AgentError;

/// Bytes of a payload that are written at once.
const HEX_BYTES: usize = 64 << 10;

/// A report that grows; nothing is left of it if nothing was lost or the converge fails.
pub(super) struct Lost {
    folder: PathBuf,
    growing: PathBuf,
    finished: PathBuf,
    /// Made with the first line.
    file: Option<BufWriter<File>>,
}

impl Lost {
    /// The report of a database that stood at `position`.
    pub(super) fn new(dir: &DataDir, db: &str, position: Position) -> Self {
        let folder = dir.private().join("lost");
        let name = format!("{db}-{}-{}.ndjson", position.epoch, position.version);
        let (growing, mut finished) = (folder.join(format!("{name}.part")), folder.join(&name));
        for again in 2.. {
            if !finished.exists() {
                break;
            }
            finished = folder.join(format!("{name}.{again}"));
        }
        Self { folder, growing, finished, file: None }
    }

    pub(super) fn row(&mut self, shape: &Shape, row: &[u8]) -> Result<(), AgentError> {
        let named = shape.named(row).map_err(|error| AgentError::Malformed { reason: error.to_string() })?;
        let values: Map<String, Value> =
            named.into_iter().map(|(name, value)| (name.to_owned(), to_json(value))).collect();
        self.line(&json!({ "table": shape.table(), "row": values }))
    }

    /// Its payload may be long, so it is not put together in memory.
    pub(super) fn entry(&mut self, entry: &Entry) -> Result<(), AgentError> {
        let told = json!({
            "version": entry.version,
            "kind": entry.kind.name(),
            "epoch": entry.epoch,
            "committedMs": entry.committed_ms,
        });
        let told = told.to_string();
        let fields = told.strip_suffix('}').expect("an object ends so");
        self.write(|file| {
            write!(file, "{{\"entry\":{fields},\"payload\":\"")?;
            entry.payload.chunks(HEX_BYTES).try_for_each(|bytes| write!(file, "{}", hex(bytes)))?;
            writeln!(file, "\"}}}}")
        })
    }

    /// Makes the report durable under its name; `None` if there was nothing to report.
    pub(super) fn finish(self) -> Result<Option<PathBuf>, AgentError> {
        let Self { folder, growing, finished, file } = self;
        let Some(file) = file else { return Ok(None) };
        let io_error = |source| AgentError::Io { action: "write", path: growing.clone(), source };
        let file = file.into_inner().map_err(|error| io_error(error.into_error()))?;
        fault::io("converge:report-fsync").and_then(|()| file.sync_all()).map_err(io_error)?;
        fault::io("converge:report-rename").and_then(|()| std::fs::rename(&growing, &finished)).map_err(io_error)?;
        fault::io("converge:report-directory").and_then(|()| datadir::sync_directory(&folder)).map_err(io_error)?;
        Ok(Some(finished))
    }

    fn line(&mut self, value: &Value) -> Result<(), AgentError> {
        self.write(|file| writeln!(file, "{value}"))
    }

    fn write(&mut self, line: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<(), AgentError> {
        let io_error = |source| AgentError::Io { action: "write", path: self.growing.clone(), source };
        fault::io("converge:report").map_err(io_error)?;
        if self.file.is_none() {
            std::fs::create_dir_all(&self.folder).map_err(io_error)?;
            self.file = Some(BufWriter::new(File::create(&self.growing).map_err(io_error)?));
        }
        line(self.file.as_mut().expect("made above")).map_err(io_error)
    }
}

fn to_json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => json!({ "blob": hex(bytes) }),
    }
}
