//! What is measured: VSKI, PocketBase and a bare axum server, each prepared once and started fresh for every round.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, SECRET};
use e2e::cluster::ADMIN;
use e2e::process::{self, Process};
use e2e::program::free_port;
use e2e::{eventually, offline, programs};

use crate::posts::{self, Ids};

/// How long a system may take to answer after its start, to stop, or for a command.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ids that a load chooses from.
const IDS: i64 = 10_000;

/// Which system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Vski,
    PocketBase,
    /// Has no data: answers everything alike.
    BareAxum,
}

/// A system that was prepared: its directory with the collection and the rows, which stays as it is.
pub struct System {
    pub kind: Kind,
    program: PathBuf,
    template: PathBuf,
    /// A copy of it, new for each start.
    work: PathBuf,
    /// Ids of rows, one a line.
    pub ids: PathBuf,
}

/// A running system.
pub struct Running {
    pub url: String,
    process: Process,
}

impl Kind {
    /// As tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vski => crate::report::VSKI,
            Self::PocketBase => "PocketBase",
            Self::BareAxum => "bare axum",
        }
    }

    fn program(self, tools: &Path) -> Result<PathBuf> {
        match self {
            Self::Vski => programs::server(),
            Self::PocketBase => Ok(tools.join("pocketbase")),
            Self::BareAxum => Ok(std::env::current_exe()?.with_file_name("bare-axum")),
        }
    }

    fn ids(self) -> Ids {
        if self == Self::PocketBase { Ids::Random } else { Ids::Ordered }
    }
}

impl System {
    /// Makes the collection through the API, and the rows while the system is stopped, all below `place`.
    pub fn prepare(kind: Kind, rows: u64, place: &Path, tools: &Path) -> Result<Self> {
        let place = place.join(format!("{kind:?}-{rows}").to_lowercase());
        let (template, work, ids) = (place.join("template"), place.join("work"), place.join("ids"));
        std::fs::create_dir_all(&template)?;
        let system = Self { kind, program: kind.program(tools)?, template, work, ids };
        if kind == Kind::BareAxum {
            std::fs::write(&system.ids, "000000000000000")?;
            return Ok(system);
        }
        system.make_admin()?;
        let running = system.launch(&system.template)?;
        let client = Client::new(&running.url)?;
        posts::create(&system.login(&client)?)?;
        running.stop()?;
        let file = system.file(&system.template);
        posts::fill(&file, rows, kind.ids())?;
        posts::write_ids(&file, IDS, &system.ids)?;
        Ok(system)
    }

    /// Starts it on a new copy of what was prepared.
    pub fn start(&self) -> Result<Running> {
        if self.work.exists() {
            std::fs::remove_dir_all(&self.work)?;
        }
        offline::copy(&self.template, &self.work)?;
        self.launch(&self.work)
    }

    /// The database in the directory of the last start, for a system that has one.
    pub fn worked_on(&self) -> PathBuf {
        self.file(&self.work)
    }

    /// The database as it was prepared.
    pub fn template_file(&self) -> PathBuf {
        self.file(&self.template)
    }

    fn launch(&self, directory: &Path) -> Result<Running> {
        let port = free_port()?;
        let mut command = self.command(directory, port);
        let process = Process::spawn(self.kind.name(), &mut command)?;
        let url = format!("http://127.0.0.1:{port}");
        let client = Client::new(&url)?;
        eventually(
            &format!("{} answers", self.kind.name()),
            PATIENCE,
            || Ok(client.get("/api/health")?.status == 200),
        )?;
        Ok(Running { url, process })
    }

    fn command(&self, directory: &Path, port: u16) -> Command {
        let mut command = process::command(&self.program);
        match self.kind {
            Kind::Vski => {
                command.arg("serve").env("PORT", port.to_string()).env("HOST", "127.0.0.1");
                command.env("DATA_DIR", directory).env("JWT_SECRET", SECRET);
                command.env("ADMIN_EMAIL", ADMIN.0).env("ADMIN_PASSWORD", ADMIN.1);
            }
            Kind::PocketBase => {
                command.args(["serve", "--automigrate=false", "--http"]).arg(format!("127.0.0.1:{port}"));
                command.args(pocketbase_directories(directory));
            }
            Kind::BareAxum => {
                command.arg(port.to_string());
            }
        }
        command
    }

    fn make_admin(&self) -> Result<()> {
        // VSKI makes its admin when it starts.
        if self.kind == Kind::PocketBase {
            let mut command = process::command(&self.program);
            command.args(["superuser", "upsert", ADMIN.0, ADMIN.1]).args(pocketbase_directories(&self.template));
            let done = process::run("pocketbase superuser", &mut command, PATIENCE)?;
            ensure!(done.status.success(), "pocketbase superuser upsert: {done:?}");
        }
        Ok(())
    }

    fn login(&self, client: &Client) -> Result<Client> {
        let body = serde_json::json!({"identity": ADMIN.0, "password": ADMIN.1});
        let path = "/api/collections/_superusers/auth-with-password";
        let reply = client.send(reqwest::Method::POST, path, Some(&body))?.ok()?.json()?;
        Ok(client.with_token(reply["token"].as_str().context("a login without a token")?))
    }

    fn file(&self, directory: &Path) -> PathBuf {
        directory.join(if self.kind == Kind::PocketBase { "data.db" } else { "default.db" })
    }
}

/// Everything of PocketBase's lies in one directory, and nothing of the current one is read.
fn pocketbase_directories(directory: &Path) -> Vec<std::ffi::OsString> {
    let flag = |name: &str, path: PathBuf| [name.into(), path.into_os_string()];
    [
        flag("--dir", directory.to_owned()),
        flag("--hooksDir", directory.join("none")),
        flag("--migrationsDir", directory.join("none")),
    ]
    .concat()
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGTERM, and the end.
    pub fn stop(mut self) -> Result<()> {
        self.process.terminate(PATIENCE).map(drop)
    }
}
