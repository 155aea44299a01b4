use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::SCOPE;
use super::pod::{Blueprint, Event, Journal, Pod, What, wait_ready};
use super::spec::{PodSpec, SetSpec, Template};
use crate::client::Client;
use crate::docker::{docker, must, script, try_docker};
use crate::manifests::{Manifests, items, name};
use crate::output::is_alarming;

/// How long a pod may take to be ready on a busy machine.
const READY: Duration = Duration::from_secs(300);

/// Lines of a container that a failure shows.
const TAIL: usize = 30;

/// Pods, claims and a network of their own. Everything is removed with it.
pub struct Namespace {
    name: String,
    manifests: Manifests,
    images: BTreeMap<String, String>,
    /// For pause containers and helpers.
    small: String,
    /// Replicas of each StatefulSet that was scaled here.
    scales: BTreeMap<String, u64>,
    pods: BTreeMap<String, Pod>,
    /// Docker's volume behind each claim.
    claims: BTreeMap<String, String>,
    volumes: usize,
    journal: Journal,
    /// What containers of pods that are gone have printed, by pod and container.
    past: Vec<(String, Vec<String>)>,
    succeeded: bool,
}

impl Namespace {
    /// An empty one for pods of these manifests. `images` are local names by the names in manifests.
    pub fn new(manifests: Manifests, images: &[(&str, &str)]) -> Result<Self> {
        let name = SCOPE.name("namespace");
        let small = script("e2e/images/small", &[])?;
        docker(&["network", "create", "--label", &SCOPE.tag(&name), &name])?;
        let images = images.iter().map(|(name, local)| ((*name).to_owned(), (*local).to_owned())).collect();
        Ok(Self {
            name,
            manifests,
            images,
            small,
            scales: BTreeMap::new(),
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            volumes: 0,
            journal: Journal::default(),
            past: Vec::new(),
            succeeded: false,
        })
    }

    /// Other manifests from now on, as `kubectl apply` would: pods that run stay until [`Self::roll_out`].
    pub fn apply(&mut self, manifests: Manifests) {
        self.manifests = manifests;
    }

    /// The manifests.
    #[must_use]
    pub fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    /// `kubectl scale statefulset`, and waits for the pods.
    pub fn scale(&mut self, set: &str, replicas: u64) -> Result<()> {
        let spec = self.set(set)?;
        self.scales.insert(set.to_owned(), replicas);
        // The highest ordinals go first, one by one.
        let gone: Vec<String> =
            self.ordinals(set).into_iter().filter(|(ordinal, _)| *ordinal >= replicas).map(|(_, pod)| pod).collect();
        gone.iter().rev().try_for_each(|pod| self.remove(pod))?;
        for ordinal in 0..replicas {
            let pod = format!("{set}-{ordinal}");
            if !self.pods.contains_key(&pod) {
                self.start(&spec, set, &pod)?;
            }
            if spec.is_ordered() {
                self.wait_ready(&pod)?;
            }
        }
        (0..replicas).try_for_each(|ordinal| self.wait_ready(&format!("{set}-{ordinal}")))
    }

    /// `kubectl delete pod`: it stops gracefully, and its StatefulSet starts it again, with its claims.
    pub fn delete_pod(&mut self, pod: &str) -> Result<()> {
        self.remove(pod)?;
        let (set, ordinal) = pod.rsplit_once('-').context("a pod of a StatefulSet")?;
        let wanted = self.scales.get(set).copied().unwrap_or_default();
        ensure!(ordinal.parse::<u64>()? < wanted, "{set} has no {pod}");
        let spec = self.set(set)?;
        self.start(&spec, set, pod)
    }

    /// A rolling update: each pod is replaced, the highest ordinal first, and must be ready before the next.
    pub fn roll_out(&mut self, set: &str) -> Result<()> {
        let pods = self.ordinals(set);
        for (_, pod) in pods.iter().rev() {
            self.delete_pod(pod)?;
            self.wait_ready(pod)?;
        }
        Ok(())
    }

