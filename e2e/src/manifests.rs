//! Kubernetes manifests as `kubectl kustomize` renders them, as JSON values, and what is to be true of them.
//!
//! `e2e/tools/kubernetes` puts kubectl and the schemas' Python into `target/tools`; [`faults`] are our own rules, for
//! what no schema knows.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What must be true of manifests besides their schemas.
mod rules;

/// Amounts such as `100m` and `2Gi`.
mod quantity;

pub use quantity::quantity;
pub use rules::{PROVIDED_BY_HAND, RULES, Rule, faults};

/// The objects of one folder.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// In the order in which they were rendered.
    pub objects: Vec<Value>,
}

/// A pod template and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Template<'a> {
    /// Name of the StatefulSet, or of the Pod itself.
    pub name: &'a str,
    /// The StatefulSet or Pod.
    pub owner: &'a Value,
    /// The template, or the Pod: what has `metadata` and `spec`.
    pub pod: &'a Value,
}

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Renders a folder below `k8s` with `kubectl kustomize`; a single file there is only read.
pub fn render(path: &str) -> Result<Manifests> {
    let source = repository().join("k8s").join(path);
    let yaml = if source.is_dir() {
        let mut kubectl = tool("kubectl")?;
        run(kubectl.arg("kustomize").arg(&source), None).with_context(|| format!("render {path}"))?
    } else {
        std::fs::read_to_string(&source).with_context(|| format!("read {path}"))?
    };
    parse(&yaml).with_context(|| format!("parse {path}"))
}

/// The objects of a YAML stream. A key that stands twice is an error.
pub fn parse(yaml: &str) -> Result<Manifests> {
    let json = run(python()?.arg("load"), Some(yaml))?;
    Ok(Manifests { objects: serde_json::from_str(&json).context("read what the loader printed")? })
}

/// What the strict schemas of a Kubernetes version (`1.37`) say of each set of objects.
pub fn schema_faults(version: &str, sets: &[Manifests]) -> Result<Vec<Vec<String>>> {
    let sets: Vec<&Vec<Value>> = sets.iter().map(|set| &set.objects).collect();
    let json = run(python()?.args(["check", version]), Some(&serde_json::to_string(&sets)?))?;
    serde_json::from_str(&json).context("read what the checker printed")
}

impl Manifests {
    /// Objects of a kind.
    pub fn kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The object of that kind and name.
    pub fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
    }

    /// The same, to change it.
    pub fn find_mut(&mut self, kind: &str, name: &str) -> Result<&mut Value> {
        let found = self.objects.iter_mut().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.with_context(|| format!("no {kind} {name}"))
    }

    /// The templates of all pods.
    #[must_use]
    pub fn templates(&self) -> Vec<Template<'_>> {
        let sets = self.kind("StatefulSet").map(|owner| (owner, &owner["spec"]["template"]));
        let pods = self.kind("Pod").map(|pod| (pod, pod));
        sets.chain(pods).map(|(owner, pod)| Template { name: name(owner), owner, pod }).collect()
    }
}

impl<'a> Template<'a> {
    /// Init containers, then the others.
    pub fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = &self.pod["spec"];
        items(&spec["initContainers"]).iter().chain(items(&spec["containers"]))
    }

    /// Named ports of all containers that go on running.
    pub fn ports(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.containers().flat_map(|container| items(&container["ports"]))
    }

    /// The label of this template, if it has it. Pods of a StatefulSet also have their own name as one.
    #[must_use]
    pub fn has_label(&self, key: &str, value: &str) -> bool {
        if key == "statefulset.kubernetes.io/pod-name" {
            let ordinal = value.strip_prefix(self.name).and_then(|rest| rest.strip_prefix('-'));
            let replicas = self.owner["spec"]["replicas"].as_u64();
            return ordinal.and_then(|text| text.parse::<u64>().ok()).is_some_and(|n| n < replicas.unwrap_or(3));
        }
        self.pod["metadata"]["labels"][key] == value
    }

    /// Whether a map of labels selects its pods. An empty or absent map selects none here.
    #[must_use]
    pub fn is_selected_by(&self, labels: &Value) -> bool {
        let Some(labels) = labels.as_object().filter(|labels| !labels.is_empty()) else { return false };
        labels.iter().all(|(key, value)| value.as_str().is_some_and(|value| self.has_label(key, value)))
    }
}

/// The elements of an array; none where there is no array.
#[must_use]
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `metadata.name`, or nothing.
#[must_use]
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// A program that `e2e/tools/kubernetes` has installed.
fn tool(name: &str) -> Result<Command> {
    let file = repository().join("target/tools").join(name);
    ensure!(file.is_file(), "target/tools/{name} is missing: run e2e/tools/kubernetes first");
    Ok(Command::new(file))
}

fn python() -> Result<Command> {
    let mut python = tool("python/bin/python")?;
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/manifests.py"));
    Ok(python)
}

/// What a command printed; it must succeed.
fn run(command: &mut Command, input: Option<&str>) -> Result<String> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start")?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // It reads all of its input before it prints.
        stdin.write_all(input.as_bytes()).context("write the input")?;
    }
    let output = child.wait_with_output().context("wait")?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("read the output")
}
