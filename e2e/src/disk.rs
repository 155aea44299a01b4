//! A small disk: ext4 in a file, mounted through a loop device. It fills up as a real one does, and several containers can
//! share it as their data volume. Needs root (or sudo without a password), and mkfs.ext4, mount and umount of this machine.
//!
//! Its file and its mount point lie side by side under one prefix, so that what a killed run left behind is found.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::process::{getgid, getuid};

use crate::docker;

/// After the prefix of whoever makes them, in the names of folders that hold a disk.
const KIND: &str = "disk-";

/// What takes the room away.
const BALLAST: &str = "ballast";

/// A mounted file system. Unmounted and gone when this is dropped; containers that use it must have ended before.
#[derive(Debug)]
pub struct Disk {
    /// Holds the file and the mount point.
    folder: PathBuf,
}

impl Disk {
    /// A disk of that many MiB with an empty folder for user and group `owner`. Its name begins with `prefix`, for
    /// [`sweep`].
    pub fn new(prefix: &str, mib: u64, owner: u32) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("{prefix}{KIND}{:08x}", rand::random::<u32>()));
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        let disk = Self { folder };
        let (file, mount) = (disk.folder.join("file"), disk.mount());
        File::create_new(&file)?.set_len(mib << 20)?;
        fs::create_dir(&mount)?;
        let ours = format!("root_owner={}:{}", getuid(), getgid());
        // No blocks are kept for root, so that full is full for everybody.
        command("mkfs.ext4", &["-q", "-m", "0", "-E", &ours], &[&file])?;
        command("mount", &["-o", "loop"], &[&file, &mount])?;
        fs::create_dir(disk.data())?;
        command("chown", &[&format!("{owner}:{owner}")], &[&disk.data()])?;
        Ok(disk)
    }

    /// What a container mounts as its data volume.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.mount().join("data")
    }

    /// Bytes that are free.
    pub fn free(&self) -> Result<u64> {
        let found = statvfs(self.mount()).context("ask for free space")?;
        Ok(found.f_bavail * found.f_frsize)
    }

    /// Takes room away, so that that many bytes are left at most.
    pub fn leave(&self, bytes: u64) -> Result<()> {
        let ballast = File::options().create(true).append(true).open(self.mount().join(BALLAST))?;
        let taken = ballast.metadata()?.len();
        let more = self.free()?.saturating_sub(bytes);
        if more > 0 {
            fallocate(&ballast, FallocateFlags::empty(), taken, more).context("take room away")?;
        }
        Ok(())
    }

    /// Gives the room back.
    pub fn relieve(&self) -> Result<()> {
        fs::remove_file(self.mount().join(BALLAST)).context("give room back")
    }

    fn mount(&self) -> PathBuf {
        self.folder.join("mount")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.folder) {
            println!("{} was not removed: {error:#}", self.folder.display());
        }
    }
}

/// Removes disks of that prefix, which killed processes left behind.
pub fn sweep(prefix: &str) -> Result<()> {
    let prefix = format!("{prefix}{KIND}");
    for entry in fs::read_dir(std::env::temp_dir()).context("list the temporary folder")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// The loop device goes with the last mount of it.
fn remove(folder: &Path) -> Result<()> {
    let mount = folder.join("mount");
    if is_mount_point(&mount)? {
        let busy = |_| command("umount", &["--lazy"], &[&mount]);
        command("umount", &[], &[&mount]).or_else(busy)?;
    }
    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))
}

fn is_mount_point(folder: &Path) -> Result<bool> {
    match fs::metadata(folder) {
        Ok(found) => Ok(found.dev() != fs::metadata(std::env::temp_dir())?.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look at {}", folder.display())),
    }
}

fn command(program: &str, options: &[&str], paths: &[&Path]) -> Result<()> {
    docker::finish(docker::as_root(program).args(options).args(paths)).map(drop)
}
