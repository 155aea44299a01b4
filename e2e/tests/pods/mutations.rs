//! Manifests with one thing wrong. Each row names who must notice: a schema, or one of our rules.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use e2e::manifests::{Manifests, RULES, faults, render, schema_faults};
use serde_json::{Value, json};

/// Kind, name, JSON pointer, the new value (null: taken away), and the rule that must notice.
type Mutation = (&'static str, &'static str, &'static str, Value, &'static str);

const SET: &str = "StatefulSet";

/// What the schemas notice.
fn malformed() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    vec![
        (SET, "vski-replica", "/spec/podManagmentPolicy", json!("Parallel")),
        (SET, "vski-replica", "/spec/template/spec/containers/0/livenesProbe", json!({})),
        (SET, "vski-replica", "/spec/replicas", json!("2")),
        (SET, "vski-replica", "/kind", json!("StatefulSets")),
        (SET, "vski-replica", "/apiVersion", json!("apps/v1beta9")),
        (SET, "vski-replica", "/spec/template/spec/volumes/0/secret/items", json!({"key": "x"})),
        ("Service", "vski-read", "/spec/ports/0/targetport", json!("http")),
        ("PodDisruptionBudget", "vski-replica", "/spec/minimumAvailable", json!(1)),
        ("NetworkPolicy", "vski-replica", "/spec/egress/0/ports/0/ports", json!([])),
    ]
}

/// What they do not.
fn rows() -> Vec<Mutation> {
    let mut rows = references();
    rows.extend(containers());
    rows.extend(sets());
    rows
}

fn references() -> Vec<Mutation> {
    let (select, ports) = ("selectors select pods", "ports that are named exist");
    let (mounts, exist) = ("mounts and volumes belong together", "ConfigMaps and Secrets exist");
    let (variables, unique) = ("variables are known and defined before use", "port names and numbers are unique");
    let labels = "/spec/selector/app.kubernetes.io~1component";
    vec![
        ("Service", "vski-read", labels, json!("replicas"), select),
        (
            "Service",
            "vski-replica-1",
            "/spec/selector/statefulset.kubernetes.io~1pod-name",
            json!("vski-replica-9"),
            select,
        ),
        (
            "NetworkPolicy",
            "vski-replica",
            "/spec/egress/2/to/0/podSelector/matchLabels/app.kubernetes.io~1component",
            json!("primary"),
            select,
        ),
        (
            SET,
            "vski-replica",
            "/spec/template/spec/topologySpreadConstraints/0/labelSelector/matchLabels/app.kubernetes.io~1name",
            json!("vsky"),
            select,
        ),
        ("Service", "vski-read", "/spec/ports/0/targetPort", json!("web"), ports),
        ("NetworkPolicy", "vski-master", "/spec/ingress/0/ports/0/port", json!("agent"), ports),
        (SET, "vski-replica", "/spec/template/spec/containers/0/livenessProbe/httpGet/port", json!("agent"), ports),
        (SET, "vski-master", "/spec/template/spec/containers/0/volumeMounts/0/name", json!("date"), mounts),
        (SET, "vski-master", "/spec/template/spec/volumes/0/name", json!("secrets"), mounts),
        (SET, "vski-master", "/spec/template/spec/containers/0/envFrom/0/configMapRef/name", json!("vski"), exist),
        (SET, "vski-master", "/spec/template/spec/volumes/0/secret/secretName", json!("jwt"), exist),
        (SET, "vski-master", "/spec/template/spec/serviceAccountName", json!("default"), exist),
        (SET, "vski-replica", "/spec/template/spec/containers/0/env/0/name", json!("REPLICA_MOD"), variables),
        (
            SET,
            "vski-replica",
            "/spec/template/spec/containers/0/env/3/value",
            json!("http://$(POD).vski-replicas:3001"),
            variables,
        ),
        (SET, "vski-replica", "/spec/template/spec/containers/0/env/0/name", json!("REPLICA_ID"), variables),
        (
            SET,
            "vski-master",
            "/spec/template/spec/containers/0/env/2/value",
            json!("http://vski-writer:3001"),
            "addresses name Services",
        ),
        ("Service", "vski-write", "/spec/ports/0/port", json!(80), "addresses name Services"),
        (
            "Ingress",
            "vski",
            "/spec/rules/0/http/paths/0/backend/service/name",
            json!("vski"),
            "backends of routes exist",
        ),
        (
            "Ingress",
            "vski",
            "/spec/rules/0/http/paths/0/backend/service/port/name",
            json!("web"),
            "backends of routes exist",
        ),
        ("Service", "vski-read", "/metadata/namespace", json!("default"), "one namespace"),
        (SET, "vski-replica", "/spec/template/spec/initContainers/0/ports/0/containerPort", json!(3001), unique),
        ("Service", "vski-replicas", "/spec/ports/1/name", json!("http"), unique),
    ]
}

