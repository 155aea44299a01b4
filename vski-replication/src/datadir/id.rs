//! This node's id, `.vski/id`: by it a master tells its replicas apart. Whoever starts first makes it, server or agent.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::error::io_error;
use super::{DataDir, DataDirError, unique};
use crate::fault;

/// What a node id must look like.
pub const NODE_ID_RULE: &str = "1 to 63 letters, digits, '.', '_' or '-'";

/// How much of a recorded id that is none is told, characters.
const SHOWN_ID_CHARS: usize = 63;

impl DataDir {
    /// This node's id: `wanted` if given (and from now on), else the recorded one, else a new random one.
    pub fn node_id(&self, wanted: Option<&str>) -> Result<String, DataDirError> {
        let path = self.private().join("id");
        let fresh = format!("node-{:08x}", rand::random::<u32>());
        let id = wanted.unwrap_or(&fresh);
        if !is_node_id(id) {
            return Err(DataDirError::NodeId(id.to_owned()));
        }
        match self.recorded_id() {
            Ok(Some(recorded)) if wanted.is_none_or(|wanted| wanted == recorded) => return Ok(recorded),
            Err(error) if wanted.is_none() => return Err(error),
            _ => {}
        }
        let temporary = self.private().join(format!("id.{}", unique()));
        fault::io("id:write").map_err(io_error("write", &temporary))?;
        write_synced(&temporary, id.as_bytes()).map_err(io_error("write", &temporary))?;
        fault::io("id:before-name").map_err(io_error("write", &path))?;
        if wanted.is_some() {
            std::fs::rename(&temporary, &path).map_err(io_error("write", &path))?;
            return Ok(id.to_owned());
        }
        // A hard link fails where the file exists, and never shows a half-written one.
        let linked = std::fs::hard_link(&temporary, &path);
        fault::point("id:after-link");
        std::fs::remove_file(&temporary).map_err(io_error("remove", &temporary))?;
        if let Err(error) = linked
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(io_error("write", &path)(error));
        }
        self.recorded_id()?.ok_or_else(|| io_error("read", &path)(io::ErrorKind::NotFound.into()))
    }

    /// The id that this node was given or made for itself; `None` before its first start.
    pub fn recorded_id(&self) -> Result<Option<String>, DataDirError> {
        let path = self.private().join("id");
        let found = match std::fs::read(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let found = String::from_utf8_lossy(&found).trim().to_owned();
        if is_node_id(&found) {
            return Ok(Some(found));
        }
        Err(DataDirError::RecordedId { path, found: found.chars().take(SHOWN_ID_CHARS).collect() })
    }
}

/// Whether an id obeys [`NODE_ID_RULE`].
#[must_use]
pub fn is_node_id(id: &str) -> bool {
    (1..=63).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::datadir::tests::directory;

    #[test]
    fn the_node_id_is_made_once_and_overridden_for_good() {
        let (_keep, dir) = directory();
        let first = dir.node_id(None).unwrap();
        assert_eq!(dir.node_id(None).unwrap(), first);
        assert_eq!(dir.node_id(Some("r001")).unwrap(), "r001");
        let inode = || std::fs::metadata(dir.private().join("id")).unwrap().ino();
        let before = inode();
        assert_eq!([None, Some("r001")].map(|wanted| dir.node_id(wanted).unwrap()), ["r001", "r001"]);
        assert_eq!(inode(), before, "it is not written again: a full volume would not let it");
        assert!(dir.node_id(Some("no spaces")).unwrap_err().to_string().contains("REPLICA_ID"));
    }

    #[test]
    fn processes_of_one_number_may_start_at_once() {
        let (_keep, dir) = directory();
        let start = || {
            for _ in 0..50 {
                let dir = DataDir::open(&dir.root).unwrap();
                assert_eq!(dir.node_id(Some("r001")).unwrap(), "r001");
            }
        };
        std::thread::scope(|scope| drop([(); 8].map(|()| scope.spawn(start))));
    }

    #[test]
    fn a_recorded_id_that_is_none_is_told_with_its_file_and_both_repairs() {
        let (_keep, dir) = directory();
        assert_eq!(dir.recorded_id().unwrap(), None);
        let file = dir.private().join("id");
        for garbage in [&b""[..], b"\xff\xfe\0", b"two words"] {
            std::fs::write(&file, garbage).unwrap();
            let refusal = dir.node_id(None).unwrap_err().to_string();
            for part in [&*file.to_string_lossy(), "remove that file", "REPLICA_ID"] {
                assert!(refusal.contains(part), "{refusal}");
            }
        }
        assert_eq!(dir.node_id(Some("r001")).unwrap(), "r001", "one repair");
        std::fs::remove_file(&file).unwrap();
        let made = dir.node_id(None).unwrap();
        assert_eq!(dir.recorded_id().unwrap(), Some(made), "the other");
    }
}
