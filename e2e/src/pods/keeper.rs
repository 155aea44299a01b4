//! One thread per container: runs it, asks its probes, starts it again, stops it.

use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::pod::{Journal, What};
use super::probes::{self, Probes, Verdict};
use super::spec::Container;
use crate::docker::{docker, try_docker};
use crate::output::{Output, Stream};
use crate::process::command;

/// How often a container is looked at.
const TICK: Duration = Duration::from_millis(50);

/// The second start in a row waits for this, the next for twice as long …
const BACKOFF: Duration = Duration::from_secs(10);
/// … and so on, up to this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

/// What a container is, and where.
pub struct Plan {
    /// As events call the pod.
    pub pod: String,
    pub container: Container,
    /// The arguments of `docker`, the name apart.
    pub arguments: Vec<String>,
    /// The beginning of the name of each run.
    pub prefix: String,
    /// The pod's.
    pub address: IpAddr,
    /// What a probe's failure gives it to stop.
    pub grace: Duration,
    pub journal: Journal,
}

/// A container that is kept running.
pub struct Keeper {
    pub name: String,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// How a container is doing.
#[derive(Clone, Default)]
pub struct State {
    /// The name of the run, in Docker.
    pub run: String,
    pub started: bool,
    pub ready: bool,
    /// Runs that ended.
    pub restarts: u32,
    /// It has to have ended by then.
    stop: Option<Instant>,
    /// Nobody cares any more.
    abandoned: bool,
    outputs: Vec<Output>,
}

impl Keeper {
    /// Begins to keep a container running.
    pub fn start(plan: Plan) -> Self {
        let (name, shared) = (plan.container.name.clone(), Arc::<Shared>::default());
        let seen = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            if let Err(error) = keep(&plan, &seen) {
                plan.journal.add(&plan.pod, &plan.container.name, What::Failed(format!("{error:#}")));
            }
        });
        Self { name, shared, thread: Mutex::new(Some(thread)) }
    }

    /// How it is doing.
    pub fn state(&self) -> State {
        self.shared.lock().clone()
    }

    /// Everything that its runs have printed.
    pub fn lines(&self) -> Vec<String> {
        self.state().outputs.iter().flat_map(Output::lines).collect()
    }

    /// Asks it to stop.
    pub fn ask_to_stop(&self, deadline: Instant) {
        self.shared.lock().stop = Some(deadline);
        self.shared.changed.notify_all();
    }

    /// Waits until it has stopped.
    pub fn join(&self) {
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }

    /// Leaves the container to itself.
    pub fn abandon(&self) {
        self.shared.lock().abandoned = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// No holder leaves half of a change behind.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so long, or until it is told to stop or abandoned. True: go on.
    fn pause(&self, time: Duration) -> bool {
        let goes_on = |state: &mut State| state.stop.is_none() && !state.abandoned;
        let waited = self.changed.wait_timeout_while(self.lock(), time, goes_on);
        goes_on(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

fn keep(plan: &Plan, shared: &Shared) -> Result<()> {
    let mut backoff = Duration::ZERO;
    for attempt in 0.. {
        let run = format!("{}_{attempt}", plan.prefix);
        let mut child = spawn(plan, &run, shared)?;
        plan.journal.add(&plan.pod, &plan.container.name, What::Started);
        let code = watch(plan, &run, &mut child, shared)?;
        plan.journal.add(&plan.pod, &plan.container.name, What::Exited(code));
        {
            let mut state = shared.lock();
            (state.started, state.ready) = (false, false);
            state.restarts += 1;
        }
        if !shared.pause(backoff) {
            break;
        }
        backoff = (backoff * 2).clamp(BACKOFF, LONGEST_BACKOFF);
    }
    Ok(())
}

/// Runs the container in the foreground of a child: its output and its end are the child's.
fn spawn(plan: &Plan, run: &str, shared: &Shared) -> Result<Child> {
    let mut docker = command("docker");
    docker.args(&plan.arguments[..1]).args(["--name", run]).args(&plan.arguments[1..]);
    let mut child = docker.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start docker run")?;
    let output = Output::default();
    output.follow(Stream::Stdout, child.stdout.take().context("stdout is piped")?)?;
    output.follow(Stream::Stderr, child.stderr.take().context("stderr is piped")?)?;
    let mut state = shared.lock();
    run.clone_into(&mut state.run);
    state.outputs.push(output);
    Ok(child)
}

/// Asks the probes until the container has ended. Returns its exit code.
fn watch(plan: &Plan, run: &str, child: &mut Child, shared: &Shared) -> Result<i32> {
    let mut probes: Option<Probes> = None;
    loop {
        if let Some(status) = child.try_wait().context("ask for docker run")? {
            return Ok(status.code().unwrap_or(-1));
        }
        if !shared.pause(TICK) {
            let deadline = shared.lock().stop;
            return deadline.map_or(Ok(-1), |deadline| stop(plan, run, child, shared, deadline));
        }
        let Some(probes) = &mut probes else {
            // Docker needs a moment until the container runs, which is not the container's.
            let running = try_docker(&["inspect", "--format", "{{.State.Running}}", run])?;
            probes = running.stdout.starts_with(b"true").then(|| Probes::new(&plan.container, Instant::now()));
            continue;
        };
        let ask = |probe: &_| probes::passes(probe, &plan.container, run, plan.address);
        match probes.tick(Instant::now(), ask) {
            Verdict::Fine { started, ready } => {
                let mut state = shared.lock();
                if ready && !state.ready {
                    plan.journal.add(&plan.pod, &plan.container.name, What::Ready);
                }
                (state.started, state.ready) = (started, ready);
            }
            Verdict::Kill(probe) => {
                plan.journal.add(&plan.pod, &plan.container.name, What::Unhealthy(probe));
                return end(run, child, plan.grace);
            }
        }
    }
}

/// preStop, SIGTERM, and SIGKILL at the deadline.
fn stop(plan: &Plan, run: &str, child: &mut Child, shared: &Shared, deadline: Instant) -> Result<i32> {
    shared.lock().ready = false;
    plan.journal.add(&plan.pod, &plan.container.name, What::Stopping);
    let pause = plan.container.lifecycle.as_ref().map_or(0, |lifecycle| lifecycle.pre_stop.sleep.seconds);
    let until = deadline.min(Instant::now() + Duration::from_secs(pause));
    while Instant::now() < until {
        if let Some(status) = child.try_wait().context("ask for docker run")? {
            return Ok(status.code().unwrap_or(-1));
        }
        let left = until.saturating_duration_since(Instant::now()).min(TICK);
        let unless_abandoned = |state: &mut State| !state.abandoned;
        drop(shared.changed.wait_timeout_while(shared.lock(), left, unless_abandoned));
    }
    plan.journal.add(&plan.pod, &plan.container.name, What::Terminated);
    end(run, child, deadline.saturating_duration_since(Instant::now()))
}

/// SIGTERM, and SIGKILL after the grace.
fn end(run: &str, child: &mut Child, grace: Duration) -> Result<i32> {
    // A container that ended meanwhile has nothing to be told.
    let told = docker(&["stop", "--time", &grace.as_secs().max(1).to_string(), run]);
    let status = child.wait().context("wait for docker run")?;
    told.map(drop).or_else(|error| if status.code() == Some(125) { Err(error) } else { Ok(()) })?;
    Ok(status.code().unwrap_or(-1))
}