fn containers() -> Vec<Mutation> {
    let (amounts, probes) = ("requests and limits", "probes");
    let (locked, words) = ("locked down", "known words");
    vec![
        (SET, "vski-master", "/spec/template/spec/containers/0/resources/requests/memory", json!("1Ti"), amounts),
        (SET, "vski-master", "/spec/template/spec/containers/0/resources/requests/memory", json!("128MB"), amounts),
        (SET, "vski-master", "/spec/template/spec/containers/0/resources/limits", Value::Null, amounts),
        (SET, "vski-master", "/spec/template/spec/containers/0/resources/requests/cpu", Value::Null, amounts),
        (SET, "vski-master", "/spec/volumeClaimTemplates/0/spec/resources/requests/storage", json!("2GB"), amounts),
        (SET, "vski-replica", "/spec/template/spec/initContainers/0/startupProbe", Value::Null, probes),
        (SET, "vski-replica", "/spec/template/spec/containers/0/readinessProbe", Value::Null, probes),
        (
            SET,
            "vski-replica",
            "/spec/template/spec/containers/0/readinessProbe/tcpSocket",
            json!({"port": 3001}),
            probes,
        ),
        (SET, "vski-replica", "/spec/template/spec/containers/0/livenessProbe/httpGet/path", json!("/readyz"), probes),
        (SET, "vski-replica", "/spec/template/spec/containers/0/livenessProbe/timeoutSeconds", json!(11), probes),
        (SET, "vski-master", "/spec/template/spec/containers/0/startupProbe/failureThreshold", json!(3), probes),
        (SET, "vski-master", "/spec/template/spec/securityContext/runAsNonRoot", Value::Null, locked),
        (
            SET,
            "vski-master",
            "/spec/template/spec/containers/0/securityContext/readOnlyRootFilesystem",
            json!(false),
            locked,
        ),
        (
            SET,
            "vski-replica",
            "/spec/template/spec/initContainers/0/securityContext/capabilities/drop",
            json!(["NET_RAW"]),
            locked,
        ),
        (SET, "vski-replica", "/spec/template/spec/hostNetwork", json!(true), locked),
        (SET, "vski-master", "/spec/template/spec/containers/0/imagePullPolicy", json!("IfAbsent"), words),
        (SET, "vski-replica", "/spec/podManagementPolicy", json!("OneByOne"), words),
        (SET, "vski-replica", "/spec/volumeClaimTemplates/0/spec/accessModes/0", json!("ReadWriteMany"), words),
        (SET, "vski-master", "/spec/template/spec/terminationGracePeriodSeconds", json!(12), "time to stop"),
    ]
}

