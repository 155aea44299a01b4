//! A new secret for all pods, by the procedure of k8s/README.md: the content of the Secret changes, and pods are made anew.

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::load;
use e2e::manifests::{Manifests, repository};
use e2e::pods::Namespace;
use serde_json::json;

use super::replication::{MASTER, POSTS, SECRET, admin, login, namespace, wait_level};

/// What takes the old secret's place.
const NEXT: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";

/// The replica.
const REPLICA: &str = "vski-replica-0";

/// Commands that this scenario does, as k8s/README.md prints them.
const TYPED: [&str; 4] = [
    "kubectl patch secret vski-jwt -p \"{\\\"data\\\": {\\\"jwt-secret\\\": \\\"$NEW\\\", \\\"jwt-secret-previous\\\": \\\"$OLD\\\"}}\"",
    "kubectl rollout restart statefulset $set",
    "for set in vski-master vski-replica; do",
    "[{\"op\":\"remove\",\"path\":\"/data/jwt-secret-previous\"}]",
];

pub fn scenario() -> Result<()> {
    let readme = std::fs::read_to_string(repository().join("k8s/README.md"))?;
    for command in TYPED {
        ensure!(readme.contains(command), "k8s/README.md does not say: {command}");
    }
    // The first secret is there alone: no pod finds a previous one.
    let mut namespace = namespace("overlays/dev", &[])?;
    namespace.scale("vski-master", 1)?;
    let old = admin(&namespace)?;
    old.create_collection(POSTS, &load::FIELDS)?;
    write(&namespace, &old)?;
    namespace.scale("vski-replica", 1)?;
    wait_level(&namespace, &old, REPLICA)?;

    namespace.apply(with_secrets(namespace.manifests(), &[("jwt-secret", NEXT), ("jwt-secret-previous", SECRET)])?);
    namespace.roll_out("vski-master").context("the master learns the new secret")?;
    write(&namespace, &old).context("logins of before stay valid")?;
    wait_level(&namespace, &old, REPLICA).context("a replica that still has the old secret")?;
    namespace.roll_out("vski-replica").context("the replica learns the new secret")?;
    write(&namespace, &old)?;
    wait_level(&namespace, &old, REPLICA).context("a replica with the new secret")?;

    namespace.apply(with_secrets(namespace.manifests(), &[("jwt-secret", NEXT)])?);
    for set in ["vski-master", "vski-replica"] {
        namespace.roll_out(set).with_context(|| format!("{set} forgets the old secret"))?;
    }
    let new = login(&namespace)?;
    for pod in [MASTER, REPLICA] {
        ensure!(status(&namespace, pod, &old)? == 401, "{pod} still takes the old secret's logins");
        ensure!(status(&namespace, pod, &new)? == 200, "{pod} refuses the new secret's logins");
    }
    write(&namespace, &new)?;
    wait_level(&namespace, &new, REPLICA).context("at the end")?;
    namespace.assert_quiet(&["there is no admin yet", "sync failed"])?;
    namespace.succeeded();
    Ok(())
}

/// `kubectl patch secret`.
fn with_secrets(manifests: &Manifests, content: &[(&str, &str)]) -> Result<Manifests> {
    let mut manifests = manifests.clone();
    manifests.find_mut("Secret", "vski-jwt")?["stringData"] =
        content.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    Ok(manifests)
}

/// One more record, by the token of a user; the master's port is another one after each start.
fn write(namespace: &Namespace, user: &Client) -> Result<()> {
    of(namespace, MASTER, user)?.create_record(POSTS, &json!({"n": 1})).map(drop)
}

/// What a pod answers to a user on a route for admins only.
fn status(namespace: &Namespace, pod: &str, user: &Client) -> Result<u16> {
    Ok(of(namespace, pod, user)?.get("/api/collections")?.status)
}

fn of(namespace: &Namespace, pod: &str, user: &Client) -> Result<Client> {
    Ok(namespace.client(pod, 3001)?.with_token(&user.token().context("a login")?))
}
