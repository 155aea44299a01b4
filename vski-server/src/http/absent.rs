//! What PocketBase has and this server does not, told by name: whoever comes from there learns what to do in its place.

/// Paths, with all that is under them, and why there is nothing.
const ABSENT: [(&str, &str); 9] = [
    ("/api/settings", "settings are the variables of the process: see README.md"),
    ("/api/logs", "logs go to stderr, counters to /metrics, traces to OTLP"),
    ("/api/backups", "back up as docs/OPERATIONS.md says"),
    ("/api/crons", "nothing runs by the clock here"),
    ("/api/realtime", "there is no realtime yet: ask again, or read a list with a filter on updated"),
    ("/api/collections/meta/scaffolds", "it is for a dashboard, and there is none"),
    ("/api/collections/meta/oauth2-providers", "there are no logins at other sites: log in with a password"),
    ("/api/collections/meta/dry-run-view", "make the view: a wrong viewQuery is refused, and nothing is stored"),
    ("/_", "there is no dashboard: GET /api/docs shows the API"),
];

/// Why nothing is at this path, if it is one of PocketBase's.
pub fn reason(path: &str) -> Option<&'static str> {
    let under = |(absent, _): &&(&str, &str)| {
        path.strip_prefix(absent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    ABSENT.iter().find(under).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pocketbase_has_beside_is_told_with_a_reason_and_nothing_else_is() {
        for path in
            ["/api/settings", "/api/settings/test/s3", "/api/logs/stats", "/_/", "/api/collections/meta/scaffolds"]
        {
            assert!(reason(path).is_some(), "{path}");
        }
        for path in ["/api/settingsx", "/api", "/api/nothing", "/_x", "/api/collections/meta"] {
            assert_eq!(reason(path), None, "{path}");
        }
    }
}
