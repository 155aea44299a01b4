//! One function a rule; each tells what is wrong in words. The mutation table in tests/pods proves that each can fail.

use serde_json::Value;

use super::{Manifests, Template, name};

/// References between objects and inside a pod.
mod references;

/// Resources, probes, security: what one container must have.
mod containers;

/// StatefulSets, budgets, autoscalers: what belongs to several pods.
mod sets;

/// A rule's name and what it finds.
pub type Rule = (&'static str, fn(&Manifests) -> Vec<String>);

/// Secrets that overlays expect and do not hold: k8s/README.md says how to make them.
pub const PROVIDED_BY_HAND: [&str; 1] = ["vski-jwt"];

/// All rules.
pub const RULES: [Rule; 20] = [
    ("selectors select pods", references::selectors),
    ("ports that are named exist", references::named_ports),
    ("mounts and volumes belong together", references::volumes),
    ("ConfigMaps and Secrets exist", references::configuration),
    ("variables are known and defined before use", references::variables),
    ("addresses name Services", references::addresses),
    ("backends of routes exist", references::backends),
    ("one namespace", references::namespaces),
    ("port names and numbers are unique", references::unique_ports),
    ("requests and limits", containers::resources),
    ("probes", containers::probes),
    ("locked down", containers::security),
    ("known words", containers::words),
    ("time to stop", containers::grace),
    ("names have legal length and letters", sets::names),
    ("a StatefulSet's own selector and Service", sets::governing),
    ("budgets let a drain go on", sets::budgets),
    ("autoscaling", sets::autoscaling),
    ("volumes outlive pods", sets::retention),
    ("a replica is a server and an agent on one volume", sets::replica),
];

/// What is wrong, each with the name of the rule that says so.
#[must_use]
pub fn faults(manifests: &Manifests) -> Vec<(&'static str, String)> {
    let told = RULES.iter().flat_map(|(rule, find)| find(manifests).into_iter().map(move |fault| (*rule, fault)));
    told.collect()
}

/// Each container with the template it belongs to.
fn each_container<'a>(manifests: &'a Manifests) -> Vec<(Template<'a>, &'a Value)> {
    let templates = manifests.templates().into_iter();
    templates.flat_map(|template| template.containers().map(move |container| (template, container))).collect()
}

/// How messages call an object.
fn title(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap_or("?"), name(object))
}

/// How messages call a container.
fn place(template: &Template, container: &Value) -> String {
    format!("{} of {}", container["name"].as_str().unwrap_or("?"), template.name)
}
