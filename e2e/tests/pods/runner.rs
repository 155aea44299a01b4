use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::docker::{docker, script};
use e2e::eventually;
use e2e::manifests::Manifests;
use e2e::pods::{Namespace, What};
use serde_json::{Value, json};

/// How long a change may take to be noticed on a busy machine.
const SOON: Duration = Duration::from_secs(240);

/// Serves /data/www, and stops when told to.
const SERVE: &str = "trap 'exit 7' TERM; mkdir -p /data/www; touch /data/www/live /data/www/ready; \
                     httpd -f -p 8080 -h /data/www & wait";

/// Two init containers, one of them a sidecar, and a server.
fn set() -> Value {
    let shell = |script: &str| json!(["sh", "-c", script]);
    // On a busy machine an answer comes late, and one that does not come at all is refused at once.
    let probe = |path: &str, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": "web"}, "periodSeconds": 1, "timeoutSeconds": 20, "failureThreshold": failures,
        })
    };
    let data = json!([{"name": "data", "mountPath": "/data"}]);
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "small"},
        "spec": {
            "serviceName": "smalls", "replicas": 1, "selector": {"matchLabels": {"app": "small"}},
            "template": {"metadata": {"labels": {"app": "small"}}, "spec": {
                "automountServiceAccountToken": false, "enableServiceLinks": false, "terminationGracePeriodSeconds": 20,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 1234, "runAsGroup": 1235, "fsGroup": 1236,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "initContainers": [
                    {"name": "first", "image": "small", "imagePullPolicy": "Never", "volumeMounts": data,
                     "command": shell("echo first >> /data/order; test -e /data/second-time || { touch /data/second-time; exit 1; }")},
                    {"name": "sidecar", "image": "small", "imagePullPolicy": "Never", "volumeMounts": data, "restartPolicy": "Always",
                     "command": shell("trap 'exit 0' TERM; echo sidecar >> /data/order; touch /data/up; while :; do sleep 1; done"),
                     "startupProbe": {"exec": {"command": ["test", "-e", "/data/up"]}, "periodSeconds": 1, "failureThreshold": 60}},
                ],
                "containers": [{
                    "name": "main", "image": "small", "imagePullPolicy": "Never",
                    "command": shell("echo main >> /data/order; . /config/serve.sh"),
                    "envFrom": [{"configMapRef": {"name": "settings"}}],
                    "env": [
                        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "URL", "value": "http://$(POD).smalls:8080/$(COLOUR)"},
                        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "door"}}},
                    ],
                    "ports": [{"name": "web", "containerPort": 8080}],
                    "startupProbe": probe("/live", 60), "livenessProbe": probe("/live", 2), "readinessProbe": probe("/ready", 2),
                    "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
                    "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}, "limits": {"memory": "32Mi", "cpu": "1"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        data[0], {"name": "config", "mountPath": "/config"}, {"name": "scratch", "mountPath": "/scratch"},
                        {"name": "keys", "mountPath": "/keys", "readOnly": true},
                    ],
                }],
                "volumes": [
                    {"name": "config", "configMap": {"name": "settings"}}, {"name": "scratch", "emptyDir": {}},
                    {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 256}},
                ],
            }},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
        },
    })
}

