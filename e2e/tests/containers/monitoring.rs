//! compose/monitoring.yaml with a webhook and shorter times: a real Prometheus scrapes the nodes, its alerts fire for real
//! faults and clear, and it answers every question of the dashboard.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::docker::docker;
use e2e::eventually;
use e2e::manifests::items;
use e2e::shell::sqlite3;
use serde_json::{Value, json};

use super::images::{Images, compose_file};
use super::plain::NO_ADMIN;
use super::project::{ADMIN, Project};

/// How long a change may take until everybody has told of it, on a busy machine.
const TOLD: Duration = Duration::from_secs(300);

/// Receives alerts by POST, each a line of /tmp/alerts.
const RECEIVER: &str = "mkdir -p /www/cgi-bin; printf '#!/bin/sh\\nhead -c $CONTENT_LENGTH >> /tmp/alerts; echo >> /tmp/alerts; \
                        printf \"Content-Type: text/plain\\\\r\\\\n\\\\r\\\\n\"\\n' > /www/cgi-bin/alerts; \
                        chmod 755 /www/cgi-bin/alerts; exec httpd -f -p 8080 -h /www";

/// A file of a service with times of seconds.
struct Quicker {
    service: &'static str,
    /// In compose/.
    file: &'static str,
    /// Where the service has it.
    place: &'static str,
    /// What stands there, and what instead.
    changes: &'static [(&'static str, &'static str)],
}

const QUICKER: [Quicker; 3] = [
    Quicker {
        service: "prometheus",
        file: "prometheus/prometheus.yml",
        place: "/etc/prometheus/prometheus.yml",
        changes: &[("_interval: 15s", "_interval: 1s")],
    },
    Quicker {
        service: "prometheus",
        file: "prometheus/rules.yml",
        place: "/etc/prometheus/rules.yml",
        changes: &[("for: 1m\n", "for: 1s\n"), ("vski_replica_lag_seconds > 60", "vski_replica_lag_seconds > 8")],
    },
    Quicker {
        service: "alertmanager",
        file: "alertmanager/alertmanager.yml",
        place: "/etc/alertmanager/alertmanager.yml",
        changes: &[
            ("group_wait: 10s", "group_wait: 1s"),
            ("group_interval: 1m", "group_interval: 1s"),
            (
                "  - name: operator\n",
                "  - name: operator\n    webhook_configs: [{url: \"http://alerts:8080/cgi-bin/alerts\", send_resolved: true}]\n",
            ),
        ],
    },
];

/// Questions of the dashboard to which all is well has no answer: nothing failed, nothing was lost, nothing is being copied.
const NO_ANSWER: [&str; 3] = ["status=~\"5..\"", "vski_sync_lost_reports_total", "state=\"bootstrap\""];

/// What nodes say of these faults.
const EXPECTED: [&str; 4] =
    [NO_ADMIN, "sync failed", "the copy has diverged, it will converge", "the copy has converged with the master"];

struct Monitored {
    project: Project,
}

impl Monitored {
    fn up(images: &Images) -> Result<Self> {
        let mut project =
            Project::new("monitoring.yaml", &[("prometheus", 9090), ("alertmanager", 9093)], images, &[])?;
        let receiver = json!({"image": images.small, "command": ["sh", "-c", RECEIVER.replace('$', "$$")]});
        let mut services = json!({"alerts": receiver});
        for Quicker { service, file, place, changes } in QUICKER {
            let mut text = std::fs::read_to_string(compose_file(file))?;
            for (from, to) in changes {
                ensure!(text.contains(from), "{file} has no {from:?}");
                text = text.replace(from, to);
            }
            let mounted = project.place(&file.replace('/', "-"), &text)?;
            let volumes = &mut services[service]["volumes"];
            let mount = json!(format!("{}:{place}:ro", mounted.display()));
            match volumes.as_array_mut() {
                Some(volumes) => volumes.push(mount),
                None => *volumes = json!([mount]),
            }
        }
        project.extend("quicker.yaml", &json!({"services": services}).to_string())?;
        project.start()?;
        Ok(Self { project })
    }

    /// The values of a question to Prometheus, which must understand it.
    fn ask(&self, question: &str) -> Result<Vec<Value>> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        let question: String = question.bytes().map(encode).collect();
        let client = self.project.client("prometheus", 9090)?;
        let reply = client.get(&format!("/api/v1/query?query={question}"))?.ok()?.json()?;
        ensure!(reply["status"] == "success", "{reply}");
        Ok(items(&reply["data"]["result"]).to_vec())
    }

    /// The names of the alerts that fire, with their instance.
    fn firing(&self) -> Result<Vec<String>> {
        let alerts = self.ask("ALERTS{alertstate=\"firing\"}")?;
        let label = |alert: &Value, label: &str| alert["metric"][label].as_str().unwrap_or_default().to_owned();
        Ok(alerts.iter().map(|alert| format!("{} {}", label(alert, "alertname"), label(alert, "instance"))).collect())
    }

    fn wait_quiet(&self) -> Result<()> {
        eventually("no alert fires", TOLD, || {
            let firing = self.firing()?;
            ensure!(firing.is_empty(), "{firing:?}");
            Ok(self.ask("up{job=\"vski\"} == 1")?.len() == 5)
        })
    }

    fn wait_firing(&self, alert: &str) -> Result<()> {
        eventually(&format!("{alert} fires"), TOLD, || {
            let firing = self.firing()?;
            ensure!(firing.iter().any(|found| found.trim() == alert), "{firing:?}");
            Ok(true)
        })
    }

    /// Waits until no alert fires for this replica or its agent, while others do. With times of seconds a busy machine
    /// makes one fire for a moment: it clears, unless the fault is what it fires for.
    fn wait_spared(&self, replica: &str) -> Result<()> {
        eventually(&format!("no alert fires for {replica}"), TOLD, || {
            let firing = self.firing()?;
            ensure!(!firing.iter().any(|alert| alert.contains(replica)), "the other replica too: {firing:?}");
            Ok(!firing.is_empty())
        })
    }

    /// Waits until the webhook was told that an alert has this status.
    fn wait_told(&self, alert: &str, status: &str) -> Result<()> {
        eventually(&format!("the webhook is told: {alert} {status}"), TOLD, || {
            let said = self.project.exec("alerts", &["cat", "/tmp/alerts"])?;
            let told = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut alerts = told.flat_map(|message| items(&message["alerts"]).to_vec());
            Ok(alerts.any(|found| found["labels"]["alertname"] == alert && found["status"] == status))
        })
    }
}

