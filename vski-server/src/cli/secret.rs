//! `secret`: makes a random JWT_SECRET where there is none yet, for deployments that share it by a file.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;

#[derive(Args)]
pub struct SecretArgs {
    /// File to make, for JWT_SECRET_FILE; one that is there stays as it is
    file: PathBuf,
}

/// Whole or not at all: the file gets its name when its content is on the disk.
pub fn execute(args: &SecretArgs) -> Result<(), Failure> {
    let file = &args.file;
    if file.exists() {
        println!("{} is there already", file.display());
        return Ok(());
    }
    write(file).map_err(|error| Failure::setup(format!("make {}: {error}", file.display())))?;
    println!("{} was made: keep it, all nodes need the same one", file.display());
    Ok(())
}

fn write(file: &Path) -> std::io::Result<()> {
    let secret: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
    let unfinished = file.with_extension("new");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&unfinished)?;
    opened.write_all(secret.as_bytes())?;
    opened.sync_all()?;
    // A link, not a rename: another process may have been faster, and its secret is in use.
    match std::fs::hard_link(&unfinished, file) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => std::fs::remove_file(&unfinished)?,
    }
    match file.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        Some(directory) => File::open(directory)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_is_long_and_nobody_elses() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("jwt");
        let make = || {
            assert!(execute(&SecretArgs { file: file.clone() }).is_ok());
            std::fs::read_to_string(&file).unwrap()
        };
        let secret = make();
        assert_eq!(secret.len(), 64);
        assert_eq!(make(), secret);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        let nowhere = SecretArgs { file: directory.path().join("no/such/place") };
        assert_eq!(execute(&nowhere).map_err(|failure| failure.code), Err(2));
    }
}
