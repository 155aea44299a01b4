use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::path::PathBuf;

use super::{FileError, PART_PREFIX, file_error, make_directory, unlink};
use crate::datadir::{DataDir, sync_directory};
use crate::fault;

/// A file that grows under a name of its own, hashed as it is written. Its bytes have to survive a power cut before it
/// gets its name, and its name before anybody is told of it.
pub struct Part {
    folder: PathBuf,
    path: PathBuf,
    name: String,
    file: File,
    hasher: blake3::Hasher,
    size: u64,
}

impl Part {
    /// The growing file of that name, with what an earlier attempt left of it. `name` has passed
    /// [`super::is_file_name`].
    pub fn open(dir: &DataDir, db: &str, name: &str) -> Result<Self, FileError> {
        debug_assert!(super::is_file_name(name));
        let folder = dir.files(db);
        make_directory(&folder)?;
        let path = folder.join(format!("{PART_PREFIX}{name}"));
        fault::io("file:open").map_err(file_error("open", &path))?;
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(file_error("open", &path))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file).map_err(file_error("read", &path))?;
        let size = file.stream_position().map_err(file_error("read", &path))?;
        Ok(Self { folder, path, name: name.to_owned(), file, hasher, size })
    }

    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// BLAKE3 of the bytes so far, in hex digits.
    #[must_use]
    pub fn hash(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// Its name once it is whole.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Begins anew.
    pub fn restart(&mut self) -> Result<(), FileError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(file_error("truncate", &self.path))?;
        (self.hasher, self.size) = (blake3::Hasher::new(), 0);
        Ok(())
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let written = fault::io("file:write").and_then(|()| self.file.write_all(bytes));
        written.map_err(file_error("write", &self.path))?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Gives it its name, for good.
    pub fn install(self) -> Result<(), FileError> {
        let whole = self.folder.join(&self.name);
        fault::io("file:fsync").and_then(|()| self.file.sync_all()).map_err(file_error("fsync", &self.path))?;
        fault::io("file:rename")
            .and_then(|()| std::fs::rename(&self.path, &whole))
            .map_err(file_error("rename", &self.path))?;
        fault::io("file:directory")
            .and_then(|()| sync_directory(&self.folder))
            .map_err(file_error("fsync", &self.folder))?;
        fault::point("file:installed");
        Ok(())
    }

    /// Throws it away.
    pub fn discard(self) -> Result<(), FileError> {
        unlink(&self.path)
    }
}
