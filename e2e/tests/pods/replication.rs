use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::cluster::ADMIN;
use e2e::docker::{docker, script};
use e2e::eventually;
use e2e::load::{self, Load};
use e2e::manifests::{Manifests, render};
use e2e::pods::{Namespace, What, secret};
use serde_json::{Value, json};

/// How long a replica may take to have what the master has, on a busy machine.
const CAUGHT_UP: Duration = Duration::from_secs(240);

/// What an operator makes with `kubectl create secret`.
pub const SECRET: &str = "e0f3b1c5a7d94862b0c1d2e3f4a5b697";

pub const MASTER: &str = "vski-master-0";

pub const POSTS: &str = "posts";

/// What an agent says that begins to fetch a whole copy.
const COPIES: &str = "bootstrap started";

/// An overlay's pods, with a good secret, from programs that were built here. `vski:next` is the same, to update to.
pub fn namespace(overlay: &str, more: &[&str]) -> Result<Namespace> {
    let image = script("e2e/images/test-image", &[])?;
    let next = image.replace(':', "-next:");
    docker(&["tag", &image, &next])?;
    let mut manifests = render(overlay)?;
    for path in more {
        manifests.objects.extend(render(path)?.objects);
    }
    manifests.objects.retain(|object| object["kind"] != "Secret");
    manifests.objects.push(secret("vski-jwt", "jwt-secret", SECRET));
    Namespace::new(manifests, &[("vski:latest", &image), ("vski:next", &next)])
}

/// Makes an admin as k8s/README.md says, and logs in.
pub fn admin(namespace: &Namespace) -> Result<Client> {
    namespace.must_exec(MASTER, "server", &["vski-server", "admin", "upsert", ADMIN.0, ADMIN.1])?;
    login(namespace)
}

/// A master's port is another one after each start.
pub fn login(namespace: &Namespace) -> Result<Client> {
    namespace.client(MASTER, 3001)?.login(ADMIN.0, ADMIN.1)
}

/// Fails unless a replica's rows are exactly the master's, by the agent's own comparison.
pub fn verify(namespace: &Namespace, pod: &str) -> Result<()> {
    let said = namespace.must_exec(pod, "agent", &["vski-sync-agent", "verify"]);
    said.map(drop).with_context(|| format!("{pod} is not equal"))
}

/// Waits until a replica has as many records as the master.
pub fn wait_level(namespace: &Namespace, admin: &Client, pod: &str) -> Result<()> {
    let token = admin.token().context("a login")?;
    eventually(&format!("{pod} has all records"), CAUGHT_UP, || {
        let of = |pod| anyhow::Ok(namespace.client(pod, 3001)?.with_token(&token));
        Ok(of(pod)?.count(POSTS)? == of(MASTER)?.count(POSTS)?)
    })?;
    verify(namespace, pod)
}

/// Lines of a container that contain `text`.
fn told(namespace: &Namespace, place: &str, text: &str) -> usize {
    let lines = namespace.lines().into_iter().filter(|(from, _)| from == place);
    lines.flat_map(|(_, lines)| lines).filter(|line| line.contains(text)).count()
}

/// A field of the kernel's account of a container's first process.
fn kernel_fact(namespace: &Namespace, pod: &str, container: &str, field: &str) -> Result<String> {
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &namespace.container(pod, container)?])?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the kernel's account")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("no {field}"))?.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn check_facts(namespace: &Namespace) -> Result<()> {
    for (pod, container) in [(MASTER, "server"), ("vski-replica-0", "server"), ("vski-replica-0", "agent")] {
        for (field, expected) in [
            ("Uid", "65532 65532 65532 65532"),
            ("Gid", "65532 65532 65532 65532"),
            ("Groups", "65532"),
            ("CapEff", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            let found = kernel_fact(namespace, pod, container, field)?;
            ensure!(found == expected, "{pod}/{container}: {field} is {found:?}");
        }
        let name = namespace.container(pod, container)?;
        let fixed = docker(&["inspect", "--format", "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Memory}}", &name])?;
        ensure!(fixed == "true 536870912", "{pod}/{container}: {fixed}");
    }
    Ok(())
}

/// Another image in all containers of a StatefulSet.
fn with_image(manifests: &Manifests, set: &str, image: &str) -> Result<Manifests> {
    let mut manifests = manifests.clone();
    let spec = &mut manifests.find_mut("StatefulSet", set)?["spec"]["template"]["spec"];
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        containers.for_each(|container| container["image"] = json!(image));
    }
    Ok(manifests)
}

/// Where in the events of a pod something stands first, from a place on.
fn position(events: &[(String, What)], container: &str, what: impl Fn(&What) -> bool) -> Result<usize> {
    let found = events.iter().position(|(of, event)| of == container && what(event));
    found.with_context(|| format!("{container}: not in {events:#?}"))
}