    /// Runs the Pod of this name.
    pub fn run_pod(&mut self, pod: &str) -> Result<()> {
        let object = self.manifests.find("Pod", pod).with_context(|| format!("no Pod {pod}"))?.clone();
        let template = Template {
            metadata: serde_json::from_value(object["metadata"].clone())?,
            spec: serde_json::from_value::<PodSpec>(object["spec"].clone()).context("a Pod that is not emulated")?,
        };
        let blueprint = self.blueprint(pod, template, None, BTreeMap::new())?;
        self.pods.insert(pod.to_owned(), Pod::start(blueprint));
        self.wait_ready(pod)
    }

    /// Stops and removes a pod; its claims stay.
    pub fn remove(&mut self, pod: &str) -> Result<()> {
        let found = self.pods.remove(pod).with_context(|| format!("no pod {pod}"))?;
        let lines = found.stop();
        self.past.extend(lines.into_iter().map(|(container, lines)| (format!("{pod}/{container}"), lines)));
        Ok(())
    }

    /// What the operator does who binds the volume of one claim to another: the first claim is gone then.
    pub fn rebind(&mut self, from: &str, to: &str) -> Result<()> {
        ensure!(!self.claims.contains_key(to), "{to} is bound");
        let volume = self.claims.remove(from).with_context(|| format!("no claim {from}"))?;
        self.claims.insert(to.to_owned(), volume);
        Ok(())
    }

    /// Waits until all containers of a pod are ready.
    pub fn wait_ready(&self, pod: &str) -> Result<()> {
        wait_ready(self.pod(pod)?, &self.journal, READY)
    }

    /// Whether all containers of a pod are ready now.
    pub fn is_ready(&self, pod: &str) -> Result<bool> {
        Ok(self.pod(pod)?.is_ready())
    }

    /// How often a container was started again.
    pub fn restarts(&self, pod: &str, container: &str) -> Result<u32> {
        Ok(self.pod(pod)?.container(container)?.restarts)
    }

    /// The container's name in Docker, of its present run.
    pub fn container(&self, pod: &str, container: &str) -> Result<String> {
        Ok(self.pod(pod)?.container(container)?.run)
    }

    /// `kubectl exec`.
    pub fn exec(&self, pod: &str, container: &str, command: &[&str]) -> Result<Output> {
        try_docker(&[&["exec", self.container(pod, container)?.as_str()], command].concat())
    }

    /// `kubectl exec`, which must succeed. Returns what it printed.
    pub fn must_exec(&self, pod: &str, container: &str, command: &[&str]) -> Result<String> {
        must(&self.exec(pod, container, command)?, &format!("{command:?} in {pod}"))
    }

    /// SIGKILL to a container's process, as by the out-of-memory killer.
    pub fn crash(&self, pod: &str, container: &str) -> Result<()> {
        docker(&["kill", &self.container(pod, container)?]).map(drop)
    }

    /// A client of a pod's port, through 127.0.0.1.
    pub fn client(&self, pod: &str, port: u16) -> Result<Client> {
        let address = docker(&["port", &format!("{}_{pod}_pause", self.name), &port.to_string()])?;
        let address = address.lines().find(|line| line.starts_with("127.0.0.1:")).context("a published port")?;
        Client::new(&format!("http://{address}"))
    }

