use serde_json::Value;

use super::super::{Manifests, items, name};
use super::{place, title};

/// Names that become part of a DNS name are lower-case labels, short enough for what is appended to them.
pub fn names(manifests: &Manifests) -> Vec<String> {
    let is_label = |text: &str| {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !text.is_empty() && text.bytes().all(legal) && !text.starts_with('-') && !text.ends_with('-')
    };
    let too_long = |object: &Value| {
        // A controller appends an ordinal, and a revision's hash of ten characters as a label.
        let longest = if object["kind"] == "StatefulSet" { 52 } else { 63 };
        !is_label(name(object)) || name(object).len() > longest
    };
    let mut faults: Vec<String> = manifests.objects.iter().filter(|object| too_long(object)).map(title).collect();
    for template in manifests.templates() {
        let ports = template.ports().filter_map(|port| port["name"].as_str());
        faults.extend(ports.filter(|port| !is_label(port) || port.len() > 15).map(|port| format!("port {port}")));
        let containers = template.containers().filter_map(|container| container["name"].as_str());
        faults.extend(containers.filter(|name| !is_label(name)).map(|name| format!("container {name}")));
    }
    faults
}

/// A StatefulSet selects its own pods and is governed by a headless Service that does so too.
pub fn governing(manifests: &Manifests) -> Vec<String> {
    let mut faults = Vec::new();
    for template in manifests.templates().iter().filter(|template| template.owner["kind"] == "StatefulSet") {
        let spec = &template.owner["spec"];
        if !template.is_selected_by(&spec["selector"]["matchLabels"]) {
            faults.push(format!("{} does not select its own pods", template.name));
        }
        // The API takes nothing else there.
        if template.pod["spec"]["restartPolicy"].as_str().is_some_and(|policy| policy != "Always") {
            faults.push(format!("{}: its pods do not start again", template.name));
        }
        let service = spec["serviceName"].as_str().and_then(|service| manifests.find("Service", service));
        match service.map(|service| &service["spec"]) {
            None => faults.push(format!("{}: no governing Service", template.name)),
            Some(service) if service["clusterIP"] != "None" => {
                faults.push(format!("{}: the governing Service is not headless", template.name));
            }
            Some(service) if !template.is_selected_by(&service["selector"]) => {
                faults.push(format!("{}: the governing Service selects others", template.name));
            }
            Some(_) => {}
        }
    }
    let masters = manifests.find("StatefulSet", "vski-master").map(|set| &set["spec"]["replicas"]);
    faults.extend(masters.filter(|count| **count != 1).map(|count| format!("{count} masters")));
    faults
}

/// A budget lets one pod go at least, and keeps one at least where there are several.
pub fn budgets(manifests: &Manifests) -> Vec<String> {
    let (mut faults, templates) = (Vec::new(), manifests.templates());
    for budget in manifests.kind("PodDisruptionBudget") {
        let spec = &budget["spec"];
        let pods = templates.iter().filter(|template| template.is_selected_by(&spec["selector"]["matchLabels"]));
        let counts = pods.map(|template| template.owner["spec"]["replicas"].as_u64().unwrap_or(least(manifests)));
        let count: u64 = counts.sum();
        let allowed = match (spec["minAvailable"].as_u64(), spec["maxUnavailable"].as_u64()) {
            (Some(kept), None) => count.saturating_sub(kept),
            (None, Some(allowed)) => allowed,
            _ => 0,
        };
        if allowed == 0 {
            faults.push(format!("{}: no drain could ever end", title(budget)));
        }
        if count > 1 && allowed >= count {
            faults.push(format!("{}: all {count} pods may go at once", title(budget)));
        }
    }
    for template in templates.iter().filter(|template| template.owner["kind"] == "StatefulSet") {
        let of = |budget: &&Value| template.is_selected_by(&budget["spec"]["selector"]["matchLabels"]);
        let found = manifests.kind("PodDisruptionBudget").filter(of).count();
        if found != 1 {
            // With two, the eviction API refuses every eviction.
            faults.push(format!("{}: {found} budgets", template.name));
        }
    }
    faults
}

