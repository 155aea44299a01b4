//! With one line of a load balancer's file broken, the routes are not what they should be, and that is noticed.

use anyhow::{Result, ensure};
use e2e::eventually;

use super::balancer::{Balanced, routes};
use super::images::compose_file;
use super::project::READY;

/// What a broken line makes wrong: a part of what the check of the routes says then.
const WRITES: &str = "POST with id r001 was answered by r001";
const UPGRADES: &str = "an upgrade with r001's id";
const IDS: &str = " with id r001 was answered by ";
const UNKNOWN: &str = " unknown id";
const SUBDOMAINS: &str = " with subdomain r001 was answered by ";
const INTERNAL: &str = "/metrics was answered";

/// A load balancer's file, and lines of it with what stands there instead, and what goes wrong.
pub struct Broken {
    /// In compose/.
    pub file: &'static str,
    /// Where the service has it.
    pub place: &'static str,
    lines: [(&'static str, &'static str, &'static str); 6],
}

const HAPROXY: Broken = Broken {
    file: "haproxy/haproxy.cfg",
    place: "/usr/local/etc/haproxy/haproxy.cfg",
    lines: [
        ("use_backend master if !read or upgrade", "use_backend master if upgrade", WRITES),
        ("use_backend master if !read or upgrade", "use_backend master if !read", UPGRADES),
        ("use-server r001 if r001 or !has_id r001_host", "use-server r001 if !has_id r001_host", IDS),
        ("use-server master if has_id !r001 !r002", "", UNKNOWN),
        ("use-server r001 if r001 or !has_id r001_host", "use-server r001 if r001", SUBDOMAINS),
        ("path /metrics ", "path /nothing ", INTERNAL),
    ],
};

const NGINX: Broken = Broken {
    file: "nginx/nginx.conf",
    place: "/etc/nginx/nginx.conf",
    lines: [
        ("default    1;", "default    0;", WRITES),
        ("\"GET \"     0;", "\"~^GET\"    0;", UPGRADES),
        ("\"r001\"  r001;", "\"r001\"  readers;", IDS),
        ("default unknown_id;", "default readers;", UNKNOWN),
        ("\"r001.*\" r001;", "\"r001.*\" readers;", SUBDOMAINS),
        ("location = /metrics ", "location = /nothing ", INTERNAL),
    ],
};

const TRAEFIK: Broken = Broken {
    file: "traefik/routes.yaml",
    place: "/etc/traefik/routes.yaml",
    lines: [
        ("priority: 40", "priority: 5", WRITES),
        (" || HeaderRegexp(`Upgrade`, `.`)", "", UPGRADES),
        ("Header(`X-Replica-Id`, `r001`) || ", "", IDS),
        ("rule: \"HeaderRegexp(`X-Replica-Id`, `.`)\"", "rule: \"HeaderRegexp(`X-Replica-Id`, `^none$`)\"", UNKNOWN),
        ("HostRegexp(`^r001\\\\.`)", "HostRegexp(`^none\\\\.`)", SUBDOMAINS),
        ("Path(`/metrics`)", "Path(`/nothing`)", INTERNAL),
    ],
};

/// What there is to break in a load balancer's file.
pub fn lines_of(service: &str) -> &'static Broken {
    match service {
        "haproxy" => &HAPROXY,
        "nginx" => &NGINX,
        _ => &TRAEFIK,
    }
}

/// Starts the load balancer with each line broken, and at last with its own file.
pub fn scenario(balanced: &mut Balanced) -> Result<()> {
    let Broken { file, place, lines } = lines_of(balanced.service);
    let text = std::fs::read_to_string(compose_file(file))?;
    for (line, instead, wrong) in lines {
        ensure!(text.contains(line), "{file} has no line {line:?} to break");
        balanced.replace(Some((place, &text.replace(line, instead))))?;
        eventually(&format!("{line:?} is missed"), READY, || {
            let Err(noticed) = routes(balanced) else { return Ok(false) };
            ensure!(format!("{noticed:#}").contains(wrong), "it failed otherwise: {noticed:#}");
            Ok(true)
        })?;
    }
    balanced.replace(None)?;
    balanced.wait_routed()
}
