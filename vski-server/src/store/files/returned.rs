use vski_replication::files::{FileRow, Part, is_file_name};

use super::{UnderWay, Uploads, lock};
use crate::store::error::StoreError;

/// A file that a row names and this master lacks, while somebody gives it back. What is dropped half-way is swept.
pub struct Returning {
    part: Part,
    row: FileRow,
    /// Kept until the file has its name.
    _under_way: UnderWay,
}

impl Uploads {
    /// Begins a file whose row is there already, from its first byte. `None`: somebody else is giving it back just now.
    pub fn begin_again(&self, db: &str, row: FileRow) -> Result<Option<Returning>, StoreError> {
        if !is_file_name(&row.name) {
            return Err(StoreError::Invalid(format!("{:?} cannot be the name of a file", row.name)));
        }
        let key = (db.to_owned(), row.name.clone());
        if !lock(&self.under_way).insert(key.clone()) {
            return Ok(None);
        }
        let under_way = UnderWay { uploads: self.clone(), key };
        let mut part = Part::open(&self.dir, db, &row.name)?;
        part.restart()?;
        Ok(Some(Returning { part, row, _under_way: under_way }))
    }
}

impl Returning {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.part.size() + bytes.len() as u64 > self.row.size {
            return Err(self.differs(&format!("more than {} bytes", self.row.size)));
        }
        Ok(self.part.write(bytes)?)
    }

    /// Gives it its name, if it is what its row says.
    pub fn finish(self) -> Result<(), StoreError> {
        if self.part.size() == self.row.size && self.part.hash() == self.row.blake3 {
            return Ok(self.part.install()?);
        }
        let found = format!("{} bytes with hash {}", self.part.size(), self.part.hash());
        let error = self.differs(&found);
        self.part.discard()?;
        Err(error)
    }

    fn differs(&self, found: &str) -> StoreError {
        let name = &self.row.name;
        StoreError::Invalid(format!("these are not the bytes of file {name}, as its row has them: {found}"))
    }
}

#[cfg(test)]
mod tests {
    use vski_replication::datadir::DataDir;

    use super::*;

    fn row(bytes: &[u8]) -> FileRow {
        let text = |text: &str| text.to_owned();
        let (collection, record, field) = (text("c"), text("r"), text("f"));
        let blake3 = blake3::hash(bytes).to_hex().to_string();
        FileRow { name: text("a_0123456789.txt"), collection, record, field, size: bytes.len() as u64, blake3 }
    }

    #[test]
    fn a_file_is_given_back_by_one_at_a_time_and_only_as_its_row_says() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let (uploads, row) = (Uploads::new(&dir), row(b"text"));
        let begin = || uploads.begin_again("default", row.clone()).unwrap();
        let mut first = begin().expect("nobody else gives it back");
        assert!(begin().is_none());
        first.write(b"te").unwrap();
        assert!(first.write(b"xts").is_err(), "more than there can be");
        drop(first);

        let mut wrong = begin().expect("the first has given up");
        wrong.write(b"TEXT").unwrap();
        let refusal = wrong.finish().unwrap_err().to_string();
        assert!(refusal.contains("a_0123456789.txt") && refusal.contains("4 bytes"), "{refusal}");
        assert!(!dir.has_file("default", &row));

        let mut right = begin().expect("nobody else gives it back");
        right.write(b"text").unwrap();
        right.finish().unwrap();
        assert!(dir.has_file("default", &row));
        assert_eq!(std::fs::read_dir(dir.files("default")).unwrap().count(), 1, "a part was left");
        let stray = FileRow { name: "../a".to_owned(), ..row };
        assert!(uploads.begin_again("default", stray).is_err());
    }
}