fn manifests(set: Value) -> Manifests {
    let service = json!({
        "kind": "Service", "metadata": {"name": "smalls"},
        "spec": {"clusterIP": "None", "selector": {"app": "small"}, "ports": [{"port": 8080, "targetPort": "web"}]},
    });
    let settings =
        json!({"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"COLOUR": "blue", "serve.sh": SERVE}});
    let keys = json!({"kind": "Secret", "metadata": {"name": "keys"}, "data": {"door": "c2VzYW1l"}});
    Manifests { objects: vec![set, service, settings, keys] }
}

fn start(replicas: u64) -> Result<Namespace> {
    let image = script("e2e/images/small", &[])?;
    let mut namespace = Namespace::new(manifests(set()), &[("small", &image)])?;
    namespace.scale("small", replicas)?;
    Ok(namespace)
}

pub fn unknown_fields() -> Result<()> {
    for (pointer, field, value) in [
        ("/spec", "minReadySeconds", json!(5)),
        ("/spec/template/spec", "hostNetwork", json!(true)),
        ("/spec/template/spec", "enableServiceLinks", json!(true)),
        ("/spec/template/spec/securityContext", "sysctls", json!([])),
        ("/spec/template/spec/containers/0", "stdin", json!(true)),
        ("/spec/template/spec/containers/0", "imagePullPolicy", json!("Always")),
        ("/spec/template/spec/containers/0/securityContext", "privileged", json!(true)),
        ("/spec/template/spec/containers/0/livenessProbe", "successThreshold", json!(2)),
        ("/spec/template/spec/containers/0/livenessProbe", "exec", json!({"command": ["true"]})),
        ("/spec/template/spec/containers/0/volumeMounts/0", "subPath", json!("x")),
        ("/spec/template/spec/initContainers/0", "restartPolicy", json!("Never")),
        ("/spec/template/spec/volumes/1/emptyDir", "sizeLimit", json!("1Mi")),
        ("/spec/persistentVolumeClaimRetentionPolicy", "whenScaled", json!("Delete")),
    ] {
        let mut set = set();
        set["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
        e2e::pods::check(&set).context("the set itself")?;
        set.pointer_mut(pointer).with_context(|| format!("nothing at {pointer}"))?[field] = value;
        let error = e2e::pods::check(&set).err().with_context(|| format!("{pointer}/{field} was accepted"))?;
        let text = format!("{error:#}");
        ensure!(
            text.contains(field) || text.contains("not emulated") || text.contains("one handler"),
            "{field}: {text}"
        );
    }
    Ok(())
}

pub fn facts() -> Result<()> {
    let namespace = start(2)?;
    let shell = |script: &str| namespace.must_exec("small-0", "main", &["sh", "-c", script]);
    for (what, script, expected) in [
        ("user and groups", "echo $(id -u) $(id -g) $(id -G)", "1234 1235 1235 1236"),
        ("capabilities", "grep CapEff /proc/1/status | sed 's/.*\t//'", "0000000000000000"),
        ("no new privileges", "grep NoNewPrivs /proc/1/status | sed 's/.*\t//'", "1"),
        ("seccomp", "grep Seccomp: /proc/1/status | sed 's/.*\t//'", "2"),
        ("root", "touch /x 2>&1 | grep -c 'Read-only file system'", "1"),
        ("variables", "echo $URL $KEY", "http://small-0.smalls:8080/blue sesame"),
        ("host name", "cat /proc/sys/kernel/hostname", "small-0"),
        ("a claim's owner and mode", "stat -c '%u %g %a' /data", "0 1236 2775"),
        ("files in a claim belong to fsGroup", "stat -c '%u %g' /data/order", "1234 1236"),
        ("a secret's owner and mode", "stat -c '%u %g %a' /keys/door", "0 1236 440"),
        ("a secret", "cat /keys/door", "sesame"),
        ("a secret cannot be written", "touch /keys/x 2>&1 | grep -c 'Read-only file system'", "1"),
        ("an emptyDir", "touch /scratch/x && stat -c '%g %a' /scratch", "1236 2777"),
        (
            "its neighbour, by name",
            "wget -q -O - http://small-1.smalls:8080/../order >/dev/null; wget -q -O /dev/null http://small-1.smalls:8080/live && echo yes",
            "yes",
        ),
    ] {
        let found = shell(script).with_context(|| what.to_owned())?;
        ensure!(found == expected, "{what}: {found:?}, not {expected:?}");
    }
    let limits = docker(&[
        "inspect",
        "--format",
        "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}",
        &namespace.container("small-0", "main")?,
    ])?;
    ensure!(limits == "33554432 1000000000", "limits: {limits}");
    namespace.succeeded();
    Ok(())
}

pub fn life() -> Result<()> {
    let mut namespace = start(1)?;
    let order = namespace.must_exec("small-0", "main", &["cat", "/data/order"])?;
    // The first init container fails once.
    ensure!(order == "first\nfirst\nsidecar\nmain", "{order}");

    let before = namespace.restarts("small-0", "sidecar")?;
    namespace.crash("small-0", "sidecar")?;
    eventually("the sidecar runs again", SOON, || {
        Ok(namespace.restarts("small-0", "sidecar")? > before && namespace.is_ready("small-0")?)
    })?;
    ensure!(namespace.restarts("small-0", "main")? == 0, "the main container was restarted too");

    namespace.must_exec("small-0", "main", &["rm", "/data/www/ready"])?;
    eventually("it is not ready", SOON, || Ok(!namespace.is_ready("small-0")?))?;
    namespace.must_exec("small-0", "main", &["touch", "/data/www/ready"])?;
    namespace.wait_ready("small-0")?;
    ensure!(namespace.restarts("small-0", "main")? == 0, "it was restarted for its readiness");
    // Its end makes the file again. A busy machine may answer a probe too late, and it is restarted once more.
    namespace.must_exec("small-0", "main", &["rm", "/data/www/live"])?;
    eventually("it was restarted", SOON, || {
        Ok(namespace.restarts("small-0", "main")? >= 1 && namespace.is_ready("small-0")?)
    })?;
    ensure!(
        namespace.events_of("small-0").contains(&("main".to_owned(), What::Unhealthy("liveness"))),
        "not for its liveness"
    );

    let before = namespace.events_of("small-0").len();
    namespace.delete_pod("small-0")?;
    namespace.wait_ready("small-0")?;
    let events = namespace.events_of("small-0").split_off(before);
    let place =
        |container: &str, what: What| events.iter().position(|event| *event == (container.to_owned(), what.clone()));
    let stops = [
        place("main", What::Stopping),
        place("main", What::Terminated),
        place("main", What::Exited(7)),
        place("sidecar", What::Terminated),
        place("sidecar", What::Exited(0)),
        place("first", What::Started),
    ];
    ensure!(stops.is_sorted() && stops.iter().all(Option::is_some), "{stops:?} in {events:#?}");
    let order = namespace.must_exec("small-0", "main", &["cat", "/data/order"])?;
    ensure!(order.ends_with("main\nfirst\nsidecar\nmain"), "the claim is another: {order}");

    namespace.scale("small", 0)?;
    namespace.rebind("data-small-0", "data-small-1")?;
    namespace.scale("small", 2)?;
    let orders = ["small-0", "small-1"].map(|pod| namespace.must_exec(pod, "main", &["cat", "/data/order"]));
    let [fresh, kept] = orders;
    ensure!(fresh? == "first\nfirst\nsidecar\nmain", "a new claim is not empty");
    ensure!(kept?.starts_with(&order), "the claim was not bound anew");
    namespace.succeeded();
    Ok(())
}
