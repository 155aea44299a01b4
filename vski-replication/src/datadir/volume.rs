//! The file system that a directory lies on: of which kind, how large, how full.

use super::error::io_error;
use super::{DataDir, DataDirError};

/// File systems whose files are not shared memory of one kernel, by `statfs` magic: SQLite's WAL needs that.
const NETWORK_FILE_SYSTEMS: [(i64, &str); 6] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x00C3_6400, "Ceph"),
];

impl DataDir {
    /// Refuses a network file system.
    pub fn check_file_system(&self) -> Result<(), DataDirError> {
        let statfs = rustix::fs::statfs(&self.root).map_err(|error| io_error("examine", &self.root)(error.into()))?;
        let magic = statfs.f_type & 0xFFFF_FFFF;
        match NETWORK_FILE_SYSTEMS.iter().find(|(known, _)| *known == magic) {
            Some((_, kind)) => Err(DataDirError::Network { path: self.root.clone(), kind }),
            None => Ok(()),
        }
    }

    /// Free bytes for this user on the directory's file system.
    pub fn free_bytes(&self) -> Result<u64, DataDirError> {
        let stat = rustix::fs::statvfs(&self.root).map_err(|error| io_error("examine", &self.root)(error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// All bytes of the directory's file system, used or free.
    pub fn volume_bytes(&self) -> Result<u64, DataDirError> {
        let stat = rustix::fs::statvfs(&self.root).map_err(|error| io_error("examine", &self.root)(error.into()))?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }
}
