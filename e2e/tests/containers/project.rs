//! One topology of compose/, started from the very file that users get. Only its name, subnet, ports and image differ, and
//! the variables that a scenario sets as a user would in .env.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::docker::{self, docker, finish};
use e2e::eventually;
use tempfile::TempDir;

use super::images::{Images, SCOPE, compose_file};
use super::quiet;
use e2e::reads::NODES;

/// How long a topology may take to be up, on a busy machine.
const UP: Duration = Duration::from_secs(300);

/// How long what is typed may take: some commands make every container anew, twice.
const TYPED: Duration = Duration::from_secs(1200);

/// How long a node may take to be ready again.
pub const READY: Duration = Duration::from_secs(180);

/// Logs of one container that a failed scenario prints, lines.
const TAIL: &str = "60";

/// The admin of every topology.
pub const ADMIN: (&str, &str) = ("admin@example.com", "correct horse battery staple");

/// The port of every node in its container.
const PORT: u16 = 3001;

/// A topology that runs. It is removed with everything that it made when this is dropped.
pub struct Project {
    name: String,
    file: String,
    overrides: TempDir,
    /// Files of Compose after the topology's own.
    more: Vec<PathBuf>,
    environment: BTreeMap<String, String>,
    images: (String, String),
    /// What containers have said that are gone.
    past: RefCell<String>,
    succeeded: bool,
}

impl Project {
    /// Starts `compose/<file>` and waits until all of it is healthy. `balancer` is the service that listens on 8080.
    pub fn up(file: &str, balancer: Option<&str>, images: &Images, settings: &[(&str, &str)]) -> Result<Self> {
        let balancer: Vec<(&str, u16)> = balancer.map(|balancer| (balancer, 8080)).into_iter().collect();
        let project = Self::new(file, &balancer, images, settings)?;
        project.start()?;
        Ok(project)
    }

    /// The same, before it is started. `listens` are services beside the nodes, and their ports.
    pub fn new(file: &str, listens: &[(&str, u16)], images: &Images, settings: &[(&str, &str)]) -> Result<Self> {
        let topology = file.trim_end_matches(".yaml");
        let name = SCOPE.name(topology);
        let overrides = tempfile::tempdir()?;
        let mut text = String::from("services:\n");
        for (service, port) in NODES.map(|node| (node, PORT)).iter().chain(listens) {
            writeln!(text, "  {service}: {{ports: !override [\"127.0.0.1::{port}\"]}}")?;
        }
        let subnet = docker::free_subnet()?;
        writeln!(text, "networks: {{default: {{ipam: {{config: [{{subnet: {subnet}}}]}}}}}}")?;
        // What an operator writes into compose/.env, in a folder of its own: a developer's is not ours.
        std::fs::create_dir(overrides.path().join("compose"))?;
        std::fs::write(overrides.path().join("compose/.env"), "")?;
        std::fs::set_permissions(overrides.path(), Permissions::from_mode(0o755))?;
        let ports = overrides.path().join("overrides.yaml");
        std::fs::write(&ports, text)?;
        let mut environment: BTreeMap<String, String> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        environment.insert("VSKI_IMAGE".to_owned(), images.vski.clone());
        environment.insert("VSKI_PULL_POLICY".to_owned(), "never".to_owned());
        let images = (images.vski.clone(), images.backend.clone());
        let past = RefCell::default();
        Ok(Self {
            name,
            file: file.to_owned(),
            overrides,
            more: vec![ports],
            environment,
            images,
            past,
            succeeded: false,
        })
    }

    /// Starts everything, and waits until it is healthy.
    pub fn start(&self) -> Result<()> {
        let up = ["up", "--detach", "--wait", "--no-build"];
        self.compose(&up).map(drop).with_context(|| format!("{} does not start", self.file))
    }

    /// A file that every container can read, to be mounted into one.
    pub fn place(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.overrides.path().join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        Ok(path)
    }