pub fn scenario(images: &Images) -> Result<()> {
    let monitored = Monitored::up(images)?;
    let project = &monitored.project;
    project.make_admin()?;
    let admin = project.client("master", 3001)?.login(ADMIN.0, ADMIN.1)?;
    admin.create_collection("posts", &[("n", "number")])?;
    monitored.wait_quiet().context("all is well")?;
    eventually("the lag of both replicas is known", TOLD, || {
        Ok(monitored.ask("vski_replica_lag_seconds{db=\"default\"}")?.len() == 2)
    })?;
    for (what, step) in [
        ("the dashboard", dashboard as fn(&Monitored, &Client) -> Result<()>),
        ("an agent stands still", paused),
        ("there is no master", no_master),
        ("a copy differs", differing),
    ] {
        let began = std::time::Instant::now();
        step(&monitored, &admin).context(what)?;
        println!("    {what}: {:.1} s", began.elapsed().as_secs_f64());
    }
    project.equal(&["posts"])?;
    project.assert_quiet(&EXPECTED)?;
    monitored.project.succeeded();
    Ok(())
}

/// Prometheus understands every question of the dashboard, and answers those that have an answer while all is well.
fn dashboard(monitored: &Monitored, admin: &Client) -> Result<()> {
    for agent in ["r001-agent", "r002-agent"] {
        monitored.project.exec(agent, &["vski-sync-agent", "verify"])?;
    }
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(compose_file("grafana/dashboards/vski.json"))?)?;
    let targets = items(&dashboard["panels"]).iter().flat_map(|panel| items(&panel["targets"]));
    let questions = targets.map(|target| target["expr"].as_str().context("a target without a question"));
    for question in questions.collect::<Result<Vec<_>>>()? {
        let answers = !NO_ANSWER.iter().any(|part| question.contains(part));
        eventually(&format!("an answer to {question}"), TOLD, || {
            admin.create_record("posts", &json!({"n": 1}))?;
            Ok(!monitored.ask(question)?.is_empty() || !answers)
        })?;
    }
    Ok(())
}

fn paused(monitored: &Monitored, _: &Client) -> Result<()> {
    monitored.project.compose(&["pause", "r001-agent"])?;
    monitored.wait_firing("VskiReplicaLag r001:3001")?;
    monitored.wait_firing("VskiDown r001-agent:9301")?;
    monitored.wait_spared("r002")?;
    monitored.wait_told("VskiReplicaLag", "firing")?;
    monitored.project.compose(&["unpause", "r001-agent"])?;
    monitored.wait_quiet().context("the agent goes on")?;
    monitored.wait_told("VskiReplicaLag", "resolved")
}

fn no_master(monitored: &Monitored, _: &Client) -> Result<()> {
    monitored.project.compose(&["stop", "master"])?;
    monitored.wait_firing("VskiNoMaster")?;
    monitored.wait_told("VskiNoMaster", "firing")?;
    monitored.project.compose(&["start", "master"])?;
    monitored.wait_quiet().context("the master is back")?;
    monitored.wait_told("VskiNoMaster", "resolved")
}

/// Somebody writes into a copy: `verify` tells, the alert fires, and the repair of the runbook ends it.
fn differing(monitored: &Monitored, _: &Client) -> Result<()> {
    let project = &monitored.project;
    project.equal(&["posts"])?;
    let volume = format!("{}_r001", project.name());
    let folder = docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &volume])?;
    let file = std::path::Path::new(&folder).join("default.db");
    sqlite3(&file, "UPDATE posts SET n = -1 WHERE id = (SELECT id FROM posts LIMIT 1)")?;
    let verified = project.exec("r001-agent", &["vski-sync-agent", "verify"]);
    let told = format!("{:#}", verified.err().context("no difference was found")?);
    ensure!(told.contains("exit status: 3"), "{told}");
    monitored.wait_firing("VskiCopyDiffers r001-agent:9301")?;
    monitored.wait_spared("r002")?;
    monitored.wait_told("VskiCopyDiffers", "firing")?;
    project.exec("r001-agent", &["vski-sync-agent", "verify", "--repair"])?;
    eventually("the alert clears", TOLD, || {
        Ok(!monitored.firing()?.iter().any(|alert| alert.starts_with("VskiCopyDiffers")))
    })?;
    monitored.wait_told("VskiCopyDiffers", "resolved")
}
