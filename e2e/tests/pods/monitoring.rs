use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use e2e::cluster::ADMIN;
use e2e::docker::{compose, docker, must, script, stand_ins, try_docker};
use e2e::eventually;
use e2e::manifests::{items, parse, render, repository};
use serde_json::{Value, json};

/// How long a change may take until everybody has told of it, on a busy machine.
const TOLD: Duration = Duration::from_secs(180);

/// The public images that compose/monitoring.yaml names and that are run.
const IMAGES: [&str; 2] = ["prom/prometheus:v3", "prom/alertmanager:v0.28.1"];

fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(repository().join(file)).with_context(|| format!("read {file}"))
}

fn rules() -> Result<Vec<Value>> {
    let rules = parse(&read("compose/prometheus/rules.yml")?)?;
    Ok(items(&rules.objects[0]["groups"][0]["rules"]).to_vec())
}

/// Words that begin with `vski_`, without what histograms append.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let metrics = words.filter(|word| word.starts_with("vski_"));
    let plain = |word: &str| {
        let suffixes = ["_bucket", "_sum", "_count"];
        suffixes.iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word).to_owned()
    };
    metrics.map(plain).collect()
}

pub fn names() -> Result<()> {
    let operations = read("docs/OPERATIONS.md")?;
    let rows = operations.lines().filter_map(|line| line.strip_prefix("| `vski_")?.split_once('`'));
    let documented: BTreeSet<String> = rows.map(|(name, _)| format!("vski_{name}")).collect();
    let dashboard: Value = serde_json::from_str(&read("compose/grafana/dashboards/vski.json")?)?;
    let targets = items(&dashboard["panels"]).iter().flat_map(|panel| items(&panel["targets"]));
    let mut asked: Vec<String> = targets.filter_map(|target| target["expr"].as_str().map(str::to_owned)).collect();
    ensure!(asked.len() > 15, "a dashboard of {} questions", asked.len());
    asked.extend(rules()?.iter().filter_map(|rule| rule["expr"].as_str().map(str::to_owned)));
    for question in asked {
        let unknown: Vec<String> = metrics_in(&question).difference(&documented).cloned().collect();
        ensure!(unknown.is_empty(), "{unknown:?} in: {question}");
    }
    Ok(())
}

pub fn repairs() -> Result<()> {
    let operations = read("docs/OPERATIONS.md")?;
    let rules = rules()?;
    for rule in &rules {
        let alert = rule["alert"].as_str().context("an alert")?;
        ensure!(operations.contains(&format!("| `{alert}` |")), "docs/OPERATIONS.md has no repair for {alert}");
    }
    let operators = render("components/monitoring")?;
    let same = operators.find("PrometheusRule", "vski").context("the operator's rules")?;
    ensure!(items(&same["spec"]["groups"][0]["rules"]) == rules, "k8s/components/monitoring has other rules");
    Ok(())
}

/// Runs a checker of one of the images over files of a folder.
fn check(image: &str, folder: &Path, program: &[&str]) -> Result<Output> {
    let mount = format!("{}:/etc/checked:ro", folder.canonicalize()?.display());
    let run = ["run", "--rm", "--network", "none", "--volume", &mount, "--workdir", "/etc/checked", "--entrypoint"];
    try_docker(&[&run, &program[..1], &[image], &program[1..]].concat())
}

