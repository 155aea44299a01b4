use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::SCOPE;
use super::arguments::{Surroundings, run};
use super::environment::{Fields, resolve};
use super::keeper::{Keeper, Plan, State};
use super::spec::{Container, PodSpec};
use super::volumes;
use crate::docker::docker;
use crate::eventually;
use crate::manifests::Manifests;

/// What happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It was started.
    Started,
    /// It is ready for the first time of this run, or again.
    Ready,
    /// This probe has failed too often.
    Unhealthy(&'static str),
    /// It was told that it will be stopped: preStop.
    Stopping,
    /// SIGTERM.
    Terminated,
    /// It ended with this code.
    Exited(i32),
    /// The runner itself failed.
    Failed(String),
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its pod.
    pub pod: String,
    /// Its container.
    pub container: String,
    /// What it was.
    pub what: What,
}

/// What happened in a namespace, in order.
#[derive(Clone, Default)]
pub struct Journal {
    events: Arc<Mutex<Vec<Event>>>,
}

impl Journal {
    pub fn add(&self, pod: &str, container: &str, what: What) {
        let event = Event { pod: pod.to_owned(), container: container.to_owned(), what };
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    pub fn all(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Everything that a pod is made of.
pub struct Blueprint {
    pub namespace: String,
    pub name: String,
    pub spec: PodSpec,
    /// Names by which others in the namespace reach it.
    pub aliases: Vec<String>,
    /// Volumes of a StatefulSet's templates, and their claims.
    pub claims: BTreeMap<String, String>,
    /// Docker's volume behind each claim.
    pub bound: BTreeMap<String, String>,
    pub manifests: Manifests,
    pub images: BTreeMap<String, String>,
    /// For pause containers and helpers.
    pub small: String,
    pub journal: Journal,
}

/// A pod.
pub struct Pod {
    pub name: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Containers that go on running.
    expected: usize,
}

#[derive(Default)]
struct Shared {
    keepers: Mutex<Vec<Arc<Keeper>>>,
    stop: AtomicBool,
    abandoned: AtomicBool,
    /// With `woken`, what the pod's thread waits on.
    gate: Mutex<()>,
    woken: Condvar,
}

impl Pod {
    /// Begins to run a pod.
    pub fn start(blueprint: Blueprint) -> Self {
        let (name, shared) = (blueprint.name.clone(), Arc::<Shared>::default());
        let sidecars = blueprint.spec.init_containers.iter().filter(|container| container.is_sidecar()).count();
        let expected = sidecars + blueprint.spec.containers.len();
        let seen = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            if let Err(error) = live(&blueprint, &seen) {
                blueprint.journal.add(&blueprint.name, "", What::Failed(format!("{error:#}")));
            }
        });
        Self { name, shared, thread: Some(thread), expected }
    }

    /// Whether all its containers are ready.
    pub fn is_ready(&self) -> bool {
        let keepers = self.shared.keepers();
        keepers.len() == self.expected && keepers.iter().all(|keeper| keeper.state().ready)
    }

    /// How one of its containers is doing.
    pub fn container(&self, name: &str) -> Result<State> {
        let keepers = self.shared.keepers();
        let keeper = keepers.iter().find(|keeper| keeper.name == name);
        Ok(keeper.with_context(|| format!("{} has no container {name} yet", self.name))?.state())
    }

    /// What its containers have printed.
    pub fn lines(&self) -> Vec<(String, Vec<String>)> {
        self.shared.keepers().iter().map(|keeper| (keeper.name.clone(), keeper.lines())).collect()
    }

    /// Stops it as a kubelet does and removes all but its claims.
    pub fn stop(mut self) -> Vec<(String, Vec<String>)> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.lines()
    }
}

impl Drop for Pod {
    /// Leaves the containers to whoever removes them.
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::SeqCst);
        self.shared.keepers().iter().for_each(|keeper| keeper.abandon());
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn keepers(&self) -> Vec<Arc<Keeper>> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst) || self.abandoned.load(Ordering::SeqCst)
    }

    fn wake(&self) {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.woken.notify_all();
    }

    /// Waits until the pod is to end, or so long.
    fn rest(&self, time: Duration) {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.woken.wait_timeout_while(gate, time, |()| !self.is_over()));
    }
}

/// A pod whose network and volumes are there.
struct Place<'a> {
    blueprint: &'a Blueprint,
    pause: String,
    address: IpAddr,
    volumes: BTreeMap<String, String>,
}

fn live(blueprint: &Blueprint, shared: &Shared) -> Result<()> {
    blueprint.spec.check()?;
    let place = Place::make(blueprint)?;
    let outcome = place.bring_up(shared);
    while outcome.is_ok() && !shared.is_over() {
        shared.rest(Duration::from_secs(3600));
    }
    if !shared.abandoned.load(Ordering::SeqCst) {
        place.bring_down(shared)?;
    }
    outcome
}

