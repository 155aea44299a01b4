//! What a replica in between passes on of the master with each changeset: ages, by its own clock.

use reqwest::Response;
use reqwest::header::HeaderValue;
use vski_replication::names::header;
use vski_replication::node::Role;
use vski_replication::position::Position;

use super::{SourceError, client};

/// The master, as the replica that answered knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The master's head, and how long ago it was known to be that, ms.
    pub head: Option<(Position, i64)>,
    /// How long ago the replica was known to hold the master's head, ms.
    pub lag_ms: Option<i64>,
    /// The state of the replica's own copy.
    pub state: String,
}

impl Relay {
    /// What an answer tells; `None` if it is a master's.
    pub(super) fn told(call: &'static str, response: &Response) -> Result<Option<Self>, SourceError> {
        if !is_replicas(response) {
            return Ok(None);
        }
        let has = |name: &str| response.headers().contains_key(name);
        let head = if has(header::MASTER_HEAD) {
            let age: u64 = client::header_value(call, response, header::MASTER_HEAD_AGE)?;
            Some((client::header_value(call, response, header::MASTER_HEAD)?, ms(age)))
        } else {
            None
        };
        let lag_ms = if has(header::LAG) { Some(ms(client::header_value(call, response, header::LAG)?)) } else { None };
        Ok(Some(Self { head, lag_ms, state: client::header_value(call, response, header::STATE)? }))
    }
}

/// Whether the node that answered says that it is a replica.
pub(super) fn is_replicas(response: &Response) -> bool {
    let mode = response.headers().get(header::REPLICA_MODE).map(HeaderValue::as_bytes);
    mode == Some(Role::Replica.name().as_bytes())
}

/// Ages are far below this; one that is not makes no time before 1970.
fn ms(age: u64) -> i64 {
    i64::try_from(age).unwrap_or(i64::MAX).min(1 << 40)
}
