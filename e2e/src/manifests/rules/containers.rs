use serde_json::{Value, json};

use super::super::{Manifests, items, quantity};
use super::{each_container, place};

/// Longest time that a server takes to finish open requests, in seconds (docs/OPERATIONS.md).
const DRAIN: u64 = 10;

/// Every amount can be read; requests are there and within limits; memory has a limit.
pub fn resources(manifests: &Manifests) -> Vec<String> {
    let mut faults = Vec::new();
    for (template, container) in each_container(manifests) {
        let (at, resources) = (place(&template, container), &container["resources"]);
        let amount = |kind: &str, what: &str| {
            resources[kind][what].as_str().map(quantity).transpose().map_err(|error| format!("{at}: {error}"))
        };
        for what in ["cpu", "memory"] {
            match (amount("requests", what), amount("limits", what)) {
                (Err(fault), _) | (_, Err(fault)) => faults.push(fault),
                (Ok(None), _) => faults.push(format!("{at}: requests no {what}")),
                (Ok(Some(_)), Ok(None)) if what == "memory" => faults.push(format!("{at}: no limit of memory")),
                (Ok(Some(asked)), Ok(Some(limit))) if asked > limit => {
                    faults.push(format!("{at}: requests more {what} than its limit"));
                }
                _ => {}
            }
        }
    }
    let claims = manifests.kind("StatefulSet").flat_map(|set| items(&set["spec"]["volumeClaimTemplates"]));
    for claim in claims {
        let size = claim["spec"]["resources"]["requests"]["storage"].as_str().unwrap_or_default();
        faults.extend(quantity(size).err().map(|error| format!("a claim's size: {error}")));
    }
    faults
}

/// Whoever goes on running has a startup and a liveness probe that ask nobody but itself; a server tells readiness.
pub fn probes(manifests: &Manifests) -> Vec<String> {
    let mut faults = Vec::new();
    for (template, container) in each_container(manifests) {
        let at = place(&template, container);
        let init = items(&template.pod["spec"]["initContainers"]).contains(container);
        // What runs to its end and not again.
        let once = !init && template.owner["kind"] == "Pod" && template.pod["spec"]["restartPolicy"] == "Never";
        if once || (init && container["restartPolicy"] != "Always") {
            continue;
        }
        let wanted: &[&str] = if container["name"] == "server" {
            &["startupProbe", "livenessProbe", "readinessProbe"]
        } else {
            &["startupProbe", "livenessProbe"]
        };
        faults.extend(wanted.iter().filter(|kind| container[*kind].is_null()).map(|kind| format!("{at}: no {kind}")));
        for kind in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let probe = &container[kind];
            if probe.is_null() {
                continue;
            }
            let handlers = ["httpGet", "tcpSocket", "exec", "grpc"].iter().filter(|key| !probe[**key].is_null());
            if handlers.count() != 1 {
                faults.push(format!("{at}: {kind} has not exactly one handler"));
            }
            if kind != "readinessProbe" && probe["httpGet"]["path"] != "/livez" {
                faults.push(format!("{at}: {kind} would restart it for what is not its own fault"));
            }
            if probe["timeoutSeconds"].as_u64() > probe["periodSeconds"].as_u64() && kind != "startupProbe" {
                faults.push(format!("{at}: {kind} takes longer than its period"));
            }
        }
        let start = &container["startupProbe"];
        let patience = start["periodSeconds"].as_u64().unwrap_or(10) * start["failureThreshold"].as_u64().unwrap_or(3);
        if !start.is_null() && patience < 60 {
            faults.push(format!("{at}: has only {patience} s to start"));
        }
    }
    faults
}

/// What the `restricted` pod security standard asks for, and a root that cannot be written.
pub fn security(manifests: &Manifests) -> Vec<String> {
    let mut faults = Vec::new();
    for template in manifests.templates() {
        let pod = &template.pod["spec"];
        let wanted = [
            ("/securityContext/runAsNonRoot", json!(true)),
            ("/securityContext/runAsUser", json!(65532)),
            ("/securityContext/runAsGroup", json!(65532)),
            ("/securityContext/fsGroup", json!(65532)),
            ("/securityContext/seccompProfile/type", json!("RuntimeDefault")),
            ("/automountServiceAccountToken", json!(false)),
            ("/enableServiceLinks", json!(false)),
        ];
        let unlike = wanted.iter().filter(|(pointer, value)| pod.pointer(pointer) != Some(value));
        faults.extend(unlike.map(|(pointer, value)| format!("{}: {pointer} is not {value}", template.name)));
        let forbidden = ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|key| !pod[**key].is_null());
        faults.extend(forbidden.map(|key| format!("{}: {key}", template.name)));
    }
    for (template, container) in each_container(manifests) {
        let wanted = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        });
        if container["securityContext"] != wanted {
            faults.push(format!("{}: securityContext is not {wanted}", place(&template, container)));
        }
    }
    faults
}

/// Words of which the published schemas do not say that there are only these.
const WORDS: [(&str, &[&str]); 10] = [
    ("imagePullPolicy", &["IfNotPresent"]),
    ("restartPolicy", &["Always", "Never"]),
    ("protocol", &["TCP", "UDP"]),
    ("whenUnsatisfiable", &["ScheduleAnyway", "DoNotSchedule"]),
    ("podManagementPolicy", &["OrderedReady", "Parallel"]),
    ("fsGroupChangePolicy", &["OnRootMismatch", "Always"]),
    ("unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]),
    ("whenDeleted", &["Retain"]),
    ("whenScaled", &["Retain"]),
    ("pathType", &["Prefix", "Exact"]),
];

/// Every field with a fixed choice has one of it.
pub fn words(manifests: &Manifests) -> Vec<String> {
    fn walk(value: &Value, faults: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    let choice = WORDS.iter().find(|(word, _)| word == key).map(|(_, choice)| *choice);
                    if let (Some(choice), Some(text)) = (choice, value.as_str()) {
                        faults.extend((!choice.contains(&text)).then(|| format!("{key} is {text}, not of {choice:?}")));
                    }
                    for (list, allowed) in [("accessModes", "ReadWriteOnce"), ("policyTypes", "Ingress Egress")] {
                        let strange = items(value).iter().filter_map(Value::as_str);
                        let strange =
                            strange.filter(|text| key == list && !allowed.split(' ').any(|word| word == *text));
                        faults.extend(strange.map(|text| format!("{list} has {text}")));
                    }
                    walk(value, faults);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, faults)),
            _ => {}
        }
    }
    let mut faults = Vec::new();
    manifests.objects.iter().for_each(|object| walk(object, &mut faults));
    faults
}

/// A server gets the time it takes to stop, its preStop pause included.
pub fn grace(manifests: &Manifests) -> Vec<String> {
    let mut faults = Vec::new();
    for (template, container) in each_container(manifests) {
        let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or_default();
        let grace = template.pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        if pause + DRAIN >= grace {
            faults.push(format!("{}: {pause} s and {DRAIN} s do not fit into {grace} s", place(&template, container)));
        }
    }
    faults
}
