use std::collections::BTreeMap;

use rusqlite::Connection;
use vski_replication::changelog::{self, LogError};
use vski_replication::datadir::DataDir;
use vski_replication::files::Audit;
use vski_replication::names::{self, DATABASE_NAME_RULE};
use vski_replication::node::{NodeDb, Role};
use vski_replication::schema::gate;

use super::{Finding, open};

/// Uploaded files that a finding names.
const FILES_NAMED: usize = 5;

pub(super) fn examine(dir: &DataDir, role: Role, deep: bool) -> Vec<Finding> {
    let mut found = strangers(dir);
    let known = match role {
        // What node.db says cannot be read is found elsewhere.
        Role::Master => NodeDb::observe(dir).and_then(|node| node.map_or(Ok(BTreeMap::new()), |node| node.known())),
        Role::Replica => Ok(BTreeMap::new()),
    };
    let known = known.unwrap_or_default();
    let here = dir.databases().unwrap_or_default();
    let gone = known.iter().filter(|(db, made)| **made && !here.contains(db));
    found.extend(
        gone.map(|(db, _)| Finding::error(format!("{db}.db is gone: this master had that database"), lost(db))),
    );
    for db in here {
        if role == Role::Master && is_lost(dir, &db, known.get(&db).copied()) {
            found.push(Finding::error(format!("{db}.db is an empty file, no database"), lost(&db)));
            continue;
        }
        let findings = open(dir, &db).map_err(LogError::from).and_then(|conn| {
            let mut found = database(&conn, &db, role, deep)?;
            found.extend(uploads(&conn, dir, &db, role, deep)?);
            Ok(found)
        });
        found.extend(findings.unwrap_or_else(|error| vec![unreadable(&db, role, &error)]));
    }
    found
}

/// Whether a master takes the file for one that lost its content, and not for one that its maker had no time to fill.
fn is_lost(dir: &DataDir, db: &str, made: Option<bool>) -> bool {
    let empty = std::fs::metadata(dir.database(db)).is_ok_and(|file| file.len() == 0);
    empty && made != Some(false) && (made.is_some() || db != names::DEFAULT_DATABASE)
}

/// What to do about a master's database without its file.
fn lost(db: &str) -> String {
    format!(
        "stop the master, restore it from a replica's file or a backup, or give it up: move what is left of it away, and: \
         vski-server forget {db}"
    )
}

/// Files that look like databases and that nobody serves.
fn strangers(dir: &DataDir) -> Vec<Finding> {
    let listed = std::fs::read_dir(dir.root()).into_iter().flatten().flatten();
    let names = listed.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let stems = names.filter_map(|name| name.strip_suffix(".db").map(str::to_owned));
    let repair = format!("rename or remove it; a database's name is {DATABASE_NAME_RULE}");
    stems
        .filter(|name| !names::is_database_name(name))
        .map(|name| Finding::warning(format!("{name}.db is ignored: that is no database name"), &*repair))
        .collect()
}

fn database(conn: &Connection, db: &str, role: Role, deep: bool) -> Result<Vec<Finding>, LogError> {
    // A file without anything in it is one that its maker had no time to fill.
    if conn.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_master)", [], |row| row.get(0))? {
        return Ok(vec![Finding::info(format!("database {db} is empty"), "the next start fills it")]);
    }
    changelog::database_id(conn)?;
    let head = changelog::head(conn)?;
    let mut found = Vec::new();
    for problem in gate::problems(conn)? {
        let repair = match role {
            Role::Master => "until then no node starts with it: change the table with vski-server sql or sqlite3",
            Role::Replica => "change the table on the master",
        };
        found.push(Finding::error(format!("database {db} cannot be replicated: {problem}"), repair));
    }
    if deep {
        found.extend(quick_check(conn, db)?);
    }
    if found.is_empty() {
        found.push(Finding::ok(format!("database {db} is at version {}", head.position.version)));
    }
    found.extend(kept(conn, db)?);
    Ok(found)
}

/// Uploaded files that rows name and the disk lacks, or has otherwise; their bytes are compared if `deep`.
fn uploads(conn: &Connection, dir: &DataDir, db: &str, role: Role, deep: bool) -> Result<Option<Finding>, LogError> {
    let audit = Audit::run(conn, dir, db, deep, FILES_NAMED)?;
    if audit.flawed() == 0 {
        return Ok(None);
    }
    let (missing, damaged, files) = (audit.missing, audit.damaged, audit.files);
    let what = format!(
        "database {db}: of {files} uploaded files {missing} are missing and {damaged} damaged: {}",
        audit.told(FILES_NAMED)
    );
    let folder = dir.files(db);
    let folder = folder.display();
    Ok(Some(match role {
        Role::Master => Finding::error(
            what,
            format!("copy them to {folder} from a replica's storage/{db} or a backup: they are served at once"),
        ),
        Role::Replica if damaged == 0 => Finding::warning(
            what,
            "nothing while they are on their way; if they stay missing, see vski-sync-agent status: the master may lack them",
        ),
        Role::Replica => Finding::error(what, "vski-sync-agent verify --repair fetches them anew; check the disk"),
    }))
}

fn quick_check(conn: &Connection, db: &str) -> Result<Option<Finding>, LogError> {
    let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    let what = format!("database {db} is damaged: {verdict}");
    Ok((verdict != "ok").then(|| Finding::error(what, "restore it from a backup, or from a replica's file")))
}

fn kept(conn: &Connection, db: &str) -> Result<Option<Finding>, LogError> {
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 11) = '_vski_kept_' ORDER BY 1";
    let names = conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    let what = format!("database {db} keeps tables that its master lacks or shapes otherwise: {}", names.join(", "));
    Ok((!names.is_empty()).then(|| Finding::info(what, "look into them, and drop what nobody misses")))
}

fn unreadable(db: &str, role: Role, error: &LogError) -> Finding {
    match (error, role) {
        (LogError::NotOurs(_), Role::Master) => Finding::error(
            format!("{db}.db is no VSKI database: {error}"),
            "move it out of DATA_DIR: a master does not start with it; import its rows instead",
        ),
        (LogError::NotOurs(_), Role::Replica) => Finding::warning(
            format!("{db}.db is no VSKI database: {error}"),
            "move it out of DATA_DIR: the agent sets it aside if the master has a database of that name",
        ),
        _ => Finding::error(
            format!("database {db} cannot be read: {error}"),
            "look with --deep; restore it from a backup, or from a replica's file",
        ),
    }
}
