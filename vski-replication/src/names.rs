//! Words that both ends must spell alike: routes, headers, reserved names.

/// Prefix of our own bookkeeping tables. They are in no schema hash, no changeset and no collection.
pub const RESERVED_PREFIX: &str = "_vski_";

/// Whether a table name is ours or SQLite's. By prefix, not LIKE, where `_` would match any character.
#[must_use]
pub fn is_reserved_table(name: &str) -> bool {
    let has = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    has(RESERVED_PREFIX) || has("sqlite_")
}

/// The database that always exists: admins live in it.
pub const DEFAULT_DATABASE: &str = "default";

/// Databases that each node keeps for itself and never replicates (the specification's "Omitted Databases").
pub const NODE_LOCAL_DATABASES: [&str; 2] = ["stats", "workflows"];

/// What a database's name must look like: it becomes a file name, a header and a query parameter.
pub const DATABASE_NAME_RULE: &str = "1 to 63 letters, digits, '-' or '_', beginning with a letter or digit";

/// Whether a name obeys [`DATABASE_NAME_RULE`].
#[must_use]
pub fn is_database_name(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=63).contains(&name.len()) && name.chars().all(ok) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Where a replica that serves others is behind the one that asks it: the state of the latter's copy, which waits.
pub const PARENT_BEHIND: &str = "parent_behind";

/// Where a replica that serves others does not have an uploaded file yet: the caller tries again.
pub const FILE_AWAITED: &str = "file_awaited";

/// Routes of the replication protocol, on the master and on replicas that serve others.
pub mod route {
    /// The databases and their positions. `?wait=<seconds>&known=<names>` waits for a change of the set.
    pub const STATUS: &str = "/api/replica/status";
    /// A database's schema. `?db=`, optionally `&version=` for the schema in force there.
    pub const SCHEMA_SYNC: &str = "/api/replica/schema-sync";
    /// Entries after a position. `?db=&epoch=&version=&chain=&wait=<seconds>`. With `&held=<ms>`, how long the caller
    /// has had that position, a replica that is behind it says so as long as it cannot tell that the master is, too.
    pub const CHANGESET: &str = "/api/replica/changeset";
    /// A new snapshot's manifest. `?db=`. The file follows under `/{id}`.
    pub const SNAPSHOT: &str = "/api/replica/snapshot";
    /// An uploaded file, by `/{name}?db=`. On a master: `?db=` for the names of those that it has lost, `PUT /{name}` gives
    /// one back.
    pub const FILES: &str = "/api/replica/files";
    /// A replica reports the position it starts from. `POST {db, position}`.
    pub const SESSION: &str = "/api/replica/session";
    /// The replicas that the master has heard of.
    pub const REPLICAS: &str = "/api/replica/replicas";
    /// On a replica: sync now. `POST`.
    pub const SYNC: &str = "/api/replica/sync";
    /// On a replica: compare with the master. `POST`, `?repair=true` converges where rows differ.
    pub const VERIFY: &str = "/api/replica/verify";
    /// On a replica: stop following and let the directory's lock go. `POST`.
    pub const RELEASE: &str = "/api/replica/release";
    /// On a master: take no more writes, a replica is taking over. `POST`; `DELETE` takes them again.
    pub const HANDOVER: &str = "/api/replica/handover";
}

/// Value of [`header::FRAMES`]: entries may end with their trace.
pub const TRACED_FRAMES: &str = "traced";

/// Header names, in lower case as HTTP/2 and the `http` crate want them.
pub mod header {
    /// `master` or `replica`, on every response.
    pub const REPLICA_MODE: &str = "x-replica-mode";
    /// The answering node's id; on replication calls the calling node's.
    pub const REPLICA_ID: &str = "x-replica-id";
    /// The calling node's public address, if it has one.
    pub const REPLICA_PUBLIC_URL: &str = "x-replica-public-url";
    /// A random id per process start: two processes under one node id show by it.
    pub const REPLICA_BOOT_ID: &str = "x-replica-boot-id";
    /// The version of the calling node's program.
    pub const VERSION: &str = "x-vski-version";
    /// The master's address, on a replica's responses.
    pub const MASTER_URL: &str = "x-master-url";
    /// A machine's API key.
    pub const API_KEY: &str = "x-api-key";
    /// The database a request is about.
    pub const DATABASE_NAME: &str = "x-dbname";
    /// The master's head position, with a changeset.
    pub const HEAD: &str = "x-vski-head";
    /// The master's database id, with a changeset.
    pub const DATABASE_ID: &str = "x-vski-database-id";
    /// What the caller of a changeset reads in frames: [`TRACED_FRAMES`](super::TRACED_FRAMES), else what every version
    /// reads.
    pub const FRAMES: &str = "x-vski-frames";
    /// The master's schema hash, with a changeset.
    pub const SCHEMA_HASH: &str = "x-vski-schema-hash";
    /// The master's clock, with every answer of the replication protocol: `<asked>,<answered>`, ms since 1970.
    pub const TIME: &str = "x-vski-time";
    /// What the bytes of a JSON answer of the replication protocol hash to: see [`crate::digest`].
    pub const DIGEST: &str = "x-vski-digest";
    /// From a replica that serves others: its id and those of the nodes above it, with commas, the nearest first.
    pub const PATH: &str = "x-vski-path";
    /// From a replica, with a changeset: the master's head position as it knows it.
    pub const MASTER_HEAD: &str = "x-vski-master-head";
    /// How long ago the master was known to have that head, ms.
    pub const MASTER_HEAD_AGE: &str = "x-vski-master-head-age";
    /// From a replica, with a changeset: how long ago it was known to hold the master's head, ms.
    pub const LAG: &str = "x-vski-lag";
    /// From a replica, with a changeset: the state of its own copy.
    pub const STATE: &str = "x-vski-state";
    /// [`super::PARENT_BEHIND`] with a 204, where the caller is further than the replica that it asked;
    /// [`super::FILE_AWAITED`] with a 503, where that replica does not have an uploaded file yet.
    pub const STANDING: &str = "x-vski-standing";
    /// Where a write stands, on its answer: `<db>:<generation>-<epoch id>:<version>`.
    pub const POSITION: &str = "x-vski-position";
    /// What a read has to see at least: one or more of [`POSITION`]'s values, with commas.
    pub const MIN_POSITION: &str = "x-vski-min-position";
}

/// Beginning of the names of cookies that carry a write's position to a browser's next read: the database follows.
pub const POSITION_COOKIE: &str = "vski-position-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_tables_are_told_by_their_exact_prefix_in_any_case() {
        for name in ["_vski_changelog", "_VSKI_x", "sqlite_sequence", "SQLITE_stat1"] {
            assert!(is_reserved_table(name), "{name}");
        }
        for name in ["xvskiyz", "avski_x", "_vsk", "sqlitex", "ä", "_vskiä"] {
            assert!(!is_reserved_table(name), "{name}");
        }
    }

    #[test]
    fn a_database_name_can_never_leave_its_directory() {
        for name in ["default", "shop-2", "A_b", "0"] {
            assert!(is_database_name(name), "{name}");
        }
        let long = "a".repeat(64);
        for name in ["", ".", "..", "a/b", "a.b", "-a", "_vski_x", "a b", "ä", long.as_str()] {
            assert!(!is_database_name(name), "{name}");
        }
    }
}
