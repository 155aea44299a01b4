//! One topology of compose/, started from the very file that users get. Only its name, subnet, ports and image differ, and
//! the variables that a scenario sets as a user would in .env.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::docker::{self, docker, finish};
use e2e::eventually;
use tempfile::TempDir;

use super::images::{Images, SCOPE, compose_file};

/// How long a topology may take to be up, on a busy machine.
const UP: Duration = Duration::from_secs(180);

/// How long a node may take to be ready again.
pub const READY: Duration = Duration::from_secs(90);

/// Logs of one container that a failed scenario prints, lines.
const TAIL: &str = "60";

/// The admin of every topology.
pub const ADMIN: (&str, &str) = ("admin@example.com", "correct horse battery staple");

/// Services and the ports on which they listen.
const PORTS: [(&str, u16); 3] = [("master", 3001), ("r001", 3001), ("r002", 3001)];

/// A topology that runs. It is removed with everything that it made when this is dropped.
pub struct Project {
    name: String,
    file: String,
    overrides: TempDir,
    environment: BTreeMap<String, String>,
    images: (String, String),
    succeeded: bool,
}

impl Project {
    /// Starts `compose/<file>` and waits until all of it is healthy. `balancer` is the service that listens on 8080.
    pub fn up(file: &str, balancer: Option<&str>, images: &Images, settings: &[(&str, &str)]) -> Result<Self> {
        let topology = file.trim_end_matches(".yaml");
        let name = SCOPE.name(topology);
        let overrides = tempfile::tempdir()?;
        let mut text = String::from("services:\n");
        for (service, port) in PORTS.into_iter().chain(balancer.map(|balancer| (balancer, 8080))) {
            writeln!(text, "  {service}: {{ports: !override [\"127.0.0.1::{port}\"]}}")?;
        }
        let subnet = docker::free_subnet()?;
        writeln!(text, "networks: {{default: {{ipam: {{config: [{{subnet: {subnet}}}]}}}}}}")?;
        std::fs::write(overrides.path().join("overrides.yaml"), text)?;
        let mut environment: BTreeMap<String, String> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        environment.insert("VSKI_IMAGE".to_owned(), images.vski.clone());
        let images = (images.vski.clone(), images.backend.clone());
        let project = Self { name, file: file.to_owned(), overrides, environment, images, succeeded: false };
        let up = ["up", "--detach", "--wait", "--no-build"];
        project.compose(&up).with_context(|| format!("{file} does not start"))?;
        Ok(project)
    }

    /// `docker compose …` for this topology.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = docker::limited("docker", UP);
        // A developer's own .env is not ours.
        command.args(["compose", "--progress", "quiet", "--env-file", "/dev/null", "--project-name", &self.name]);
        command.arg("--file").arg(compose_file(&self.file));
        command.arg("--file").arg(self.overrides.path().join("overrides.yaml"));
        command.args(arguments).envs(&self.environment);
        command
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

    /// Fails unless both replicas hold exactly the master's rows.
    pub fn verify(&self) -> Result<()> {
        for agent in ["r001-agent", "r002-agent"] {
            self.exec(agent, &["vski-sync-agent", "verify"]).with_context(|| format!("{agent} is not equal"))?;
        }
        Ok(())
    }

    /// Fails with the WARN and ERROR lines of our programs, but those that contain one of `expected`.
    pub fn assert_quiet(&self, expected: &[&str]) -> Result<()> {
        let logs = self.compose(&["logs", "--no-color", "master", "r001", "r002", "r001-agent", "r002-agent"])?;
        let alarm = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        let unexpected = |line: &&str| !expected.iter().any(|expected| line.contains(expected));
        let alarms: Vec<&str> = logs.lines().filter(alarm).filter(unexpected).collect();
        ensure!(alarms.is_empty(), "unexpected warnings:\n{}", alarms.join("\n"));
        Ok(())
    }

    /// Makes a service's container anew, with `text` in the place of one of its files, if there is one.
    pub fn up_again(&self, service: &str, file: Option<(&str, &str)>) -> Result<()> {
        let up = ["up", "--detach", "--no-build", "--no-deps", "--force-recreate", "--wait", service];
        let Some((place, text)) = file else { return self.compose(&up).map(drop) };
        let (instead, extra) = (self.overrides.path().join("instead"), self.overrides.path().join("instead.yaml"));
        std::fs::write(&instead, text)?;
        for (path, mode) in [(self.overrides.path(), 0o755), (&instead, 0o644)] {
            std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        let mount = format!("{}:{place}:ro", instead.display());
        std::fs::write(&extra, format!("services: {{{service}: {{volumes: [\"{mount}\"]}}}}\n"))?;
        let extra = extra.to_str().context("a temporary directory with a name in UTF-8")?;
        self.compose(&[&["--file", extra], &up[..]].concat()).map(drop)
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