fn sets() -> Vec<Mutation> {
    let (own, names) = ("a StatefulSet's own selector and Service", "names have legal length and letters");
    let (budgets, scaling) = ("budgets let a drain go on", "autoscaling");
    let (kept, replica) = ("volumes outlive pods", "a replica is a server and an agent on one volume");
    vec![
        (
            SET,
            "vski-replica",
            "/metadata/name",
            json!("vski-replica-with-a-name-too-long-for-the-hash-of-its-revision"),
            names,
        ),
        ("Service", "vski-read", "/metadata/name", json!("vski_read"), names),
        (SET, "vski-replica", "/spec/template/spec/containers/0/ports/0/name", json!("http-for-everybody"), names),
        (SET, "vski-replica", "/spec/selector/matchLabels/app.kubernetes.io~1component", json!("master"), own),
        (SET, "vski-replica", "/spec/serviceName", json!("vski-read"), own),
        (SET, "vski-replica", "/spec/serviceName", json!("vski-master"), own),
        (SET, "vski-master", "/spec/replicas", json!(2), own),
        ("PodDisruptionBudget", "vski-replica", "/spec/maxUnavailable", json!(0), budgets),
        ("PodDisruptionBudget", "vski-replica", "/spec/maxUnavailable", json!(3), budgets),
        ("PodDisruptionBudget", "vski-replica", "/spec/minAvailable", json!(1), budgets),
        (
            "PodDisruptionBudget",
            "vski-master",
            "/spec/selector/matchLabels/app.kubernetes.io~1component",
            json!("replica"),
            budgets,
        ),
        ("HorizontalPodAutoscaler", "vski-replica", "/spec/scaleTargetRef/kind", json!("Deployment"), scaling),
        ("HorizontalPodAutoscaler", "vski-replica", "/spec/scaleTargetRef/name", json!("vski-master"), scaling),
        ("HorizontalPodAutoscaler", "vski-replica", "/spec/minReplicas", json!(7), scaling),
        (
            "HorizontalPodAutoscaler",
            "vski-replica",
            "/spec/metrics/0/containerResource/container",
            json!("main"),
            scaling,
        ),
        (SET, "vski-replica", "/spec/replicas", json!(3), scaling),
        (SET, "vski-master", "/spec/persistentVolumeClaimRetentionPolicy/whenScaled", Value::Null, kept),
        (SET, "vski-replica", "/spec/template/spec/initContainers/0/envFrom/1", Value::Null, replica),
        (SET, "vski-replica", "/spec/template/spec/initContainers/0/command/0", json!("vski-server"), replica),
        (SET, "vski-replica", "/spec/template/spec/containers/0/env/1/value", json!("embedded"), replica),
        (SET, "vski-replica", "/spec/template/spec/containers/0/image", json!("vski:other"), replica),
    ]
}

/// Sets, adds or, for null, takes away what a JSON pointer names.
fn change(object: &mut Value, pointer: &str, value: Value) -> Result<()> {
    let (parent, key) = pointer.rsplit_once('/').context("a pointer")?;
    let key = key.replace("~1", "/");
    match (object.pointer_mut(parent).with_context(|| format!("nothing at {parent}"))?, value) {
        (Value::Object(fields), Value::Null) => {
            ensure!(fields.remove(&key).is_some(), "nothing at {pointer}");
        }
        (Value::Object(fields), value) => {
            ensure!(fields.insert(key, value.clone()) != Some(value), "{pointer} is so already");
        }
        (Value::Array(values), Value::Null) => drop(values.remove(key.parse()?)),
        (Value::Array(values), value) => *values.get_mut(key.parse::<usize>()?).context("an element")? = value,
        (other, _) => bail!("{other} has no parts"),
    }
    Ok(())
}

/// The production overlay with the example that routes to it.
fn whole() -> Result<Manifests> {
    let mut whole = render("overlays/prod")?;
    whole.objects.extend(render("examples/ingress.yaml")?.objects);
    Ok(whole)
}

pub fn against_our_rules() -> Result<()> {
    let whole = whole()?;
    ensure!(faults(&whole).is_empty(), "{:#?}", faults(&whole));
    let mut broken = BTreeSet::new();
    for (kind, name, pointer, value, rule) in rows() {
        let mut set = whole.clone();
        change(set.find_mut(kind, name)?, pointer, value.clone()).with_context(|| format!("{name} {pointer}"))?;
        let found = faults(&set);
        ensure!(
            found.iter().any(|(by, _)| *by == rule),
            "{name} {pointer} = {value}: {rule} found nothing: {found:#?}"
        );
        broken.insert(rule);
    }
    let never: Vec<_> = RULES.iter().filter(|(rule, _)| !broken.contains(rule)).map(|(rule, _)| rule).collect();
    ensure!(never.is_empty(), "no row breaks {never:?}");
    Ok(())
}

pub fn against_the_schemas() -> Result<()> {
    let whole = whole()?;
    let mut sets = vec![whole.clone()];
    for (kind, name, pointer, value) in malformed() {
        let mut set = whole.clone();
        change(set.find_mut(kind, name)?, pointer, value).with_context(|| format!("{name} {pointer}"))?;
        sets.push(set);
    }
    let found = schema_faults("1.37", &sets)?;
    ensure!(found[0].is_empty(), "{:#?}", found[0]);
    for (row, found) in malformed().iter().zip(&found[1..]) {
        ensure!(!found.is_empty(), "the schemas accept {row:?}");
    }
    Ok(())
}
