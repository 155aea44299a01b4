use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use e2e::docker::{must, stand_ins, try_docker};
use e2e::manifests::{items, parse, render, repository};
use serde_json::Value;

/// The public images that compose/add-monitoring.yaml names and that are run.
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

/// What Grafana reads at its start, as files: the dashboard is where its provider looks, its panels ask the data source
/// that is provisioned, and that is the Prometheus of the same file. No image of Grafana runs here.
pub fn grafana() -> Result<()> {
    let stack = parse(&read("compose/add-monitoring.yaml")?)?;
    let services = &stack.objects[0]["services"];
    let volumes: Vec<&str> = items(&services["grafana"]["volumes"]).iter().filter_map(Value::as_str).collect();
    let source = parse(&read("compose/grafana/provisioning/datasources/prometheus.yaml")?)?;
    let source = &source.objects[0]["datasources"][0];
    ensure!(source["type"] == "prometheus" && source["url"] == "http://prometheus:9090", "{source}");
    ensure!(!services["prometheus"].is_null(), "add-monitoring.yaml has no prometheus");
    let provider = parse(&read("compose/grafana/provisioning/dashboards/vski.yaml")?)?;
    let path = provider.objects[0]["providers"][0]["options"]["path"].as_str().context("a path")?;
    for mount in
        [format!("./grafana/dashboards:{path}:ro"), "./grafana/provisioning:/etc/grafana/provisioning:ro".into()]
    {
        ensure!(volumes.contains(&mount.as_str()), "grafana has no volume {mount}: {volumes:?}");
    }
    let dashboard: Value = serde_json::from_str(&read("compose/grafana/dashboards/vski.json")?)?;
    ensure!(dashboard["uid"].is_string() && dashboard["title"].is_string(), "a dashboard without uid or title");
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in items(&dashboard["panels"]) {
        let title = panel["title"].as_str().context("a panel without title")?;
        ensure!(
            ids.insert(panel["id"].as_u64().with_context(|| format!("{title} has no id"))?),
            "{title}: its id twice"
        );
        let place = |side: &str| panel["gridPos"][side].as_u64().with_context(|| format!("{title}: no {side}"));
        let (x, y, width, height) = (place("x")?, place("y")?, place("w")?, place("h")?);
        ensure!(x + width <= 24, "{title} is wider than the dashboard");
        for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            ensure!(places.insert(cell), "{title} lies on another panel");
        }
        let targets = items(&panel["targets"]);
        ensure!(!targets.is_empty() || panel["type"] == "row", "{title} asks nothing");
        for asked in targets.iter().map(|target| &target["datasource"]).chain([&panel["datasource"]]) {
            ensure!(asked.is_null() || asked["uid"] == source["uid"], "{title} asks {asked}, not {}", source["uid"]);
        }
    }
    Ok(())
}

/// The collector's pipelines name what is defined, and it listens where `.env.example` and monitoring.yaml send traces.
pub fn collector() -> Result<()> {
    let file = parse(&read("compose/otel/config.yaml")?)?;
    let file = &file.objects[0];
    for (name, pipeline) in file["service"]["pipelines"].as_object().context("pipelines")? {
        for kind in ["receivers", "processors", "exporters"] {
            let named = items(&pipeline[kind]);
            ensure!(!named.is_empty() || kind == "processors", "{name} has no {kind}");
            for part in named.iter().filter_map(Value::as_str) {
                ensure!(file[kind].get(part).is_some(), "{name} names {kind} {part}, which are not defined");
            }
        }
    }
    let endpoint = file["receivers"]["otlp"]["protocols"]["http"]["endpoint"].as_str().context("an endpoint")?;
    let port = endpoint.strip_prefix("0.0.0.0:").context("an endpoint that other containers reach")?;
    let stack = read("compose/add-monitoring.yaml")?;
    ensure!(stack.contains(&format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:{port} ")), "no word of port {port}");
    let collector = parse(&stack)?.objects[0]["services"]["collector"].clone();
    let mounted = "./otel/config.yaml:/etc/otelcol/config.yaml:ro";
    ensure!(
        collector["volumes"][0] == mounted && collector["command"][0] == "--config=/etc/otelcol/config.yaml",
        "{collector}"
    );
    Ok(())
}
