//! One container of a node, on a volume and at a port that outlive it: it can be crashed, restarted, and made anew with
//! other settings, as an operator does.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::docker::{self, docker};
use e2e::eventually;
use e2e::output::{is_alarming, is_panic};
use testcontainers::bollard::models::{HostConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum};
use testcontainers::core::{ExecCommand, Mount};
use testcontainers::runners::SyncRunner;
use testcontainers::{Container, GenericImage, ImageExt};

use super::cluster::{SCOPE, Shared, as_root};

/// How long a container may take to start, to stop or to be started again, on a busy machine.
pub const SOON: Duration = Duration::from_secs(180);

/// Seconds that a graceful stop may take: the programs' own limits together are 23 s, and a busy machine adds to them.
const GRACE: i32 = 60;

/// How Docker tells of a process that was killed.
const SIGKILL: i64 = 128 + 9;

/// The port of a server inside its container.
const PORT: &str = "3001/tcp";

/// What a command in a container printed.
#[derive(Debug)]
pub struct Done {
    /// Its exit code.
    pub code: i64,
    /// Answers.
    pub stdout: String,
    /// Errors.
    pub stderr: String,
}

/// A container, or what one will be made of.
pub struct Part {
    shared: Rc<Shared>,
    /// The node, or the node and `-agent`.
    name: String,
    /// The program and its arguments.
    command: Vec<String>,
    env: BTreeMap<String, String>,
    volume: String,
    /// Where the server is published on 127.0.0.1.
    published: Option<u16>,
    /// Whether Docker starts it again when its process dies.
    revived: bool,
    /// Whether its program is a child of an init, not the container's first process.
    init: bool,
    container: Option<Container<GenericImage>>,
    /// What containers before this one have printed.
    past: Vec<String>,
}