impl<'a> Place<'a> {
    fn make(blueprint: &'a Blueprint) -> Result<Self> {
        let making = volumes::Making {
            namespace: &blueprint.namespace,
            pod: &blueprint.name,
            claims: &blueprint.claims,
            bound: &blueprint.bound,
            manifests: &blueprint.manifests,
            small: &blueprint.small,
        };
        let volumes = volumes::make(&blueprint.spec, &making)?;
        let pause = format!("{}_{}_pause", blueprint.namespace, blueprint.name);
        let label = SCOPE.tag(&blueprint.namespace);
        let mut arguments = vec!["run", "--detach", "--name", &pause, "--label", &label, "--ipc", "shareable"];
        arguments.extend(["--hostname", &blueprint.name, "--network", &blueprint.namespace]);
        blueprint.aliases.iter().for_each(|alias| arguments.extend(["--network-alias", alias]));
        let ports: Vec<String> = blueprint.spec.ports().map(|port| format!("127.0.0.1::{port}")).collect();
        ports.iter().for_each(|port| arguments.extend(["--publish", port]));
        arguments.extend([blueprint.small.as_str(), "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"]);
        docker(&arguments)?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = docker(&["inspect", "--format", format, &pause])?;
        let address = address.trim().parse().with_context(|| format!("the address {address:?} of {pause}"))?;
        Ok(Self { blueprint, pause, address, volumes })
    }

    /// Init containers in their order, then all others.
    fn bring_up(&self, shared: &Shared) -> Result<()> {
        for container in &self.blueprint.spec.init_containers {
            if container.is_sidecar() {
                let keeper = self.keep(container, shared)?;
                while !keeper.state().started && !shared.is_over() {
                    shared.rest(Duration::from_millis(50));
                }
            } else {
                self.run_to_completion(container, shared)?;
            }
            if shared.is_over() {
                return Ok(());
            }
        }
        self.blueprint.spec.containers.iter().try_for_each(|container| self.keep(container, shared).map(drop))
    }

    /// Main containers at once, then sidecars, the last one first.
    fn bring_down(&self, shared: &Shared) -> Result<()> {
        /// What a sidecar gets even if the others have used up all the time (as of Kubernetes' documentation: little).
        const LEAST: Duration = Duration::from_secs(2);
        let deadline = Instant::now() + self.grace();
        let sidecar = |keeper: &Arc<Keeper>| {
            let containers = &self.blueprint.spec.init_containers;
            containers.iter().any(|container| container.name == keeper.name)
        };
        let (sidecars, others): (Vec<_>, Vec<_>) = shared.keepers().into_iter().partition(sidecar);
        others.iter().for_each(|keeper| keeper.ask_to_stop(deadline));
        others.iter().for_each(|keeper| keeper.join());
        for keeper in sidecars.iter().rev() {
            keeper.ask_to_stop(deadline.max(Instant::now() + LEAST));
            keeper.join();
        }
        let filter = format!("name=^{}_{}_", self.blueprint.namespace, self.blueprint.name);
        let left = docker(&["ps", "--all", "--quiet", "--filter", &filter])?;
        let left: Vec<&str> = left.lines().collect();
        docker(&[&["rm", "--force"], &left[..]].concat()).map(drop)
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(self.blueprint.spec.termination_grace_period_seconds)
    }

    /// An init container that has to end well, however often it takes.
    fn run_to_completion(&self, container: &Container, shared: &Shared) -> Result<()> {
        for attempt in 0.. {
            let (name, arguments) = (self.prefix(container), self.arguments(container)?);
            let run = format!("{name}_{attempt}");
            let mut all = vec!["run", "--name", &run];
            all.extend(arguments[1..].iter().map(String::as_str));
            self.journal(container, What::Started);
            let ended = crate::docker::try_docker(&all)?;
            self.journal(container, What::Exited(ended.status.code().unwrap_or(-1)));
            if ended.status.success() || shared.is_over() {
                break;
            }
            if attempt == 5 {
                bail!("{}: {}", container.name, String::from_utf8_lossy(&ended.stderr));
            }
            shared.rest(Duration::from_secs(1 << attempt));
        }
        Ok(())
    }

    fn keep(&self, container: &Container, shared: &Shared) -> Result<Arc<Keeper>> {
        let keeper = Arc::new(Keeper::start(Plan {
            pod: self.blueprint.name.clone(),
            container: container.clone(),
            arguments: self.arguments(container)?,
            prefix: self.prefix(container),
            address: self.address,
            grace: self.grace(),
            journal: self.blueprint.journal.clone(),
        }));
        shared.keepers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&keeper));
        Ok(keeper)
    }

    fn arguments(&self, container: &Container) -> Result<Vec<String>> {
        let blueprint = self.blueprint;
        let fields = Fields { pod: &blueprint.name, namespace: "default" };
        let variables = resolve(container, &fields, &blueprint.manifests)?;
        let around = Surroundings {
            namespace: &blueprint.namespace,
            pause: &self.pause,
            volumes: &self.volumes,
            images: &blueprint.images,
        };
        run(&blueprint.spec, container, &variables, &around)
    }

    fn prefix(&self, container: &Container) -> String {
        format!("{}_{}_{}", self.blueprint.namespace, self.blueprint.name, container.name)
    }

    fn journal(&self, container: &Container, what: What) {
        self.blueprint.journal.add(&self.blueprint.name, &container.name, what);
    }
}

/// Waits for a pod to be ready.
pub fn wait_ready(pod: &Pod, journal: &Journal, deadline: Duration) -> Result<()> {
    eventually(&format!("{} is ready", pod.name), deadline, || {
        let failed = journal.all().into_iter().find(|event| matches!(event.what, What::Failed(_)));
        failed.map_or(Ok(pod.is_ready()), |event| Err(anyhow::anyhow!("{event:?}")))
    })
}
