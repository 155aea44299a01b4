use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{Manifests, Template, items, name, repository};
use super::{PROVIDED_BY_HAND, each_container, place, title};

/// What objects that point at pods point at them with, each with the object.
fn selectors_of(manifests: &Manifests) -> Vec<(&Value, &Value)> {
    let mut found = Vec::new();
    for object in &manifests.objects {
        let spec = &object["spec"];
        match object["kind"].as_str().unwrap_or_default() {
            "Service" => found.push((object, &spec["selector"])),
            "PodDisruptionBudget" | "PodMonitor" => found.push((object, &spec["selector"]["matchLabels"])),
            "NetworkPolicy" => {
                found.push((object, &spec["podSelector"]["matchLabels"]));
                let ways = items(&spec["ingress"]).iter().map(|rule| &rule["from"]);
                let peers = ways.chain(items(&spec["egress"]).iter().map(|rule| &rule["to"])).flat_map(items);
                let here = peers.filter(|peer| peer.get("namespaceSelector").is_none());
                // {} means every pod here.
                let labels = here.filter_map(|peer| peer["podSelector"].get("matchLabels"));
                found.extend(labels.map(|labels| (object, labels)));
            }
            "StatefulSet" => {
                let spec = &spec["template"]["spec"];
                let spread = items(&spec["topologySpreadConstraints"]).iter().map(|rule| &rule["labelSelector"]);
                found.extend(spread.map(|selector| (object, &selector["matchLabels"])));
                for kind in ["podAffinity", "podAntiAffinity"] {
                    let rules = &spec["affinity"][kind];
                    let wished = items(&rules["preferredDuringSchedulingIgnoredDuringExecution"]).iter();
                    let needed = items(&rules["requiredDuringSchedulingIgnoredDuringExecution"]).iter();
                    let terms = wished.map(|wish| &wish["podAffinityTerm"]).chain(needed);
                    found.extend(terms.map(|term| (object, &term["labelSelector"]["matchLabels"])));
                }
            }
            _ => {}
        }
    }
    found
}

/// Every selector selects pods of this set.
pub fn selectors(manifests: &Manifests) -> Vec<String> {
    let templates = manifests.templates();
    let lost = selectors_of(manifests).into_iter().filter(|(_, labels)| {
        // Examples hold no pods.
        !templates.is_empty() && !templates.iter().any(|template| template.is_selected_by(labels))
    });
    let mut faults: Vec<String> =
        lost.map(|(object, labels)| format!("{}: {labels} selects no pod", title(object))).collect();
    for monitor in manifests.kind("ServiceMonitor") {
        let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
        let found = manifests
            .kind("Service")
            .filter(|service| wanted.iter().all(|(key, value)| &service["metadata"]["labels"][key] == value));
        if found.count() != 1 {
            faults.push(format!("{}: selects not exactly one Service", title(monitor)));
        }
    }
    faults
}

fn has_port(template: &Template, port: &Value) -> bool {
    template.ports().any(|known| match port {
        Value::String(name) => known["name"] == *name,
        number => known["containerPort"] == *number,
    })
}

/// Every port that something outside a container names is one of the pods that it selects.
pub fn named_ports(manifests: &Manifests) -> Vec<String> {
    let mut asked: Vec<(String, &Value, &Value)> = Vec::new();
    for object in &manifests.objects {
        let spec = &object["spec"];
        match object["kind"].as_str().unwrap_or_default() {
            "Service" => {
                let ports = items(&spec["ports"]).iter();
                let target = |port| Some(port).filter(|port: &&Value| !port["targetPort"].is_null());
                asked.extend(
                    ports.filter_map(target).map(|port| (title(object), &spec["selector"], &port["targetPort"])),
                );
            }
            "NetworkPolicy" => {
                let ports = items(&spec["ingress"]).iter().flat_map(|rule| items(&rule["ports"]));
                asked.extend(ports.map(|port| (title(object), &spec["podSelector"]["matchLabels"], &port["port"])));
            }
            "PodMonitor" => {
                let ports = items(&spec["podMetricsEndpoints"]).iter();
                asked.extend(ports.map(|port| (title(object), &spec["selector"]["matchLabels"], &port["port"])));
            }
            _ => {}
        }
    }
    let templates = manifests.templates();
    let selected = asked.iter().flat_map(|(object, labels, port)| {
        let pods = templates.iter().filter(|template| template.is_selected_by(labels));
        pods.filter(|template| !has_port(template, port))
            .map(move |pod| format!("{object}: {} has no port {port}", pod.name))
    });
    let mut faults: Vec<String> = selected.collect();
    for (template, container) in each_container(manifests) {
        let probes =
            ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| &container[probe]["httpGet"]["port"]);
        let unknown = probes.into_iter().filter(|port| !port.is_null()).filter(|port| {
            !items(&container["ports"]).iter().any(|known| known["name"] == **port || known["containerPort"] == **port)
        });
        faults.extend(unknown.map(|port| format!("{}: a probe asks port {port}", place(&template, container))));
    }
    for monitor in manifests.kind("ServiceMonitor") {
        let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
        for service in manifests.kind("Service") {
            let selected = wanted.iter().all(|(key, value)| &service["metadata"]["labels"][key] == value);
            let known = |port: &Value| items(&service["spec"]["ports"]).iter().any(|at| at["name"] == port["port"]);
            if selected && !items(&monitor["spec"]["endpoints"]).iter().all(known) {
                faults.push(format!("{}: {} has no such port", title(monitor), name(service)));
            }
        }
    }
    faults
}

