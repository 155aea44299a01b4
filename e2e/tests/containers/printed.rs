//! What the specification's examples do where a proxy takes them as they are printed: each statement of the table in
//! compose/README.md that is not a refusal (`files::proxies` has those).

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::docker::{self, docker};
use e2e::eventually;
use reqwest::Method;
use serde_json::Value;

use super::images::{Images, SCOPE};
use super::project::READY;

/// Routing by X-Replica-Id as printed. The names of the network stand for those of the Internet, and `mode http` has been
/// put in.
const HAPROXY: &str = "defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
frontend http_front
    bind *:80
    acl replica_r001 hdr(X-Replica-Id) r001
    acl replica_r002 hdr(X-Replica-Id) r002
    use_backend replica_r001 if replica_r001
    use_backend replica_r002 if replica_r002
    default_backend master
backend replica_r001
    server r001 r001:3001
backend replica_r002
    server r002 r002:3001
backend master
    server master master:3001
";

/// The same for Nginx.
const NGINX: &str = "user nginx nginx;
pid /tmp/nginx.pid;
events {}
http {
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    proxy_connect_timeout 1s;
    map $http_x_replica_id $replica_backend {
        default  \"master\";
        \"r001\"   \"replica_r001\";
        \"r002\"   \"replica_r002\";
    }
    upstream master { server master:3001; }
    upstream replica_r001 { server r001:3001; }
    upstream replica_r002 { server r002:3001; }
    server {
        listen 80;
        location / { proxy_pass http://$replica_backend; }
    }
}
";

/// Removes what it made.
struct Network<'a> {
    name: String,
    images: &'a Images,
}

impl Network<'_> {
    fn start(&self, arguments: &[&str]) -> Result<String> {
        let label = SCOPE.tag(&self.name);
        let run = ["run", "--detach", "--label", &label, "--network", &self.name];
        Ok(docker(&[&run, arguments].concat())?.trim().to_owned())
    }

    /// A server in the place of a node, which answers everything with 200 and its name.
    fn node(&self, name: &str) -> Result<String> {
        self.start(&["--network-alias", name, &self.images.backend, name])
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        if let Err(error) = SCOPE.remove(&self.name) {
            println!("{error:#}");
        }
    }
}

pub fn scenario(images: &Images) -> Result<()> {
    for (image, text, options) in [
        ("haproxy:3.2", HAPROXY, &["haproxy", "-f", "/vski.cfg"][..]),
        ("nginx:1.30", NGINX, &["nginx", "-c", "/vski.cfg", "-g", "daemon off;"]),
    ] {
        behind(image, text, options, images).with_context(|| format!("behind {image}"))?;
    }
    Ok(())
}

fn behind(image: &str, text: &str, command: &[&str], images: &Images) -> Result<()> {
    let network = Network { name: SCOPE.name("printed"), images };
    let subnet = docker::free_subnet()?;
    docker(&["network", "create", "--label", &SCOPE.tag(&network.name), "--subnet", &subnet, &network.name])?;
    network.node("master")?;
    network.node("r002")?;
    let r001 = network.node("r001")?;
    let file = super::files::readable(text)?;
    let mount = format!("{}:/vski.cfg:ro", file.path().join("vski.cfg").display());
    // Port 80 as it is printed is for root.
    let options = ["--user", "0:0", "--volume", &mount, "--publish", "127.0.0.1::80", image];
    let proxy = network.start(&[&options, command].concat())?;
    let address = docker(&["port", &proxy, "80"])?;
    let client = Client::new(&format!("http://{}", address.lines().next().context("a port")?))?;
    let to_r001 = client.with_header("x-replica-id", "r001")?;
    eventually("the printed form works", READY, || {
        let (id, rest) = (to_r001.get("/")?, client.get("/")?);
        Ok(id.body.starts_with("r001") && rest.body.starts_with("master"))
    })?;

    // The replica first: it gets the writes that name it, and answers them with 403.
    let written = to_r001.send(Method::POST, "/", Some(&Value::Null))?;
    ensure!(written.body.starts_with("r001"), "a write with r001's id: {written:?}");

    // One backend for each id: nobody stands in for a replica that is down.
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let old = docker(&["inspect", "--format", format, &r001])?;
    docker(&["rm", "--force", &r001])?;
    // A proxy may close a connection that it has kept, instead of the first answer.
    eventually("a read of a replica that is down fails", READY, || {
        let read = to_r001.get("/")?;
        ensure!(matches!(read.status, 502..=504), "it was answered {read:?}");
        Ok(true)
    })?;

    // Names are looked up at the start only: who gets the address is asked, and the replica in its new place is not.
    eventually("its address is free", READY, || {
        network.start(&["--ip", &old, &images.backend, "stranger"]).map(|_| true)
    })?;
    network.node("r001")?;
    eventually("the stranger is asked", READY, || Ok(to_r001.get("/")?.body.starts_with("stranger")))
}