    /// What happened, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.journal.all()
    }

    /// What happened to a pod's containers, in order.
    #[must_use]
    pub fn events_of(&self, pod: &str) -> Vec<(String, What)> {
        let events = self.journal.all().into_iter().filter(|event| event.pod == pod);
        events.map(|event| (event.container, event.what)).collect()
    }

    /// What all containers have printed, by pod and container.
    #[must_use]
    pub fn lines(&self) -> Vec<(String, Vec<String>)> {
        let now = self.pods.iter().flat_map(|(pod, running)| {
            running.lines().into_iter().map(move |(container, lines)| (format!("{pod}/{container}"), lines))
        });
        self.past.iter().cloned().chain(now).collect()
    }

    /// Fails with the WARN and ERROR lines, but those that contain one of `expected`.
    pub fn assert_quiet(&self, expected: &[&str]) -> Result<()> {
        let lines = self.lines().into_iter();
        let all = lines.flat_map(|(place, lines)| lines.into_iter().map(move |line| format!("{place}: {line}")));
        let said = |line: &String| line.split_once(": ").is_some_and(|(_, line)| is_alarming(line));
        let alarms = all.filter(said).filter(|line| !expected.iter().any(|text| line.contains(text)));
        let alarms: Vec<String> = alarms.collect();
        ensure!(alarms.is_empty(), "unexpected warnings:\n{}", alarms.join("\n"));
        Ok(())
    }

    /// The scenario has proved what it wanted: its logs are of no interest.
    pub fn succeeded(mut self) {
        self.succeeded = true;
    }

    fn pod(&self, pod: &str) -> Result<&Pod> {
        self.pods.get(pod).with_context(|| format!("no pod {pod}"))
    }

    fn set(&self, set: &str) -> Result<SetSpec> {
        SetSpec::parse(self.manifests.find("StatefulSet", set).with_context(|| format!("no StatefulSet {set}"))?)
    }

    /// The pods of a set that run, by ordinal.
    fn ordinals(&self, set: &str) -> Vec<(u64, String)> {
        let ordinal = |pod: &String| pod.strip_prefix(set)?.strip_prefix('-')?.parse().ok();
        let mut found: Vec<(u64, String)> =
            self.pods.keys().filter_map(|pod| Some((ordinal(pod)?, pod.clone()))).collect();
        found.sort();
        found
    }

    fn start(&mut self, spec: &SetSpec, set: &str, pod: &str) -> Result<()> {
        let mut claims = BTreeMap::new();
        for template in &spec.volume_claim_templates {
            let volume = template.metadata.name.clone().context("a claim's name")?;
            let claim = format!("{volume}-{pod}");
            if !self.claims.contains_key(&claim) {
                self.volumes += 1;
                self.claims.insert(claim.clone(), format!("{}_volume_{}", self.name, self.volumes));
            }
            claims.insert(volume, claim);
        }
        let mut template = spec.template.clone();
        template.metadata.labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), pod.to_owned());
        ensure!(self.manifests.find("Service", &spec.service_name).is_some(), "{set} has no governing Service");
        let blueprint = self.blueprint(pod, template, Some(&spec.service_name), claims)?;
        self.pods.insert(pod.to_owned(), Pod::start(blueprint));
        Ok(())
    }

    fn blueprint(
        &self,
        pod: &str,
        template: Template,
        governing: Option<&str>,
        claims: BTreeMap<String, String>,
    ) -> Result<Blueprint> {
        let mut aliases = Vec::new();
        for service in self.manifests.kind("Service") {
            let selector = service["spec"]["selector"].as_object().context("a Service without selector")?;
            let selected = selector
                .iter()
                .all(|(key, value)| template.metadata.labels.get(key).map(String::as_str) == value.as_str());
            if selected {
                same_ports(service, &template.spec)?;
                aliases.push(name(service).to_owned());
            }
        }
        aliases.extend(governing.map(|service| format!("{pod}.{service}")));
        Ok(Blueprint {
            namespace: self.name.clone(),
            name: pod.to_owned(),
            spec: template.spec,
            aliases,
            claims,
            bound: self.claims.clone(),
            manifests: self.manifests.clone(),
            images: self.images.clone(),
            small: self.small.clone(),
            journal: self.journal.clone(),
        })
    }
}

/// A name leads to a pod's own ports here: a Service that maps them is not emulated.
fn same_ports(service: &Value, spec: &PodSpec) -> Result<()> {
    let containers = || spec.init_containers.iter().chain(&spec.containers);
    for port in items(&service["spec"]["ports"]) {
        let target = if port["targetPort"].is_null() { &port["port"] } else { &port["targetPort"] };
        let Some(number) = containers().find_map(|container| container.port(target).ok()) else {
            bail!("{}: no port {target} in its pods", name(service));
        };
        ensure!(port["port"] == number, "{}: a port that is mapped to another is not emulated", name(service));
    }
    Ok(())
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.succeeded {
            println!("{:#?}", self.journal.all());
            for (place, lines) in self.lines() {
                let tail = &lines[lines.len().saturating_sub(TAIL)..];
                println!("--- last lines of {place}\n{}", tail.join("\n"));
            }
        }
        self.pods.clear();
        if let Err(error) = SCOPE.remove(&self.name) {
            println!("{error:#}");
        }
    }
}