fn delete_and_compare(namespace: &mut Namespace, admin: &Client) -> Result<()> {
    let pod = "vski-replica-1";
    let (before, copied) = (namespace.events_of(pod).len(), told(namespace, "vski-replica-1/agent", COPIES));
    ensure!(copied > 0, "it has its rows from nowhere");
    namespace.delete_pod(pod)?;
    namespace.wait_ready(pod)?;
    let events = namespace.events_of(pod).split_off(before);
    let server_ended = position(&events, "server", |what| matches!(what, What::Exited(0)))?;
    let agent_told = position(&events, "agent", |what| *what == What::Stopping)?;
    let agent_ended = position(&events, "agent", |what| matches!(what, What::Exited(0)))?;
    ensure!(server_ended < agent_told && agent_told < agent_ended, "{events:#?}");
    wait_level(namespace, admin, pod)?;
    ensure!(told(namespace, "vski-replica-1/agent", COPIES) == copied, "the volume was lost");
    Ok(())
}

/// Kills the first replica's agent, and waits until it runs again. A busy machine may answer a probe too late, and it is
/// started once more.
fn crash_agent(namespace: &Namespace) -> Result<()> {
    let (pod, agent) = ("vski-replica-0", "agent");
    let before = namespace.restarts(pod, agent)?;
    namespace.crash(pod, agent)?;
    eventually("the agent runs again", CAUGHT_UP, || {
        Ok(namespace.restarts(pod, agent)? > before && namespace.is_ready(pod)?)
    })
}

pub fn scenario() -> Result<()> {
    let mut namespace = namespace("overlays/dev", &[])?;
    namespace.scale("vski-master", 1)?;
    let admin = admin(&namespace)?;
    admin.create_collection(POSTS, &load::FIELDS)?;
    namespace.scale("vski-replica", 2)?;
    let events = namespace.events_of("vski-replica-0");
    let agent = position(&events, "agent", |what| *what == What::Started)?;
    let server = position(&events, "server", |what| *what == What::Started)?;
    ensure!(agent < server, "the server did not wait for the agent: {events:#?}");
    check_facts(&namespace)?;

    let load = Load::start(admin.clone(), POSTS, load::seed()?);
    load.wait_for(50)?;
    crash_agent(&namespace)?;
    ensure!(namespace.restarts("vski-replica-0", "server")? == 0, "the server was restarted too");
    delete_and_compare(&mut namespace, &admin).context("a pod is deleted")?;
    namespace.scale("vski-replica", 3)?;
    namespace.apply(with_image(namespace.manifests(), "vski-replica", "vski:next")?);
    namespace.roll_out("vski-replica").context("replicas are updated")?;
    let image =
        docker(&["inspect", "--format", "{{.Config.Image}}", &namespace.container("vski-replica-0", "agent")?])?;
    ensure!(image.contains("-next:"), "{image}");
    load.wait_for(50)?;
    let ledger = load.stop()?;

    namespace.apply(with_image(namespace.manifests(), "vski-master", "vski:next")?);
    namespace.roll_out("vski-master").context("the master is updated")?;
    let admin = login(&namespace)?;
    admin.create_collection("pages", &load::FIELDS).context("a schema change after the update")?;
    for pod in ["vski-replica-0", "vski-replica-1", "vski-replica-2"] {
        namespace.wait_ready(pod)?;
        wait_level(&namespace, &admin, pod)?;
        let replica = namespace.client(pod, 3001)?.with_token(&admin.token().context("a login")?);
        ledger.check(&replica).with_context(|| format!("what {pod} holds"))?;
        let reply = replica.get("/health")?;
        ensure!(reply.header("X-Replica-Id") == Some(pod), "{reply:?}");
    }
    // Agents lose the master while it is updated.
    namespace.assert_quiet(&["there is no admin yet", "sync failed"])?;
    namespace.succeeded();
    Ok(())
}

pub fn plain_sidecar() -> Result<()> {
    let mut namespace = namespace("overlays/sidecar", &[])?;
    namespace.scale("vski-master", 1)?;
    let admin = admin(&namespace)?;
    admin.create_collection(POSTS, &load::FIELDS)?;
    admin.create_record(POSTS, &json!({"n": 1}))?;
    namespace.scale("vski-replica", 1)?;
    wait_level(&namespace, &admin, "vski-replica-0")?;
    crash_agent(&namespace)?;
    admin.create_record(POSTS, &json!({"n": 2}))?;
    wait_level(&namespace, &admin, "vski-replica-0")?;
    namespace.assert_quiet(&["there is no admin yet"])?;
    namespace.succeeded();
    Ok(())
}