impl Part {
    /// A container over `volume` that is not there yet; `published` is its port on 127.0.0.1 if it is a server.
    pub fn new(shared: &Rc<Shared>, name: &str, command: &[&str], volume: &str, published: Option<u16>) -> Self {
        Self {
            shared: Rc::clone(shared),
            name: name.to_owned(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: BTreeMap::new(),
            volume: volume.to_owned(),
            published,
            revived: false,
            init: false,
            container: None,
            past: Vec::new(),
        }
    }

    /// Another container of the same program with the same settings over the same volume, not there yet.
    pub fn twin(&self, name: &str) -> Self {
        let command: Vec<&str> = self.command.iter().map(String::as_str).collect();
        let mut twin = Self::new(&self.shared, name, &command, &self.volume, self.published);
        twin.env.clone_from(&self.env);
        twin
    }

    /// Its name, as in logs and in the cluster's inner network.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets a variable for all later starts.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    /// Removes a variable for all later starts.
    pub fn unset(&mut self, name: &str) {
        self.env.remove(name);
    }

    /// Has another program run from the next start on.
    pub fn run(&mut self, command: &[&str]) {
        self.command = command.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Has Docker start it again when its process dies, from the next start on.
    pub fn revive(&mut self) {
        self.revived = true;
    }

    /// Makes its container and starts it. It need not live long.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.container.is_none(), "{} is there already", self.name);
        let shared = &self.shared;
        let (image, tag) = shared.image.split_once(':').context("an image with a tag")?;
        let (program, arguments) = self.command.split_first().context("a command")?;
        let home = if self.published.is_some() { &shared.outer } else { &shared.inner };
        let (published, revived, init) = (self.published, self.revived, self.init);
        let request = GenericImage::new(image, tag)
            .with_entrypoint(program)
            .with_cmd(arguments)
            .with_container_name(format!("{}-{}", shared.id, self.name))
            .with_label(SCOPE.label, &shared.id)
            .with_network(home)
            .with_mount(Mount::volume_mount(&self.volume, "/data"))
            .with_readonly_rootfs(true)
            .with_cap_drop("ALL")
            .with_security_opt("no-new-privileges")
            .with_host_config_modifier(move |config| {
                harden(config, published, revived);
                config.init = Some(init);
            });
        let request = self.env.iter().fold(request, |request, (name, value)| request.with_env_var(name, value));
        let container = request.start().with_context(|| format!("start {}", self.name))?;
        let joined = self.published.map(|_| shared.join(container.id(), &self.name));
        self.container = Some(container);
        joined.unwrap_or(Ok(()))
    }

    /// Stops it gracefully, which must end with exit code 0, and removes the container.
    pub fn stop(&mut self) -> Result<()> {
        self.container()?.stop_with_timeout(Some(GRACE)).with_context(|| format!("stop {}", self.name))?;
        let code = self.container()?.exit_code()?;
        self.forget()?;
        ensure!(code == Some(0), "{} did not stop cleanly: exit code {code:?}", self.name);
        Ok(())
    }

    /// Restarts the same container gracefully.
    pub fn restart(&self) -> Result<()> {
        docker(&["restart", "--time", &GRACE.to_string(), self.id()?]).map(drop)
    }

    /// Kills the process by its pid on this machine, as a crash: Docker may start it again, if it was told to.
    pub fn crash(&self) -> Result<()> {
        let (pid, before) = (self.pid()?, self.started()?);
        docker::finish(as_root("kill").args(["-KILL", &pid.to_string()]))?;
        eventually(&format!("{} is dead", self.name), SOON, || {
            Ok(self.pid().is_ok_and(|now| now != pid) || self.started()? != before)
        })
    }

    /// Starts it so that it kills itself at a fault point, waits until it is dead, and removes the container.
    pub fn die_at(&mut self, label: &str) -> Result<()> {
        self.set("VSKI_FAULT", label);
        // A container's first process cannot kill itself: the kernel protects it from signals of its own container.
        self.init = true;
        let code = self.start().and_then(|()| self.wait_exit());
        self.init = false;
        self.unset("VSKI_FAULT");
        let code = code.with_context(|| format!("it dies at {label}"))?;
        ensure!(code == SIGKILL, "{}: it ended at {label} with exit code {code}", self.name);
        Ok(())
    }

    /// Waits until its process has ended by itself, and removes the container. Returns the exit code.
    fn wait_exit(&mut self) -> Result<i64> {
        let container = self.container()?;
        let code = eventually(&format!("{} ends", self.name), SOON, || {
            Ok(if container.is_running()? { None } else { container.exit_code()? })
        })?;
        self.forget()?;
        Ok(code)
    }

    /// Waits until Docker has started it again after a crash.
    pub fn wait_revived(&self) -> Result<()> {
        eventually(&format!("{} is started again by Docker", self.name), SOON, || {
            Ok(self.fact("{{.RestartCount}}")? != "0" && self.container()?.is_running()?)
        })
    }

    /// Runs a program in the container, with its settings.
    pub fn exec(&self, command: &[&str]) -> Result<Done> {
        let what = || format!("{} in {}", command.join(" "), self.name);
        let mut done = self.container()?.exec(ExecCommand::new(command.iter().copied())).with_context(what)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        let stdout = text(done.stdout_to_vec().with_context(what)?);
        let stderr = text(done.stderr_to_vec().with_context(what)?);
        // The output can end before Docker knows of the exit.
        let code = eventually(&format!("{} has ended", what()), SOON, || Ok(done.exit_code()?))?;
        Ok(Done { code, stdout, stderr })
    }

    /// The pid of its main process on this machine.
    pub fn pid(&self) -> Result<u32> {
        let pid = self.fact("{{.State.Pid}}")?.parse().context("a pid")?;
        if pid == 0 { bail!("{} is not running", self.name) } else { Ok(pid) }
    }

    fn started(&self) -> Result<String> {
        self.fact("{{.State.StartedAt}} {{.State.FinishedAt}}")
    }

    /// What `docker inspect` says of the container.
    pub fn fact(&self, format: &str) -> Result<String> {
        docker(&["inspect", "--format", format, self.id()?])
    }

    /// The container's id.
    pub fn id(&self) -> Result<&str> {
        Ok(self.container()?.id())
    }

    /// The container.
    pub fn container(&self) -> Result<&Container<GenericImage>> {
        self.container.as_ref().with_context(|| format!("{} has no container", self.name))
    }

    /// Everything that all its containers have printed.
    pub fn lines(&self) -> Vec<String> {
        let now = self.container.iter().flat_map(|container| printed(container.id()));
        self.past.iter().cloned().chain(now).collect()
    }

    /// Removes the container and keeps what it has printed.
    fn forget(&mut self) -> Result<()> {
        if let Some(container) = self.container.take() {
            self.past.extend(printed(container.id()));
            container.rm().with_context(|| format!("remove {}", self.name))?;
        }
        Ok(())
    }
}

/// Its log goes to the cluster, which judges it.
impl Drop for Part {
    fn drop(&mut self) {
        self.shared.keep_log(&self.name, self.lines());
    }
}

fn harden(config: &mut HostConfig, published: Option<u16>, revived: bool) {
    let name = if revived { RestartPolicyNameEnum::UNLESS_STOPPED } else { RestartPolicyNameEnum::NO };
    config.restart_policy = Some(RestartPolicy { name: Some(name), maximum_retry_count: None });
    config.publish_all_ports = Some(false);
    config.port_bindings = published.map(|port| {
        let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(port.to_string()) };
        [(PORT.to_owned(), Some(vec![binding]))].into()
    });
}

/// What a container has printed since it was made, restarts included.
fn printed(id: &str) -> Vec<String> {
    // Programs print logs on stderr; a panic, too.
    match docker::try_docker(&["logs", id]) {
        Ok(ended) => [ended.stdout, ended.stderr]
            .iter()
            .flat_map(|bytes| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<Vec<_>>())
            .collect(),
        Err(error) => vec![format!("its log cannot be read: {error}")],
    }
}

/// Whether a line is one that the scenario has to know of.
pub fn is_unexpected(line: &str, expected: &[String]) -> bool {
    is_alarming(line) && (is_panic(line) || !expected.iter().any(|text| line.contains(text)))
}