pub fn checks() -> Result<()> {
    stand_ins(&IMAGES)?;
    let compose = repository().join("compose");
    let [prometheus, alertmanager] = IMAGES;
    let folder = compose.join("prometheus");
    must(&check(prometheus, &folder, &["promtool", "check", "rules", "rules.yml"])?, "check rules")?;
    must(&check(prometheus, &folder, &["promtool", "test", "rules", "rules.test.yml"])?, "test rules")?;
    let here = tempfile::tempdir()?;
    let plain = read("compose/prometheus/prometheus.yml")?.replace("/etc/prometheus/", "/etc/checked/");
    std::fs::write(here.path().join("prometheus.yml"), plain)?;
    let rules = read("compose/prometheus/rules.yml")?;
    std::fs::write(here.path().join("rules.yml"), &rules)?;
    open(here.path())?;
    must(&check(prometheus, here.path(), &["promtool", "check", "config", "prometheus.yml"])?, "check config")?;
    must(
        &check(alertmanager, &compose.join("alertmanager"), &["amtool", "check-config", "alertmanager.yml"])?,
        "amtool",
    )?;

    // Each alert is really tested: with another expression its test fails.
    std::fs::copy(folder.join("rules.test.yml"), here.path().join("rules.test.yml"))?;
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    for alert in &alerts {
        let (before, after) = rules.split_once(&format!("- alert: {alert}\n")).context("the alert")?;
        std::fs::write(here.path().join("rules.yml"), format!("{before}- alert: {alert}Not\n{after}"))?;
        let ended = check(prometheus, here.path(), &["promtool", "test", "rules", "rules.test.yml"])?;
        ensure!(!ended.status.success(), "no test notices that {alert} is gone");
    }
    Ok(())
}

/// Lets the programs in containers read a temporary folder.
fn open(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).context("open a folder")
}

/// compose/monitoring.yaml over compose/compose.yaml, from a copy with a webhook and shorter times.
struct Stack {
    folder: tempfile::TempDir,
    name: String,
    image: String,
}

/// Receives alerts by POST, each a line of /tmp/alerts.
const RECEIVER: &str = "mkdir -p /www/cgi-bin; printf '#!/bin/sh\\nhead -c $CONTENT_LENGTH >> /tmp/alerts; echo >> /tmp/alerts; \
                        printf \"Content-Type: text/plain\\\\r\\\\n\\\\r\\\\n\"\\n' > /www/cgi-bin/alerts; \
                        chmod 755 /www/cgi-bin/alerts; exec httpd -f -p 8080 -h /www";

impl Stack {
    fn up() -> Result<Self> {
        compose()?;
        stand_ins(&IMAGES)?;
        let (image, small) = (script("e2e/images/test-image", &[])?, script("e2e/images/small", &[])?);
        let folder = tempfile::tempdir()?;
        open(folder.path())?;
        for file in [
            "compose.yaml",
            "monitoring.yaml",
            "prometheus/prometheus.yml",
            "prometheus/rules.yml",
            "alertmanager/alertmanager.yml",
        ] {
            let target = folder.path().join(file);
            std::fs::create_dir_all(target.parent().context("a folder")?)?;
            std::fs::write(target, quicker(file, &read(&format!("compose/{file}"))?)?)?;
        }
        let receiver = json!({"image": small, "command": ["sh", "-c", RECEIVER.replace('$', "$$")]});
        let mut more = format!("services:\n  alerts: {receiver}\n");
        for (service, port) in
            [("master", 3001), ("r001", 3001), ("r002", 3001), ("prometheus", 9090), ("alertmanager", 9093)]
        {
            writeln!(more, "  {service}: {{ports: !override [\"127.0.0.1::{port}\"]}}")?;
        }
        std::fs::write(folder.path().join("more.yaml"), more)?;
        let stack = Self { folder, name: format!("{}monitoring", e2e::pods::SCOPE.prefix()), image };
        stack.compose(&["down", "--volumes", "--timeout", "1"])?;
        stack.compose(&["up", "--detach", "--wait", "--no-build", "--quiet-pull"])?;
        Ok(stack)
    }

    fn compose(&self, arguments: &[&str]) -> Result<String> {
        let (main, more) = (self.folder.path().join("monitoring.yaml"), self.folder.path().join("more.yaml"));
        let image = self.folder.path().join("image.env");
        std::fs::write(&image, format!("VSKI_IMAGE={}\nVSKI_PULL_POLICY=never\n", self.image))?;
        let [main, more, image] = [main, more, image].map(|path| path.display().to_string());
        let base = ["compose", "--progress", "quiet", "--env-file", &image, "--project-name", &self.name];
        docker(&[&base[..], &["--file", &main, "--file", &more], arguments].concat())
    }

