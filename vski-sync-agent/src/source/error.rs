//! What a master did not answer, and why.

use std::time::Duration;

use crate::error::ErrorKind;

/// A call without a usable answer. The text never holds a token or a secret.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No connection, or it broke.
    #[error("reach the master for {call}")]
    Unreachable {
        /// The call.
        call: &'static str,
        /// The network's reason, without the address.
        source: reqwest::Error,
    },
    /// Connected, to a node whose certificate proves nothing here.
    #[error(
        "trust the master for {call}: name its CA in MASTER_CA_FILE, and in MASTER_URL a host that its certificate is for"
    )]
    Untrusted {
        /// The call.
        call: &'static str,
        /// What is wrong with the certificate.
        source: reqwest::Error,
    },
    /// Connected, and then nothing.
    #[error("wait for the master's {call}: nothing came for {seconds} s")]
    Silent {
        /// The call.
        call: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// 401: the secrets differ, or the clocks.
    #[error("authenticate at the master: {reason}")]
    Unauthorized {
        /// What the master said.
        reason: String,
    },
    /// 403: the node at MASTER_URL does not serve replicas.
    #[error("use the master's {call}: it is forbidden: {reason}")]
    Forbidden {
        /// The call.
        call: &'static str,
        /// What the master said.
        reason: String,
    },
    /// MASTER_URL leads to a replica that follows this node, maybe through others.
    #[error(
        "follow the node at MASTER_URL: it follows this one ({path}): set MASTER_URL of one of them to the master, or \
         REPLICA_ID where two nodes have the same"
    )]
    Loop {
        /// The nodes on the way, with commas.
        path: String,
    },
    /// Whatever answers there is no VSKI node: its answers lack the headers of one.
    #[error(
        "use MASTER_URL for {call}: it does not answer as a VSKI master: status {status}, content type {content_type}"
    )]
    NotVski {
        /// The call.
        call: &'static str,
        /// The HTTP status.
        status: u16,
        /// What kind of thing came, as it says itself.
        content_type: String,
    },
    /// 404.
    #[error("find what {call} asks for: {reason}")]
    NotFound {
        /// The call.
        call: &'static str,
        /// What the master said.
        reason: String,
    },
    /// 503 or 429: later.
    #[error("use the master's {call}: it cannot answer now: {reason}")]
    Overloaded {
        /// The call.
        call: &'static str,
        /// What the master said.
        reason: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// 422: the database has tables there that cannot be replicated.
    #[error("use the master's {call}: {reason}")]
    Unreplicable {
        /// The call.
        call: &'static str,
        /// What the master said: which tables, and why.
        reason: String,
    },
    /// 507: the volume of the node that answered is full.
    #[error("use the master's {call}: its volume is too full: {reason}")]
    NoRoom {
        /// The call.
        call: &'static str,
        /// What the master said: how much is needed and free.
        reason: String,
    },
    /// Any other status.
    #[error("use the master's {call}: it answered {status}: {reason}")]
    Refused {
        /// The call.
        call: &'static str,
        /// The HTTP status.
        status: u16,
        /// What the master said.
        reason: String,
    },
    /// An answer that is not the protocol's.
    #[error("understand the master's {call}: {reason}")]
    Malformed {
        /// The call.
        call: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl SourceError {
    /// Which of the named errors it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } => ErrorKind::MasterUnreachable,
            Self::Untrusted { .. } => ErrorKind::CertificateRefused,
            Self::Silent { .. } => ErrorKind::MasterSilent,
            Self::Unauthorized { .. } => ErrorKind::Unauthorized,
            Self::Forbidden { .. } => ErrorKind::Forbidden,
            Self::Loop { .. } => ErrorKind::ReplicationLoop,
            Self::NotVski { .. } => ErrorKind::NoVskiMaster,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Overloaded { .. } => ErrorKind::MasterOverloaded,
            Self::Unreplicable { .. } => ErrorKind::SnapshotUnsafe,
            Self::NoRoom { .. } => ErrorKind::MasterNoSpace,
            Self::Refused { .. } => ErrorKind::MasterRefused,
            Self::Malformed { .. } => ErrorKind::AnswerMalformed,
        }
    }

    /// No answer, for the network's reason.
    pub(super) fn unreachable(call: &'static str, source: reqwest::Error) -> Self {
        let source = source.without_url();
        // The TLS library's own error type is no part of the client's interface; its text begins with these words.
        if crate::error::chain(&source).contains("invalid peer certificate") {
            return Self::Untrusted { call, source };
        }
        Self::Unreachable { call, source }
    }

    /// When the master wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
