//! An https MASTER_URL, as behind a proxy that terminates TLS: the certificate must lead to a CA that the replica
//! trusts and carry the name by which it calls.

/// A proxy that terminates TLS, with certificates of a CA of its own.
mod tls_proxy;

use anyhow::{Result, ensure};
use e2e::client::Client;
use e2e::cluster::READY;
use e2e::{Cluster, Node, content, eventually};
use serde_json::json;
use tls_proxy::{Authority, TlsProxy};

#[test]
fn a_replica_follows_over_https_with_the_masters_own_ca_and_refuses_what_it_cannot_check() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, admin) = master(&cluster)?;
    let authority = Authority::new("VSKI test CA")?;
    let ca = cluster.path().join("ca.pem");
    std::fs::write(&ca, authority.pem())?;
    let proxy = TlsProxy::start(&authority, "localhost", &master.server.url())?;
    let mut replica = cluster
        .embedded("replica", &master)?
        .env("MASTER_URL", proxy.url("localhost"))
        .env("MASTER_CA_FILE", ca.as_os_str());
    replica.start()?;
    replica.wait_ready()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    admin.create_record("posts", &json!({"title": "through TLS"}))?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)?;
    e2e::cluster::assert_quiet(&[&replica], &[])?;

    // The same proxy, whose CA the replica is no longer told of.
    replica.stop()?;
    replica.programs().for_each(|program| program.unset("MASTER_CA_FILE"));
    admin.create_record("posts", &json!({"title": "not trusted"}))?;
    replica.start()?;
    assert_refused(&replica, "UnknownIssuer")?;
    replica.wait_state("default", "retrying")?;
    ensure!(replica.client()?.count("posts")? == 1, "it serves what it has, and nothing beyond");

    // Trusted by the system instead, it goes on.
    replica.stop()?;
    let mut replica = replica.env("SSL_CERT_FILE", ca.as_os_str());
    replica.start()?;
    content::wait_all_equal(&[master.dir(), replica.dir()], READY)
}

#[test]
fn a_certificate_for_another_host_or_of_another_ca_is_refused() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, _admin) = master(&cluster)?;
    let (authority, stranger) = (Authority::new("VSKI test CA")?, Authority::new("another CA")?);
    let ca = cluster.path().join("ca.pem");
    std::fs::write(&ca, authority.pem())?;
    for (name, signed_by, host, reason) in [
        ("wrong-host", &authority, "master.example.org", "not valid for name"),
        ("wrong-ca", &stranger, "localhost", "UnknownIssuer"),
    ] {
        let proxy = TlsProxy::start(signed_by, host, &master.server.url())?;
        let mut replica = cluster
            .embedded(name, &master)?
            .env("MASTER_URL", proxy.url("localhost"))
            .env("MASTER_CA_FILE", ca.as_os_str());
        replica.start()?;
        assert_refused(&replica, reason)?;
        ensure!(!replica.file("default").exists(), "{name}: something was fetched");
        ensure!(replica.client()?.get("/api/collections/posts/records")?.status == 503);
    }
    Ok(())
}

fn master(cluster: &Cluster) -> Result<(Node, Client)> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text")])?;
    Ok((master, admin))
}

/// Waits until a replica says in its log, in so many words, that it does not accept the master's certificate.
fn assert_refused(replica: &Node, reason: &str) -> Result<()> {
    eventually(&format!("{} names its certificate problem", replica.name()), READY, || {
        let told = replica.alarms(&[]).into_iter().find(|line| line.contains("sync failed"));
        let Some(line) = told else { return Ok(false) };
        ensure!(line.contains("MASTER_CA_FILE") && line.contains(reason), "{line}");
        let other = replica.alarms(&["sync failed"]);
        ensure!(other.is_empty(), "said twice: {other:?}");
        Ok(true)
    })
}