    fn client(&self, service: &str, port: u16) -> Result<Client> {
        let address = self.compose(&["port", service, &port.to_string()])?;
        Client::new(&format!("http://{address}"))
    }

    /// The values of a question to Prometheus.
    fn ask(&self, question: &str) -> Result<Vec<Value>> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        let question: String = question.bytes().map(encode).collect();
        let reply = self.client("prometheus", 9090)?.get(&format!("/api/v1/query?query={question}"))?.ok()?.json()?;
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

    /// Waits until the webhook was told that an alert has this status.
    fn wait_told(&self, alert: &str, status: &str) -> Result<()> {
        eventually(&format!("the webhook is told: {alert} {status}"), TOLD, || {
            let said = self.compose(&["exec", "-T", "alerts", "cat", "/tmp/alerts"])?;
            let told = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut alerts = told.flat_map(|message| items(&message["alerts"]).to_vec());
            Ok(alerts.any(|found| found["labels"]["alertname"] == alert && found["status"] == status))
        })
    }
}

/// The file with times of seconds; every one that is expected to be there must be.
fn quicker(file: &str, text: &str) -> Result<String> {
    let changes: &[(&str, &str)] = match file {
        "prometheus/prometheus.yml" => &[("_interval: 15s", "_interval: 1s")],
        "prometheus/rules.yml" => {
            &[("for: 1m\n", "for: 1s\n"), ("vski_replica_lag_seconds > 60", "vski_replica_lag_seconds > 8")]
        }
        "alertmanager/alertmanager.yml" => &[
            ("group_wait: 10s", "group_wait: 1s"),
            ("group_interval: 1m", "group_interval: 1s"),
            (
                "  - name: operator\n",
                "  - name: operator\n    webhook_configs: [{url: \"http://alerts:8080/cgi-bin/alerts\", send_resolved: true}]\n",
            ),
        ],
        _ => &[],
    };
    let mut text = text.to_owned();
    for (from, to) in changes {
        ensure!(text.contains(from), "{file} has no {from:?}");
        text = text.replace(from, to);
    }
    Ok(text)
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.compose(&["logs", "--tail", "20"]).map(|logs| println!("{logs}"));
        }
        if let Err(error) = self.compose(&["down", "--volumes", "--timeout", "1"]) {
            println!("{} was not removed: {error:#}", self.name);
        }
    }
}

pub fn scenario() -> Result<()> {
    let stack = Stack::up()?;
    stack.compose(&["exec", "-T", "master", "vski-server", "admin", "upsert", ADMIN.0, ADMIN.1])?;
    let admin = stack.client("master", 3001)?.login(ADMIN.0, ADMIN.1)?;
    admin.create_collection("posts", &[("n", "number")])?;
    stack.wait_quiet().context("all is well")?;
    ensure!(stack.ask("vski_replica_lag_seconds{db=\"default\"}")?.len() == 2, "not two replicas' lag");

    stack.compose(&["exec", "-T", "r001-agent", "vski-sync-agent", "verify"])?;
    eventually("the comparison is told", TOLD, || Ok(stack.ask("vski_sync_differing_ranges == 0")?.len() == 1))?;

    stack.compose(&["pause", "r001-agent"])?;
    stack.wait_firing("VskiReplicaLag r001:3001")?;
    stack.wait_firing("VskiDown r001-agent:9301")?;
    ensure!(
        !stack.firing()?.iter().any(|alert| alert.contains("r002")),
        "the other replica too: {:?}",
        stack.firing()?
    );
    stack.wait_told("VskiReplicaLag", "firing")?;
    stack.compose(&["unpause", "r001-agent"])?;
    stack.wait_quiet().context("the agent goes on")?;
    stack.wait_told("VskiReplicaLag", "resolved")?;

    stack.compose(&["stop", "master"])?;
    stack.wait_firing("VskiNoMaster")?;
    stack.wait_told("VskiNoMaster", "firing")?;
    stack.compose(&["start", "master"])?;
    stack.wait_quiet().context("the master is back")?;
    stack.wait_told("VskiNoMaster", "resolved")
}
