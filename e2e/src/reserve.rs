//! What this machine has once and two runs of tests must not both take: ranges of ports, subnets. Whoever has chosen one
//! keeps it until its process ends, so that nobody takes it between being chosen and being used, nor while its program is
//! down.
//!
//! A name is a file with a lock, `flock(2)`, which vanishes with the process. The files stay, empty.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// Takes a name for this process. `false`: another process has it.
pub fn reserve(name: &str) -> Result<bool> {
    static HELD: Mutex<BTreeMap<String, File>> = Mutex::new(BTreeMap::new());
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if held.contains_key(name) {
        return Ok(true);
    }
    let Some(file) = lock(name)? else { return Ok(false) };
    held.insert(name.to_owned(), file);
    Ok(true)
}

fn lock(name: &str) -> Result<Option<File>> {
    // Each user has files of its own.
    let user = rustix::process::getuid().as_raw();
    let folder = std::env::temp_dir().join(format!("vski-e2e-reserved-{user}"));
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let path = folder.join(name);
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_until_its_holder_ends() {
        let name = format!("test-{:016x}", rand::random::<u64>());
        // Another open file is to a lock what another process is.
        let other = lock(&name).unwrap().expect("nobody has it");
        assert!(!reserve(&name).unwrap());
        drop(other);
        assert!(reserve(&name).unwrap() && reserve(&name).unwrap());
        assert!(lock(&name).unwrap().is_none());
    }
}
