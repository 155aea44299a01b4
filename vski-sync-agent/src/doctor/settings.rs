use std::collections::BTreeSet;

use vski_replication::node::Role;
use vski_replication::token::MIN_SECRET_CHARS;

use super::{Finding, Subject};
use crate::config::NodeArgs;

/// Fewer different characters than this are a pattern, not a random text.
const MIN_DIFFERENT_CHARS: usize = 8;

/// How to make a secret.
const GENERATE: &str = "set JWT_SECRET to a random text on all nodes, as from: openssl rand -hex 32";

pub(super) fn examine(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = secrets(subject.node);
    if let (Ok(_), Err(error)) = (subject.node.secret(), subject.node.resolve()) {
        found.push(refused(&error.to_string()));
    }
    if subject.role == Role::Replica
        && let Err(error) = subject.sync.resolve()
    {
        found.push(refused(&error.to_string()));
    }
    found
}

/// A setting with which no program starts. The message has the repair after a colon.
#[must_use]
pub fn refused(message: &str) -> Finding {
    let (what, repair) = message.split_once(": ").unwrap_or((message, "see --help"));
    Finding::error(what, repair)
}

fn secrets(node: &NodeArgs) -> Vec<Finding> {
    let secret = match node.secret() {
        Ok(secret) => secret,
        Err(error) => return vec![refused(&error.to_string())],
    };
    let mut found = vec![strength(&secret)];
    if let Ok(Some(previous)) = node.previous_secret() {
        found.push(if previous == secret {
            Finding::warning("JWT_SECRET_PREVIOUS is the same as JWT_SECRET", "remove it")
        } else {
            Finding::info("JWT_SECRET_PREVIOUS is accepted too", "remove it once all nodes have the new JWT_SECRET")
        });
    }
    found
}

pub(super) fn strength(secret: &str) -> Finding {
    let (length, different) = (secret.chars().count(), secret.chars().collect::<BTreeSet<_>>().len());
    if length < MIN_SECRET_CHARS {
        return Finding::warning(
            format!("JWT_SECRET has {length} characters, fewer than {MIN_SECRET_CHARS}"),
            GENERATE,
        );
    }
    if different < MIN_DIFFERENT_CHARS {
        return Finding::warning(format!("JWT_SECRET consists of {different} different characters only"), GENERATE);
    }
    Finding::ok(format!("JWT_SECRET has {length} characters"))
}
