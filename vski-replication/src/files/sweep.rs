use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use super::{FileError, PART_PREFIX, file_error, is_file_name, unlink};
use crate::datadir::DataDir;

/// Removes files of one database that no row has named for a while: those of deleted records, which somebody may still
/// be fetching, and what crashes and refused requests left.
///
/// The while is counted from the look that found the file without a row, so that no clock and no time of a file matters.
#[derive(Debug, Default)]
pub struct Sweeper {
    /// Files without a row, and when that was first seen.
    unnamed: HashMap<String, Instant>,
}

impl Sweeper {
    /// Looks once. `named` is given names and returns those that a row, or work under way, still needs; it is called after
    /// the directory was listed. Returns how many files were removed.
    pub fn sweep<E: From<FileError>>(
        &mut self,
        dir: &DataDir,
        db: &str,
        grace: Duration,
        now: Instant,
        named: impl FnOnce(&[String]) -> Result<HashSet<String>, E>,
    ) -> Result<usize, E> {
        let folder = dir.files(db);
        let listed = match std::fs::read_dir(&folder) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(file_error("list", &folder)(error).into()),
        };
        let mut found = Vec::new();
        for file in listed {
            let file = file.map_err(file_error("list", &folder))?.file_name();
            // What is not ours is left alone.
            let ours = file.to_str().filter(|file| is_file_name(name_of(file)));
            found.extend(ours.map(str::to_owned));
        }
        let names: Vec<String> = found.iter().map(|file| name_of(file).to_owned()).collect();
        let named = named(&names)?;
        found.retain(|file| !named.contains(name_of(file)));
        let still: HashSet<&String> = found.iter().collect();
        self.unnamed.retain(|file, _| still.contains(file));
        let mut removed = 0;
        for file in found {
            let since = *self.unnamed.entry(file.clone()).or_insert(now);
            if now.duration_since(since) >= grace {
                unlink(&folder.join(&file))?;
                self.unnamed.remove(&file);
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// The name of a file, or that which a growing one will have.
fn name_of(file: &str) -> &str {
    file.strip_prefix(PART_PREFIX).unwrap_or(file)
}