/// Every mount has a volume and every volume is mounted.
pub fn volumes(manifests: &Manifests) -> Vec<String> {
    let mut faults = Vec::new();
    for template in manifests.templates() {
        let own = items(&template.pod["spec"]["volumes"]).iter().map(|volume| &volume["name"]);
        let claimed =
            items(&template.owner["spec"]["volumeClaimTemplates"]).iter().map(|claim| &claim["metadata"]["name"]);
        let declared: Vec<&Value> = own.chain(claimed).collect();
        let mounts = template.containers().flat_map(|container| items(&container["volumeMounts"]));
        let mounted: Vec<&Value> = mounts.map(|mount| &mount["name"]).collect();
        let undeclared = mounted.iter().filter(|name| !declared.contains(name));
        faults.extend(undeclared.map(|volume| format!("{}: no volume {volume}", template.name)));
        let idle = declared.iter().filter(|name| !mounted.contains(name));
        faults.extend(idle.map(|volume| format!("{}: nothing mounts {volume}", template.name)));
        let twice = declared.iter().filter(|name| declared.iter().filter(|other| other == name).count() > 1);
        faults.extend(twice.map(|volume| format!("{}: two volumes {volume}", template.name)));
    }
    faults
}

/// Every ConfigMap, Secret and ServiceAccount that a pod names is there, or is made by hand.
pub fn configuration(manifests: &Manifests) -> Vec<String> {
    let mut asked: Vec<(&str, &str, &str)> = Vec::new();
    for (template, container) in each_container(manifests) {
        for source in items(&container["envFrom"]) {
            asked.extend(source["configMapRef"]["name"].as_str().map(|name| (template.name, "ConfigMap", name)));
            asked.extend(source["secretRef"]["name"].as_str().map(|name| (template.name, "Secret", name)));
        }
        for source in items(&container["env"]).iter().map(|variable| &variable["valueFrom"]) {
            asked.extend(source["configMapKeyRef"]["name"].as_str().map(|name| (template.name, "ConfigMap", name)));
            asked.extend(source["secretKeyRef"]["name"].as_str().map(|name| (template.name, "Secret", name)));
        }
    }
    let templates = manifests.templates();
    for template in &templates {
        let spec = &template.pod["spec"];
        asked.extend(spec["serviceAccountName"].as_str().map(|name| (template.name, "ServiceAccount", name)));
        for volume in items(&spec["volumes"]) {
            asked.extend(volume["configMap"]["name"].as_str().map(|name| (template.name, "ConfigMap", name)));
            asked.extend(volume["secret"]["secretName"].as_str().map(|name| (template.name, "Secret", name)));
        }
    }
    // A single pod of the examples comes into a namespace that has them.
    let example = manifests.kind("Pod").count() > 0;
    let missing = asked.into_iter().filter(|(_, kind, wanted)| {
        let by_hand = *kind == "Secret" && PROVIDED_BY_HAND.contains(wanted);
        !by_hand && !example && manifests.find(kind, wanted).is_none()
    });
    missing.map(|(pod, kind, wanted)| format!("{pod}: no {kind} {wanted}")).collect()
}

/// Variables of the README's configuration table, and those that are not ours.
fn known_variables() -> BTreeSet<String> {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap_or_default();
    let rows = readme.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()));
    rows.chain(std::iter::once("AGENT_ADDR".to_owned())).collect()
}