    /// From now on this is one more of its Compose files.
    pub fn extend(&mut self, name: &str, text: &str) -> Result<()> {
        self.more.push(self.place(name, text)?);
        Ok(())
    }

    /// The project's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `docker compose …` for this topology.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = docker::limited("docker", UP);
        command.arg("compose").args(self.options()).args(arguments).envs(&self.environment);
        command
    }

    /// What `docker compose` has to be told to mean this topology.
    fn options(&self) -> Vec<String> {
        let shown = |path: &Path| path.display().to_string();
        let settings = shown(&self.overrides.path().join("compose/.env"));
        let mut options =
            ["--progress", "quiet", "--project-name", &self.name, "--env-file", &settings].map(str::to_owned).to_vec();
        for file in std::iter::once(&compose_file(&self.file)).chain(&self.more) {
            options.extend(["--file".to_owned(), shown(file)]);
        }
        options
    }

    /// Types a line, or several, into a shell in a folder where `compose/.env` is this topology's, and where
    /// `docker compose -f compose/<file>` means it.
    pub fn type_line(&self, line: &str) -> Result<String> {
        let folder = self.overrides.path();
        let options: Vec<String> = self.options().iter().map(|option| format!("'{option}'")).collect();
        let docker = format!(
            "#!/bin/sh\n[ \"$1 $2 $3\" = 'compose -f compose/{}' ] || exit 64\nshift 3\n\
             PATH=${{PATH#*:}} exec docker compose {} \"$@\"\n",
            self.file,
            options.join(" ")
        );
        let program = self.place("docker", &docker)?;
        std::fs::set_permissions(program, Permissions::from_mode(0o755))?;
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").context("a PATH")?);
        let mut shell = docker::limited("sh", TYPED);
        shell.args(["-euc", line]).current_dir(folder).env("PATH", path).envs(&self.environment);
        finish(&mut shell).with_context(|| format!("typed: {line}"))
    }

    /// Runs `docker compose …`. Returns its stdout.
    pub fn compose(&self, arguments: &[&str]) -> Result<String> {
        finish(&mut self.command(arguments))
    }

    /// Runs a command of ours in a service's container.
    pub fn exec(&self, service: &str, command: &[&str]) -> Result<String> {
        self.compose(&[&["exec", "-T", service], command].concat())
    }

    /// Where a service's port is published. It changes when the container is started again.
    pub fn url(&self, service: &str, port: u16) -> Result<String> {
        let address = self.compose(&["port", service, &port.to_string()])?;
        ensure!(address.starts_with("127.0.0.1:"), "{service}:{port} is published as {address:?}");
        Ok(format!("http://{}", address.trim()))
    }

    /// A client of a service that listens on a port.
    pub fn client(&self, service: &str, port: u16) -> Result<Client> {
        Client::new(&self.url(service, port)?)
    }

    /// The container of a service.
    pub fn container(&self, service: &str) -> Result<String> {
        let id = self.compose(&["ps", "--all", "--quiet", service])?;
        ensure!(!id.trim().is_empty(), "{service} has no container");
        Ok(id.trim().to_owned())
    }

    /// The address of a running service in the topology's network.
    pub fn address(&self, service: &str) -> Result<String> {
        self.network_fact(service, "IPAddress")
    }

    /// The host's address in the topology's network: a client's address as a service sees it.
    pub fn gateway(&self, service: &str) -> Result<String> {
        self.network_fact(service, "Gateway")
    }

    fn network_fact(&self, service: &str, fact: &str) -> Result<String> {
        let format = format!("{{{{range .NetworkSettings.Networks}}}}{{{{.{fact}}}}}{{{{end}}}}");
        Ok(docker(&["inspect", "--format", &format, &self.container(service)?])?.trim().to_owned())
    }

    /// Kills a service's container, as the kernel's out-of-memory killer would, and leaves it dead.
    pub fn kill(&self, service: &str) -> Result<()> {
        self.compose(&["kill", service]).map(drop)
    }

    /// Makes an admin on the master with the command that its log names.
    pub fn make_admin(&self) -> Result<()> {
        self.exec("master", &["vski-server", "admin", "upsert", ADMIN.0, ADMIN.1]).map(drop)
    }

    /// Starts a server that is no VSKI in the topology's network, at an address or under a service's name.
    pub fn stranger(&self, name: &str, place: &[&str], fields: &[&str]) -> Result<String> {
        let (label, network) = (SCOPE.tag(&self.name), format!("{}_default", self.name));
        let run = ["run", "--detach", "--label", &label, "--network", &network];
        docker(&[&run, place, &[&self.images.1, name], fields].concat())
    }

    /// Waits until a service is healthy.
    pub fn wait_healthy(&self, service: &str) -> Result<()> {
        eventually(&format!("{service} is healthy"), READY, || {
            let container = self.container(service)?;
            Ok(docker(&["inspect", "--format", "{{.State.Health.Status}}", &container])?.trim() == "healthy")
        })
    }

    /// Fails unless all nodes come to have as many records in these collections, and exactly the master's rows.
    pub fn equal(&self, collections: &[&str]) -> Result<()> {
        let clients = NODES.map(|node| self.client(node, PORT));
        let [master, replicas @ ..] = clients;
        let (master, replicas) = (master?, replicas.into_iter().collect::<Result<Vec<_>>>()?);
        for collection in collections {
            eventually(&format!("all nodes have the rows of {collection}"), READY, || {
                let rows = master.count(collection)?;
                for replica in &replicas {
                    let count = replica.count(collection)?;
                    ensure!(count == rows, "{count} rows instead of {rows}");
                }
                Ok(rows > 0)
            })?;
        }
        self.verify()
    }

    /// Fails unless both replicas hold exactly the master's rows, by their agents' own comparison.
    pub fn verify(&self) -> Result<()> {
        for agent in ["r001-agent", "r002-agent"] {
            self.exec(agent, &["vski-sync-agent", "verify"]).with_context(|| format!("{agent} is not equal"))?;
        }
        Ok(())
    }

    /// Keeps what services have said: their containers are about to go.
    pub fn keep_logs(&self, services: &[&str]) -> Result<()> {
        let logs = self.compose(&[&["logs", "--no-color", "--no-log-prefix"], services].concat())?;
        self.past.borrow_mut().push_str(&format!("{logs}\n"));
        Ok(())
    }

    /// Fails with the lines of all programs that want to be looked at, but those that contain one of `expected`.
    pub fn assert_quiet(&self, expected: &[&str]) -> Result<()> {
        self.keep_logs(&[])?;
        quiet::check(&self.past.borrow(), expected)
    }

    /// Makes a service's container anew, with `text` in the place of one of its files, if there is one.
    pub fn up_again(&self, service: &str, file: Option<(&str, &str)>) -> Result<()> {
        self.keep_logs(&[service])?;
        let up = ["up", "--detach", "--no-build", "--no-deps", "--force-recreate", "--wait", service];
        let Some((place, text)) = file else { return self.compose(&up).map(drop) };
        let mount = format!("{}:{place}:ro", self.place("instead", text)?.display());
        let extra = self.place("instead.yaml", &format!("services: {{{service}: {{volumes: [\"{mount}\"]}}}}\n"))?;
        self.compose(&[&["--file", &extra.display().to_string()], &up[..]].concat()).map(drop)
    }

    /// The scenario has proved what it wanted: its logs are of no interest.
    pub fn succeeded(mut self) {
        self.succeeded = true;
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if !self.succeeded {
            let _ = self.compose(&["ps", "--all"]).map(|table| println!("{table}"));
            let _ = self.compose(&["logs", "--no-color", "--tail", TAIL]).map(|logs| println!("{logs}"));
        }
        if let Err(error) = SCOPE.remove(&self.name) {
            println!("{error:#}");
        }
    }
}
