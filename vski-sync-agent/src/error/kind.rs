//! Every error of the agent by a name that does not change, with what follows from it and what to do.
//!
//! The names are a contract: label `error` of `vski_sync_errors_total`, field `error_name` of log lines, `lastError` in
//! `status`, /readyz and node.db. docs/OPERATIONS.md lists them; a test compares its table with this one.

use super::Recovery;

macro_rules! kinds {
    ($($variant:ident $name:literal $recovery:ident $state:literal $meaning:literal => $remedy:literal;)+) => {
        /// What went wrong, without its particulars.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorKind {
            $(#[doc = $meaning] $variant,)+
        }

        impl ErrorKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name, in `snake_case`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What the agent does about it.
            #[must_use]
            pub fn recovery(self) -> Recovery {
                match self { $(Self::$variant => Recovery::$recovery,)+ }
            }

            /// The state that it leaves a database in.
            #[must_use]
            pub fn state(self) -> &'static str {
                match self { $(Self::$variant => $state,)+ }
            }

            /// What it means, in a few words.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }

            /// What an operator can do.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)+ }
            }
        }
    };
}

kinds! {
    MasterUnreachable "master_unreachable" Retry "retrying"
        "no connection to MASTER_URL, or it broke"
        => "start the master, or check MASTER_URL and the network between";
    CertificateRefused "certificate_refused" Retry "retrying"
        "the certificate of MASTER_URL proves nothing here"
        => "name its CA in MASTER_CA_FILE, and in MASTER_URL a host that it is for";
    MasterSilent "master_silent" Retry "retrying"
        "connected, and then no answer"
        => "look whether the master hangs or the network drops packets";
    Unauthorized "unauthorized" Retry "retrying"
        "the master refuses this node's token"
        => "set the master's JWT_SECRET here, and both clocks right";
    Forbidden "forbidden" Retry "retrying"
        "the node at MASTER_URL does not serve replicas"
        => "point MASTER_URL at the master";
    ReplicationLoop "replication_loop" Retry "retrying"
        "MASTER_URL leads to a replica that follows this node"
        => "point MASTER_URL of one of them at the master; where two nodes have one REPLICA_ID, give each its own";
    NoVskiMaster "no_vski_master" Retry "retrying"
        "something else than a VSKI node answers at MASTER_URL"
        => "point MASTER_URL at the master's own address, scheme and port, without a path";
    NotFound "not_found" Retry "retrying"
        "the master no longer has what was asked for"
        => "nothing: it is asked for anew; if it stays, run one version on both nodes";
    MasterOverloaded "master_overloaded" Retry "retrying"
        "the master is overloaded or stopping, or that database is unusable there"
        => "nothing if it passes; else see the master's log";
    MasterNoSpace "master_no_space" Retry "retrying"
        "no room for a snapshot on the volume of the node at MASTER_URL"
        => "make room on the file system of the master's DATA_DIR";
    MasterRefused "master_refused" Retry "retrying"
        "the master answers with an error"
        => "see the master's log for the request";
    AnswerMalformed "answer_malformed" Retry "retrying"
        "an answer that is not the protocol's"
        => "run one version on both nodes, and let no proxy between change answers";
    EntriesUnreadable "entries_unreadable" Retry "retrying"
        "entries that are cut off or damaged came"
        => "nothing if it passes; else let no proxy between change answers";
    BatchEmpty "batch_empty" Retry "retrying"
        "the master announced entries and sent none"
        => "run one version on both nodes, and let no proxy between change answers";
    EntryOutOfOrder "entry_out_of_order" Retry "retrying"
        "an entry is missing, repeated or out of order"
        => "nothing if it passes; else compare: vski-sync-agent verify";
    ChainBroken "chain_broken" Retry "retrying"
        "an entry does not follow from the one before it"
        => "nothing if it passes; else check the master's disk: vski-server doctor --deep";
    EpochNotBegun "epoch_not_begun" Retry "retrying"
        "an entry belongs to an epoch that no entry began"
        => "nothing if it passes; else check the master's disk: vski-server doctor --deep";
    ForeignMaster "foreign_master" Stop "foreign_master"
        "the master's database is another one of that name"
        => "point MASTER_URL at the right master; to follow this one, stop this node, move the database's files out of DATA_DIR, and start again";
    StaleMaster "stale_master" Stop "stale_master"
        "an old master came back after a promotion"
        => "point MASTER_URL at the promoted master, or take the old one out of service";
    SplitBrain "split_brain" Stop "split_brain"
        "two masters opened the same generation"
        => "choose one master and point MASTER_URL at it; if it is another one than this copy followed, stop this node, move the database's files out of DATA_DIR, and start again";
    MissingOnMaster "missing_on_master" Stop "missing_on_master"
        "the master does not list this database any more"
        => "restore it on the master (its log says if the file is unusable), or name it in REPLICA_OMIT_DBS";
    HistoryLost "history_lost" Converge "diverged"
        "409: the master's log lacks this copy's head"
        => "nothing: rows that differ are fetched; what vanishes here is kept in .vski/lost";
    ParentBehind "parent_behind" Retry "retrying"
        "the replica at MASTER_URL does not have yet what is to be compared"
        => "nothing if it passes; else see that replica's state";
    HistoryPruned "history_pruned" Converge "diverged"
        "410: the log at MASTER_URL begins after this copy's head: that node has pruned it, or is a replica that has converged"
        => "nothing: rows that differ are fetched; if it is pruned too early, raise RETENTION_AGE and RETENTION_BYTES there";
    Conflict "conflict" Converge "diverged"
        "an entry does not fit the rows here"
        => "nothing: rows that differ are fetched; let no other program write to the replica's files";
    Unequal "unequal" Converge "diverged"
        "verify found rows that differ"
        => "nothing: rows that differ are fetched; let no other program write to the replica's files";
    UncapturedChange "uncaptured_change" Converge "diverged"
        "the master's rows changed in a way that its log does not tell"
        => "nothing: rows that differ are fetched; change the master's files by vski-server sql only";
    SchemaMigrationFailed "schema_migration_failed" Converge "diverged"
        "the schema cannot be made the master's by adding"
        => "nothing: the table is set aside as _vski_kept_… and copied anew";
    SchemaForgotten "schema_forgotten" Converge "diverged"
        "the master's log does not tell an entry's schema any more"
        => "nothing: rows that differ are fetched";
    SchemaUnreachable "schema_unreachable" Stop "schema_unreachable"
        "not even by setting tables aside can the schema be made the master's"
        => "bring the table to the master's schema by hand, or stop this node, move the database's files out of DATA_DIR, and start again; then request a sync";
    SnapshotUnsafe "snapshot_unsafe" Stop "schema_unreachable"
        "the master's database has tables that cannot be replicated"
        => "change or drop those tables on the master (its log and vski-server doctor name them): the copy then goes on by itself";
    MalformedFile "malformed_file" Stop "malformed"
        "the file is damaged, or no VSKI database"
        => "nothing once the master lists it: the file is set aside in .vski/lost and fetched anew; check the disk";
    Meddled "meddled" Retry "retrying"
        "another process wrote the local log"
        => "let no other program write to the replica's files";
    DiskFull "disk_full" Retry "retrying"
        "no space left on DATA_DIR's file system"
        => "make room on DATA_DIR's file system";
    DatabaseBusy "database_busy" Retry "retrying"
        "another program holds the database's lock"
        => "end the program that holds the database open for writing";
    SqliteFailed "sqlite_failed" Retry "retrying"
        "SQLite cannot read or write the local database"
        => "check DATA_DIR's disk and who may write to it: vski-sync-agent doctor";
    SnapshotDiffers "snapshot_differs" Retry "retrying"
        "a download that is not what its manifest says"
        => "nothing if it passes; else check both disks: vski-server doctor --deep on the master";
    NoSpace "no_space" Retry "retrying"
        "less space is free than the snapshot needs"
        => "make room on DATA_DIR's file system";
    FileInUse "file_in_use" Retry "retrying"
        "a server has the database open whose file must be replaced"
        => "nothing if it passes; else restart the server beside this agent";
    IoFailed "io_failed" Retry "retrying"
        "a file operation failed"
        => "check DATA_DIR's disk and who may write to it: vski-sync-agent doctor";
    DataDirectory "data_directory" Retry "retrying"
        "DATA_DIR cannot be used"
        => "check DATA_DIR: vski-sync-agent doctor";
    FileAwaited "file_awaited" Retry "follow"
        "the replica at MASTER_URL does not have an uploaded file yet"
        => "nothing if it passes; else see that replica's state";
    FileLost "file_lost" Retry "follow"
        "the node at MASTER_URL does not have an uploaded file that a row names"
        => "nothing if another node that follows the master has it, and gives it back within ten minutes; else copy it from a backup to storage/<db>/ of the master's DATA_DIR, where it is served at once";
    FileDiffers "file_differs" Retry "follow"
        "an uploaded file came that is not what its row says"
        => "nothing if it passes; else the file is damaged in storage of the master's DATA_DIR: restore it, from a replica or a backup";
    Panicked "panicked" Retry "retrying"
        "a defect of the program ended the database's task, which is started anew"
        => "report the log's lines around it; restart with another version if it stays";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the tables in a section of docs/OPERATIONS.md.
    fn documented(title: &str) -> Vec<String> {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md");
        let text = std::fs::read_to_string(file).unwrap();
        let section = text.split(&format!("\n## {title}\n")).nth(1).expect("a section of that title");
        let section = section.split("\n## ").next().unwrap();
        section.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect()
    }

    #[test]
    fn the_operators_table_lists_every_error_with_its_state_meaning_and_remedy() {
        let row = |kind: &ErrorKind| {
            format!("| `{}` | `{}` | {} | {} |", kind.name(), kind.state(), kind.meaning(), kind.remedy())
        };
        let expected: Vec<String> = ErrorKind::ALL.iter().map(row).collect();
        assert_eq!(documented("Errors"), expected, "the table should be:\n{}", expected.join("\n"));
    }

    #[test]
    fn the_operators_table_of_states_has_every_state_that_an_error_leads_to() {
        let rows = documented("States of a database on a replica");
        let told: Vec<&str> = rows.iter().filter_map(|row| row.split('`').nth(1)).collect();
        for kind in ErrorKind::ALL {
            assert!(told.contains(&kind.state()), "{} is not in {told:?}", kind.state());
        }
    }

    #[test]
    fn names_are_snake_case_and_all_different() {
        let mut names: Vec<&str> = ErrorKind::ALL.iter().map(|kind| kind.name()).collect();
        assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn the_state_tells_what_the_agent_does() {
        for kind in ErrorKind::ALL {
            match kind.recovery() {
                // A database is followed whatever becomes of its uploaded files.
                Recovery::Retry if kind.name().starts_with("file_") && *kind != ErrorKind::FileInUse => {
                    assert_eq!(kind.state(), "follow", "{kind:?}");
                }
                Recovery::Retry => assert_eq!(kind.state(), "retrying", "{kind:?}"),
                Recovery::Converge => assert_eq!(kind.state(), "diverged", "{kind:?}"),
                Recovery::Stop => assert!(!["retrying", "diverged"].contains(&kind.state()), "{kind:?}"),
            }
            assert!(!kind.remedy().is_empty() && !kind.meaning().is_empty());
        }
    }
}