/// Every variable is one that the programs read, stands once, and uses only what stands before it.
pub fn variables(manifests: &Manifests) -> Vec<String> {
    let (known, mut faults) = (known_variables(), Vec::new());
    let settings = manifests.kind("ConfigMap").flat_map(|map| map["data"].as_object().into_iter().flatten());
    let unknown = settings.filter(|(key, _)| !known.contains(*key));
    faults.extend(unknown.map(|(key, _)| format!("a ConfigMap sets {key}, which no program reads")));
    for (template, container) in each_container(manifests) {
        let at = place(&template, container);
        let mut before: Vec<&str> = Vec::new();
        for variable in items(&container["env"]) {
            let name = variable["name"].as_str().unwrap_or_default();
            if !known.contains(name) {
                faults.push(format!("{at}: {name} is read by no program"));
            }
            if before.contains(&name) {
                faults.push(format!("{at}: {name} stands twice"));
            }
            let used = variable["value"].as_str().unwrap_or_default().split("$(").skip(1);
            let used = used.filter_map(|rest| Some(rest.split_once(')')?.0));
            faults.extend(
                used.filter(|name| !before.contains(name)).map(|used| format!("{at}: {name} uses {used} too early")),
            );
            before.push(name);
        }
    }
    faults
}

/// MASTER_URL and PUBLIC_URL name a Service and its port.
pub fn addresses(manifests: &Manifests) -> Vec<String> {
    let mut asked: Vec<&Value> = Vec::new();
    asked.extend(manifests.kind("ConfigMap").map(|map| &map["data"]["MASTER_URL"]));
    for (_, container) in each_container(manifests) {
        let variables = items(&container["env"]).iter();
        asked.extend(
            variables
                .filter(|entry| entry["name"] == "PUBLIC_URL" || entry["name"] == "MASTER_URL")
                .map(|entry| &entry["value"]),
        );
    }
    let known = |url: &str| {
        let (host, port) = url.strip_prefix("http://")?.split_once(':')?;
        let service = manifests.find("Service", host.split_once('.').map_or(host, |(_, service)| service))?;
        let port: u16 = port.parse().ok()?;
        items(&service["spec"]["ports"]).iter().find(|known| known["port"] == port)
    };
    let example = manifests.kind("StatefulSet").count() == 0;
    let urls = asked.into_iter().filter_map(Value::as_str).filter(|_| !example);
    urls.filter(|url| known(url).is_none()).map(|url| format!("{url} is no Service here")).collect()
}

/// Ingresses and routes lead to Services and ports that the production overlay has.
pub fn backends(manifests: &Manifests) -> Vec<String> {
    let mut faults = Vec::new();
    let mut asked: Vec<(&Value, &Value, &Value)> = Vec::new();
    for route in manifests.kind("HTTPRoute") {
        let backends = items(&route["spec"]["rules"]).iter().flat_map(|rule| items(&rule["backendRefs"]));
        asked.extend(backends.map(|backend| (route, &backend["name"], &backend["port"])));
    }
    for ingress in manifests.kind("Ingress") {
        let paths = items(&ingress["spec"]["rules"]).iter().flat_map(|rule| items(&rule["http"]["paths"]));
        let services = paths.map(|path| &path["backend"]["service"]);
        asked.extend(services.map(|service| (ingress, &service["name"], &service["port"]["name"])));
    }
    for (route, service, port) in asked {
        let found = service.as_str().and_then(|service| manifests.find("Service", service));
        let ports = found.map_or(&[][..], |service| items(&service["spec"]["ports"]));
        if !ports.iter().any(|known| known["name"] == *port || known["port"] == *port) {
            faults.push(format!("{}: no Service {service} with port {port}", title(route)));
        }
    }
    faults
}

/// What is in a namespace is in one, and that exists where it is named.
pub fn namespaces(manifests: &Manifests) -> Vec<String> {
    let own: Vec<&str> = manifests.kind("Namespace").map(name).collect();
    let Some(wanted) = own.first() else { return Vec::new() };
    let others = manifests.objects.iter().filter(|object| object["kind"] != "Namespace");
    let strays = others.filter(|object| object["metadata"]["namespace"] != **wanted);
    strays.map(|object| format!("{} is not in {wanted}", title(object))).collect()
}

/// No two ports of a pod or Service share a name or a number.
pub fn unique_ports(manifests: &Manifests) -> Vec<String> {
    let services = manifests
        .kind("Service")
        .map(|object| (title(object), items(&object["spec"]["ports"]).iter().collect(), "port"));
    let pods = manifests.templates().into_iter();
    let pods = pods.map(|template| (template.name.to_owned(), template.ports().collect::<Vec<_>>(), "containerPort"));
    let mut faults = Vec::new();
    for (owner, ports, number) in services.chain(pods) {
        for key in ["name", number] {
            let values: BTreeSet<String> = ports.iter().map(|port| port[key].to_string()).collect();
            if values.len() != ports.len() {
                faults.push(format!("{owner}: two ports share a {key}"));
            }
        }
    }
    faults
}
