//! Why a data directory cannot be used. Every message names the path and what an operator can do.

use std::io;
use std::path::{Path, PathBuf};

use super::{Holder, NODE_ID_RULE};

/// A data directory that cannot be used, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}; make the directory writable for this user, or set DATA_DIR to another")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It lies on a network file system.
    #[error(
        "{path} is on {kind}: a data directory needs a local file system, because SQLite's WAL needs shared memory"
    )]
    Network {
        /// The directory.
        path: PathBuf,
        /// The file system.
        kind: &'static str,
    },
    /// Another process has it.
    #[error("{path} is in use by {holder}: stop that process first, or set DATA_DIR to another directory")]
    Held {
        /// The directory.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// The node id is not usable.
    #[error("node id {0:?} is not {NODE_ID_RULE}: set REPLICA_ID to such a name")]
    NodeId(String),
    /// The recorded node id is not usable.
    #[error(
        "{path} holds {found:?}, which is no node id ({NODE_ID_RULE}): remove that file, and the next start makes a new \
         id, or set REPLICA_ID to a name of this node's own"
    )]
    RecordedId {
        /// The file.
        path: PathBuf,
        /// What it holds, cut short.
        found: String,
    },
    /// A command was given a directory that no node has used.
    #[error("{0} {1}: set DATA_DIR to the directory of a node that was started before")]
    NotANode(PathBuf, &'static str),
}

pub(super) fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DataDirError + 'a {
    move |source| DataDirError::Io { action, path: path.to_owned(), source }
}
