use anyhow::{Context, Result, ensure};
use e2e::load;
use e2e::manifests::repository;
use serde_json::json;

use super::replication::{MASTER, POSTS, admin, login, namespace, verify, wait_level};

/// The replica that takes over.
const NEXT: &str = "vski-replica-1";

/// Commands that this scenario types, as k8s/README.md prints them.
const TYPED: [&str; 6] = [
    "kubectl scale statefulset vski-master --replicas=0",
    "kubectl exec vski-replica-1 -- vski-server promote --dry-run",
    "kubectl exec vski-replica-1 -- vski-server promote\n",
    "kubectl scale statefulset vski-replica --replicas=1",
    "kubectl scale statefulset vski-master --replicas=1",
    "kubectl apply -f k8s/examples/former-master.yaml",
];

pub fn scenario() -> Result<()> {
    let readme = std::fs::read_to_string(repository().join("k8s/README.md"))?;
    for command in TYPED {
        ensure!(readme.contains(command), "k8s/README.md does not say: {command}");
    }
    let mut namespace = namespace("overlays/prod", &["examples/former-master.yaml"])?;
    namespace.scale("vski-master", 1)?;
    let first = admin(&namespace)?;
    first.create_collection(POSTS, &load::FIELDS)?;
    (0..20).try_for_each(|n| first.create_record(POSTS, &json!({"n": n})).map(drop))?;
    namespace.scale("vski-replica", 2)?;
    for pod in ["vski-replica-0", NEXT] {
        wait_level(&namespace, &first, pod)?;
    }

    let plan = namespace.must_exec(NEXT, "server", &["vski-server", "promote", "--dry-run"])?;
    ensure!(plan.contains("begin generation 2"), "{plan}");
    namespace.scale("vski-master", 0)?;
    namespace.must_exec(NEXT, "server", &["vski-server", "promote"])?;
    ensure!(namespace.restarts(NEXT, "server")? == 0, "the server did not go on serving");
    namespace.scale("vski-replica", 1)?;
    // `kubectl patch pv` and new claims.
    namespace.rebind("data-vski-master-0", "vski-former-master")?;
    namespace.rebind("data-vski-replica-1", "data-vski-master-0")?;
    namespace.scale("vski-master", 1)?;
    let second = login(&namespace).context("logins outlive a promotion")?;
    ensure!(second.count(POSTS)? == 20, "the new master lacks records");
    (20..30).try_for_each(|n| second.create_record(POSTS, &json!({"n": n})).map(drop))?;
    wait_level(&namespace, &second, "vski-replica-0").context("the other replica follows the new master")?;
    namespace.wait_ready("vski-replica-0")?;

    namespace.run_pod("vski-former-master")?;
    second.create_record(POSTS, &json!({"n": 30}))?;
    e2e::eventually("the former master has all records", e2e::cluster::READY, || {
        let token = second.token().context("a login")?;
        Ok(namespace.client("vski-former-master", 3001)?.with_token(&token).count(POSTS)? == 31)
    })?;
    namespace.must_exec("vski-former-master", "server", &["vski-sync-agent", "verify"])?;
    namespace.scale("vski-replica", 2).context("a new replica under the promoted one's name")?;
    verify(&namespace, NEXT)?;
    for pod in ["vski-replica-0", NEXT] {
        wait_level(&namespace, &second, pod).with_context(|| format!("{pod} at the end"))?;
    }
    namespace.must_exec("vski-former-master", "server", &["vski-sync-agent", "verify"])?;
    let health = namespace.client(MASTER, 3001)?.get("/health")?;
    ensure!(health.header("X-Replica-Mode") == Some("master"), "{health:?}");
    namespace.assert_quiet(&[
        "there is no admin yet",
        "sync failed",
        "this directory was promoted to master",
        "let go",
    ])?;
    namespace.succeeded();
    Ok(())
}
