use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use super::{FileError, PART_PREFIX, file_error, is_file_name, unlink};
use crate::datadir::DataDir;

/// Removes files of one database that no row has named for a while: those of deleted records, which somebody may still
/// be fetching, and what crashes and refused requests left. So are parts that did not grow for as long, whoever names them:
/// what could not be fetched is begun anew.
///
/// The while is counted from the look that found the file without a row, so that no clock and no time of a file matters.
#[derive(Debug, Default)]
pub struct Sweeper {
    /// Files without a row and parts that do not grow, since when, and their size then.
    unnamed: HashMap<String, (Instant, u64)>,
}

/// What still needs files.
#[derive(Debug, Default)]
pub struct Needed {
    /// Names in rows: their files stay, and their parts while they grow.
    pub named: HashSet<String>,
    /// Names of files that are being written: all of them stays.
    pub under_way: HashSet<String>,
}

impl Needed {
    fn keeps(&self, file: &str) -> bool {
        let name = name_of(file);
        self.under_way.contains(name) || (name == file && self.named.contains(name))
    }
}

impl Sweeper {
    /// Looks once. `needed` is given names and returns those that a row, or work under way, still needs; it is
    /// called after the directory was listed. Returns how many files were removed.
    pub fn sweep<E: From<FileError>>(
        &mut self,
        dir: &DataDir,
        db: &str,
        grace: Duration,
        now: Instant,
        needed: impl FnOnce(&[String]) -> Result<Needed, E>,
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
        let needed = needed(&names)?;
        found.retain(|file| !needed.keeps(file));
        let still: HashSet<&String> = found.iter().collect();
        self.unnamed.retain(|file, _| still.contains(file));
        let mut removed = 0;
        for file in found {
            let size = std::fs::symlink_metadata(folder.join(&file)).map_or(0, |found| found.len());
            let (since, before) = self.unnamed.entry(file.clone()).or_insert((now, size));
            if *before != size {
                (*since, *before) = (now, size);
            }
            let since = *since;
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
