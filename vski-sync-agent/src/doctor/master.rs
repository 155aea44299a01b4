use std::time::Duration;

use anyhow::{Context, Result};
use vski_replication::token::CLOCK_SKEW_SECONDS;

use super::{Finding, Subject};
use crate::error::chain;
use crate::source::{Identity, Source, SourceError};

/// The id that the master hears: it takes part in nothing that the master keeps of its replicas.
const CALLER: &str = "doctor";

/// Clocks further apart than this want attention, long before tokens are refused.
const SKEW_TO_WATCH_MS: u64 = 5_000;

/// Nothing without MASTER_URL, or with settings that were already found wrong.
pub(super) fn examine(subject: &Subject<'_>) -> Result<Vec<Finding>> {
    if !subject.sync.has_master() {
        return Ok(Vec::new());
    }
    let (Ok(node), Ok(sync)) = (subject.node.resolve(), subject.sync.resolve()) else { return Ok(Vec::new()) };
    let source = match Source::new(&sync, Identity::new(node.secrets, CALLER.to_owned(), None)) {
        Ok(source) => source,
        Err(error) => return Ok(vec![super::refused(&error.to_string())]),
    };
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let answer = runtime.block_on(source.status(None, Duration::ZERO));
    let mut found = vec![match answer {
        Ok(listed) => {
            let what = if source.is_replica() { "replica" } else { "master" };
            Finding::ok(format!("the {what} at {} offers {} databases", sync.master_url, listed.dbs.len()))
        }
        Err(error) => Finding::error(
            format!("the master at {} does not answer as one: {}", sync.master_url, chain(&error)),
            repair(&error),
        ),
    }];
    found.extend(source.upstream().filter(|path| !path.is_empty()).map(|path| cascade(&path)));
    found.extend(source.clock_skew_ms().map(skew));
    Ok(found)
}

fn repair(error: &SourceError) -> &'static str {
    match error {
        SourceError::Unreachable { .. } | SourceError::Silent { .. } => {
            "check MASTER_URL, that the master runs, and the network in between"
        }
        SourceError::Untrusted { .. } => "set MASTER_CA_FILE, or MASTER_URL to the certificate's host",
        SourceError::Unauthorized { .. } => "set the master's JWT_SECRET here, and both clocks right",
        SourceError::Overloaded { .. } => "try again in a moment",
        _ => "set MASTER_URL to the address of a VSKI master",
    }
}

/// A replica in between is fine, and worth knowing.
fn cascade(path: &str) -> Finding {
    let path = path.replace(',', ", then ");
    let what = format!("cascade: the node at MASTER_URL is a replica; on the way to the master are {path}");
    Finding::info(what, "nothing, if it is meant to be so: each replica on the way adds to this node's lag")
}

/// This clock minus the master's.
pub(super) fn skew(skew_ms: i64) -> Finding {
    const REPAIR: &str = "have both machines' clocks set by NTP";
    let apart = skew_ms.unsigned_abs();
    let direction = if skew_ms > 0 { "ahead of" } else { "behind" };
    let what = format!("this clock is {:.1} s {direction} the master's", apart as f64 / 1000.0);
    if apart > CLOCK_SKEW_SECONDS * 1000 {
        return Finding::error(what, REPAIR);
    }
    if apart > SKEW_TO_WATCH_MS { Finding::warning(what, REPAIR) } else { Finding::ok(what) }
}
