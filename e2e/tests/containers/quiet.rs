//! Lines that nobody expected, in the logs of nodes and of what stands beside them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

/// What stands in a line of a program that wants to be looked at: of ours, of HAProxy, Nginx, Traefik and Prometheus.
const ALARMS: [&str; 20] = [
    " WARN ",
    " ERROR ",
    "panicked at",
    "[WARNING]",
    "[ALERT]",
    "[EMERG]",
    " is DOWN",
    "no server available",
    "[warn]",
    "[error]",
    "[crit]",
    "[alert]",
    "[emerg]",
    // Traefik's words are coloured.
    "mWRN\u{1b}",
    "mERR\u{1b}",
    "mFTL\u{1b}",
    " WRN ",
    " ERR ",
    "level=WARN",
    "level=ERROR",
];

/// Fails with the lines that want to be looked at, but those that contain one of `expected`.
pub fn check(logs: &str, expected: &[&str]) -> Result<()> {
    let alarm = |line: &&str| ALARMS.iter().any(|alarm| line.contains(alarm));
    let unexpected = |line: &&str| !expected.iter().any(|expected| line.contains(expected));
    let alarms: BTreeSet<&str> = logs.lines().filter(alarm).filter(unexpected).collect();
    ensure!(alarms.is_empty(), "unexpected warnings:\n{}", Vec::from_iter(alarms).join("\n"));
    Ok(())
}

/// What a load balancer says when a node that it has asked is killed, paused or behind.
pub fn proxy(service: &str) -> &'static [&'static str] {
    match service {
        "haproxy" => &[
            "Server readers/",
            "Server stale_readers/",
            "Server master/master ",
            ": IP changed from ",
            "backend master has no server available",
            "backend 'master' has no server available",
            // When it reads its file again.
            " stopped (cumulated conns: ",
            "Former worker ",
        ],
        "nginx" => &[
            "upstream server temporarily disabled",
            "upstream timed out",
            "upstream prematurely closed connection",
            "connect() failed (111: Connection refused)",
            "recv() failed (104: Connection reset by peer)",
            "could not be resolved (3: Host not found)",
            "no live upstreams while connecting to upstream",
        ],
        _ => &[
            // At its start; both are about servers that are less careful with what they are sent than ours.
            "Traefik can reject some encoded characters",
            "aliasHeadersStrategy is not configured",
            "Health check failed",
        ],
    }
}
