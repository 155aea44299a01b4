//! Uploaded files on a master: stored before their record, known by their rows, removed when no row names them.
//!
//! An upload is streamed into a growing file of `storage/<db>`, fsynced and named; then the record is written, and in the
//! same transaction the row that names the file. Whoever dies in between, or is refused, leaves a file without a row,
//! which the `Keeper` removes after a while. So there is never a row whose file a crash can lose.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use vski_replication::datadir::DataDir;
use vski_replication::files::{FileRow, Part, new_name, unlink};

use super::error::StoreError;

/// Removes files that no row names.
mod keeper;

/// Files that a master has lost, given back.
mod returned;

/// File fields.
pub mod values;

pub use keeper::Keeper;
pub use returned::Returning;

/// The first bytes of a file by which its type is told.
const HEAD_BYTES: usize = 8 << 10;

/// Where uploads of a master go. Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    dir: DataDir,
    /// Database and name of each file that is on its way to a row, or whose row may be on its way to a commit.
    under_way: Arc<Mutex<HashSet<(String, String)>>>,
}

/// A file that is on its way to a row: the keeper lets it alone until this is dropped.
pub struct UnderWay {
    uploads: Uploads,
    key: (String, String),
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.uploads.under_way).remove(&self.key);
    }
}

/// A file while its bytes come.
pub struct Receiving {
    part: Part,
    head: Vec<u8>,
    upload: Upload,
}

/// A file that was uploaded, whole on the disk, and has no row yet. To be held by the request that writes the row.
pub struct Upload {
    /// The field that it is for.
    pub field: String,
    /// What the client calls it.
    pub original: String,
    /// What it is called here.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the bytes, in hex digits.
    pub blake3: String,
    /// Its type, by its content or else by its extension.
    pub mime: String,
    under_way: UnderWay,
}

impl Uploads {
    /// Uploads into a directory.
    #[must_use]
    pub fn new(dir: &DataDir) -> Self {
        Self { dir: dir.clone(), under_way: Arc::default() }
    }

    /// Begins a file. Blocks on the disk, as all that follows.
    pub fn begin(&self, db: &str, field: &str, original: &str) -> Result<Receiving, StoreError> {
        let name = new_name(original, None);
        let key = (db.to_owned(), name.clone());
        lock(&self.under_way).insert(key.clone());
        let under_way = UnderWay { uploads: self.clone(), key };
        let part = Part::open(&self.dir, db, &name)?;
        let (field, original) = (field.to_owned(), original.to_owned());
        let (blake3, mime) = (String::new(), String::new());
        Ok(Receiving {
            part,
            head: Vec::new(),
            upload: Upload { field, original, name, size: 0, blake3, mime, under_way },
        })
    }

    /// Whether a file is on its way to a row.
    fn is_under_way(&self, db: &str, names: &[String]) -> HashSet<String> {
        let under_way = lock(&self.under_way);
        names.iter().filter(|name| under_way.contains(&(db.to_owned(), (*name).clone()))).cloned().collect()
    }
}

impl Receiving {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let missing = HEAD_BYTES.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..bytes.len().min(missing)]);
        Ok(self.part.write(bytes)?)
    }

    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.part.size()
    }

    /// Makes it survive a power cut.
    pub fn finish(self) -> Result<Upload, StoreError> {
        let Self { part, head, mut upload } = self;
        (upload.size, upload.blake3) = (part.size(), part.hash());
        upload.mime = mime_of(&head, &upload.name);
        part.install()?;
        Ok(upload)
    }

    /// Throws it away.
    pub fn discard(self) -> Result<(), StoreError> {
        Ok(self.part.discard()?)
    }
}

impl Upload {
    /// Its row, once it is known whose it is.
    #[must_use]
    pub fn row(&self, collection: &str, record: &str) -> FileRow {
        FileRow {
            name: self.name.clone(),
            collection: collection.to_owned(),
            record: record.to_owned(),
            field: self.field.trim_matches(['+', '-']).to_owned(),
            size: self.size,
            blake3: self.blake3.clone(),
        }
    }

    /// Removes it at once: its request was refused. What cannot be removed now is removed by the keeper.
    pub fn discard(&self) {
        let UnderWay { uploads, key: (db, name) } = &self.under_way;
        let removed = uploads.dir.file(db, name).map_or(Ok(()), |path| unlink(&path));
        if let Err(error) = removed {
            tracing::debug!(%error, "an upload that was refused stays until it is swept");
        }
    }
}

/// What a file is. Text has no signature: there the extension decides, unless the bytes are no text.
fn mime_of(head: &[u8], name: &str) -> String {
    if let Some(kind) = infer::get(head) {
        return kind.mime_type().to_owned();
    }
    let guessed = mime_guess::from_path(name).first_raw();
    let textual = |mime: &&str| {
        mime.starts_with("text/") || ["json", "xml", "javascript", "yaml", "csv"].iter().any(|kind| mime.contains(kind))
    };
    let is_text = !head.contains(&0);
    match guessed {
        // An image or the like by name that its bytes do not bear out.
        Some(mime) if textual(&mime) && is_text => mime.to_owned(),
        _ if is_text => "text/plain".to_owned(),
        _ => "application/octet-stream".to_owned(),
    }
}

/// What is behind the lock is whole after each statement, so a panic elsewhere does not make it unusable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_that_of_the_bytes_whatever_the_name_says() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        for (head, name, mime) in [
            (&png[..], "a.png", "image/png"),
            (&png[..], "a.txt", "image/png"),
            (b"hello", "a.png", "text/plain"),
            (b"{}", "a.json", "application/json"),
            (b"a,b", "a.csv", "text/csv"),
            (b"\0\x01\x02", "a.txt", "application/octet-stream"),
            (b"%PDF-1.7", "a", "application/pdf"),
        ] {
            assert_eq!(mime_of(head, name), mime, "{name}");
        }
    }

    #[test]
    fn an_upload_is_under_way_until_it_is_let_go() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let uploads = Uploads::new(&dir);
        let mut receiving = uploads.begin("default", "photo", "cat.txt").unwrap();
        receiving.write(b"abc").unwrap();
        let upload = receiving.finish().unwrap();
        let row = upload.row("c", "r");
        assert_eq!((row.size, row.blake3.as_str()), (3, blake3::hash(b"abc").to_hex().as_str()));
        assert!(dir.has_file("default", &row));
        let names = [upload.name.clone(), "other".to_owned()];
        assert_eq!(uploads.is_under_way("default", &names).len(), 1);
        assert!(uploads.is_under_way("shop", &names).is_empty());
        upload.discard();
        assert!(!dir.has_file("default", &row));
        drop(upload);
        assert!(uploads.is_under_way("default", &names).is_empty());
    }
}