/// The fewest replicas that an autoscaler keeps; 1 without one.
fn least(manifests: &Manifests) -> u64 {
    manifests.kind("HorizontalPodAutoscaler").find_map(|scaler| scaler["spec"]["minReplicas"].as_u64()).unwrap_or(1)
}

/// An autoscaler has its target to itself, sensible bounds, and something to measure.
pub fn autoscaling(manifests: &Manifests) -> Vec<String> {
    let (mut faults, templates) = (Vec::new(), manifests.templates());
    for scaler in manifests.kind("HorizontalPodAutoscaler") {
        let (at, spec) = (title(scaler), &scaler["spec"]);
        let target = templates.iter().find(|template| {
            let target = &spec["scaleTargetRef"];
            template.owner["kind"] == target["kind"]
                && template.owner["apiVersion"] == target["apiVersion"]
                && target["name"] == template.name
        });
        let Some(target) = target else {
            faults.push(format!("{at}: no target"));
            continue;
        };
        if target.name == "vski-master" {
            faults.push(format!("{at}: scales the master"));
        }
        if !target.owner["spec"]["replicas"].is_null() {
            faults.push(format!("{at}: each apply sets its number back"));
        }
        if spec["minReplicas"].as_u64().unwrap_or(1) > spec["maxReplicas"].as_u64().unwrap_or(0) {
            faults.push(format!("{at}: more at least than at most"));
        }
        for metric in items(&spec["metrics"]).iter().map(|metric| &metric["containerResource"]) {
            let resource = metric["name"].as_str().unwrap_or_default();
            let container = target.containers().find(|container| container["name"] == metric["container"]);
            if container.is_none_or(|container| container["resources"]["requests"][resource].is_null()) {
                faults.push(format!("{at}: a share of a request that does not exist"));
            }
        }
    }
    faults
}

/// Data outlives pods and StatefulSets.
pub fn retention(manifests: &Manifests) -> Vec<String> {
    let mut faults = Vec::new();
    for set in manifests.kind("StatefulSet") {
        let policy = &set["spec"]["persistentVolumeClaimRetentionPolicy"];
        let kept = ["whenDeleted", "whenScaled"].iter().all(|when| policy[*when] == "Retain");
        let claims =
            items(&set["spec"]["volumeClaimTemplates"]).iter().filter(|claim| claim["metadata"]["name"] == "data");
        if !kept || claims.count() != 1 {
            faults.push(format!("{}: its data are not kept", title(set)));
        }
    }
    faults
}

/// Server and agent of a replica see one volume, read one secret and one master.
pub fn replica(manifests: &Manifests) -> Vec<String> {
    let mut faults = Vec::new();
    for template in manifests.templates().iter().filter(|template| template.name == "vski-replica") {
        let find = |name: &str| template.containers().find(|container| container["name"] == name);
        let (Some(server), Some(agent)) = (find("server"), find("agent")) else {
            faults.push("a replica is a server and an agent".to_owned());
            continue;
        };
        for field in ["image", "volumeMounts", "envFrom"] {
            if server[field] != agent[field] {
                faults.push(format!("server and agent differ in {field}"));
            }
        }
        let setting = |container: &Value, key: &str| {
            let found = items(&container["env"]).iter().find(|entry| entry["name"] == key);
            found.map(|entry| entry["value"].clone())
        };
        for (key, value) in [("REPLICA_MODE", "replica"), ("SYNC_AGENT", "external")] {
            if setting(server, key) != Some(value.into()) {
                faults.push(format!("{}: {key} is not {value}", place(template, server)));
            }
        }
        if setting(server, "REPLICA_ID") != setting(agent, "REPLICA_ID") {
            faults.push("server and agent have different ids".to_owned());
        }
        let command = agent["command"].as_array().is_some_and(|command| command[..] == ["vski-sync-agent", "run"]);
        if !command {
            faults.push("the agent's command is not vski-sync-agent run".to_owned());
        }
    }
    faults
}
