//! The image and the files of compose/, before anything runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::docker::{self, docker, finish};
use e2e::manifests::repository;
use serde_json::Value;
use tempfile::TempDir;

use super::images::{Images, compose_file};

/// The last stage of the Dockerfile, really built, has the configuration and the files of the image that the scenarios
/// start. Only the stage that compiles is replaced: by what it would leave behind.
pub fn same_image(images: &Images) -> Result<()> {
    let dockerfile = std::fs::read_to_string(compose_file("Dockerfile"))?;
    let (_, last) = dockerfile.split_once("\nFROM scratch\n").context("a last stage from scratch")?;
    let context = tempfile::tempdir()?;
    let compiled = "FROM BASE AS all\nFROM scratch AS build\nCOPY --from=all /usr /out/usr\nCOPY --from=all /etc /out/etc\n\
                    COPY --from=all /licenses /out/licenses\nCOPY --from=all --chown=0:0 /data /data\n";
    let compiled = compiled.replace("BASE", &images.vski);
    std::fs::write(context.path().join("Dockerfile"), format!("{compiled}FROM scratch\n{last}"))?;
    // Compose builds with BuildKit also where Docker's own command line lacks a plugin for it.
    let built = format!("{}-dockerfile", images.vski);
    let project = context.path().join("compose.yaml");
    std::fs::write(&project, format!("services: {{vski: {{image: {built}, build: .}}}}\n"))?;
    let mut build = docker::cli();
    build.args(["compose", "--progress", "quiet", "--project-name", "vski-e2e-image", "--file"]).arg(&project);
    finish(build.arg("build")).context("build the last stage of the Dockerfile")?;
    let compared = (|| {
        let (tested, described) = (configuration(&images.vski)?, configuration(&built)?);
        ensure!(tested == described, "the scenarios' image has {tested:#?}, the Dockerfile makes {described:#?}");
        let (tested, described) = (content(&images.vski)?, content(&built)?);
        ensure!(tested == described, "the scenarios' image has {tested:#?}, the Dockerfile makes {described:#?}");
        anyhow::Ok(())
    })();
    docker(&["rmi", &built])?;
    compared
}

/// What containers inherit from an image.
fn configuration(image: &str) -> Result<BTreeMap<String, Value>> {
    let mut all: Value = serde_json::from_str(&docker(&["image", "inspect", "--format", "{{json .Config}}", image])?)?;
    if let Some(labels) = all["Labels"].as_object_mut() {
        // Compose's own, on what it builds.
        labels.retain(|name, _| !name.starts_with("com.docker.compose."));
    }
    let keys = ["Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "User", "WorkingDir"];
    let found: BTreeMap<_, _> = keys.map(|key| (key.to_owned(), all[key].clone())).into();
    for (key, value) in &found {
        ensure!(!value.is_null(), "{image} has no {key}: {all}");
    }
    Ok(found)
}

/// Mode, owner and name of each file that an image brings; Docker itself puts some more into every container.
fn content(image: &str) -> Result<BTreeSet<String>> {
    let container = docker(&["create", image])?;
    let mut list = docker::limited("sh", docker::COMMAND);
    list.args(["-c", "docker export \"$0\" | tar --list --verbose --numeric-owner", container.trim()]);
    let listed = finish(&mut list);
    docker(&["rm", container.trim()])?;
    let ours = |name: &str| ["usr/", "etc/ssl", "licenses", "data"].iter().any(|ours| name.starts_with(ours));
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = fields.get(5)?;
        ours(name).then(|| format!("{} {} {}", fields[0], fields[1], fields[5..].join(" ")))
    };
    let found: BTreeSet<String> = listed?.lines().filter_map(line).collect();
    ensure!(found.iter().any(|line| line.contains("65532/65532 data/")), "/data is not its user's: {found:#?}");
    Ok(found)
}

/// .dockerignore lets every member of the workspace through: cargo wants all of their manifests.
pub fn build_context(_: &Images) -> Result<()> {
    let ignored = std::fs::read_to_string(repository().join(".dockerignore"))?;
    let let_through: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let manifest = std::fs::read_to_string(repository().join("Cargo.toml"))?;
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).context("the members")?;
    let members: Vec<String> = serde_json::from_str(members)?;
    for member in members {
        let matches = |pattern: &&str| match pattern.strip_suffix('*') {
            Some(beginning) => member.starts_with(beginning),
            None => member == **pattern,
        };
        ensure!(let_through.iter().any(matches), ".dockerignore leaves {member} out");
    }
    Ok(())
}

/// `.env.example` has every variable of the compose files with its default, every one of README's table, and no other.
pub fn settings(_: &Images) -> Result<()> {
    let example = std::fs::read_to_string(compose_file(".env.example"))?;
    let offered: BTreeMap<&str, &str> = example
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once('='))
        .filter(|(name, _)| is_name(name))
        .collect();
    let mut used: BTreeMap<String, String> = BTreeMap::new();
    for file in compose_files(&compose_file(""))? {
        let text = std::fs::read_to_string(&file)?;
        for part in text.split("${").skip(1) {
            let (variable, _) = part.split_once('}').with_context(|| format!("{file:?}: an open variable"))?;
            let (name, default) =
                variable.split_once(":-").with_context(|| format!("{file:?}: {variable} has no default"))?;
            let known = used.entry(name.to_owned()).or_default();
            // One file may know a default where another leaves it to the program.
            if known.is_empty() {
                default.clone_into(known);
            }
            ensure!(default.is_empty() || default == known, "{name} has two defaults: {known} and {default}");
        }
    }
    for (name, default) in &used {
        let offer = offered.get(name.as_str()).with_context(|| format!(".env.example lacks {name}"))?;
        ensure!(default.is_empty() || offer == default, "{name} is {default} in the files and {offer} in .env.example");
    }
    for name in offered.keys() {
        ensure!(used.contains_key(*name), "{name} of .env.example is read by no file");
    }
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    for name in rows.map(|(name, _)| name).filter(|name| is_name(name)) {
        ensure!(example.contains(name), ".env.example does not mention {name}");
    }
    Ok(())
}

/// What a topology adds to compose.yaml.
const TOPOLOGIES: [&str; 4] = ["compose.yaml", "haproxy.yaml", "nginx.yaml", "traefik.yaml"];

/// Each topology can have Prometheus beside it, and keeps what it is without.
pub fn pairs(_: &Images) -> Result<()> {
    let config = |files: &[&str]| -> Result<Value> {
        let mut command = docker::cli();
        command.args(["compose", "--env-file", "/dev/null"]);
        for file in files {
            command.arg("--file").arg(compose_file(file));
        }
        let text = finish(command.args(["config", "--format", "json"])).with_context(|| format!("{files:?}"))?;
        Ok(serde_json::from_str::<Value>(&text)?["services"].take())
    };
    let monitoring = config(&["monitoring.yaml"])?;
    for topology in TOPOLOGIES {
        let (alone, both) = (config(&[topology])?, config(&[topology, "add-monitoring.yaml"])?);
        for name in ["prometheus", "alertmanager"] {
            ensure!(both[name] == monitoring[name], "{name} beside {topology}: {}", both[name]);
        }
        for (name, service) in alone.as_object().context("services")? {
            ensure!(&both[name] == service, "{name} of {topology} changes: {}", both[name]);
        }
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// All YAML files of a directory and those below it.
fn compose_files(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(compose_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The specification's example of a read/write split for HAProxy, with an address that needs no look-up.
const PRINTED_HAPROXY: &str = "frontend http_front
    bind *:80
    acl is_write method POST PUT PATCH DELETE
    use_backend master if is_write
    default_backend all_servers

backend master
    server master1 127.0.0.1:3001

backend all_servers
    balance roundrobin
    server master1 127.0.0.1:3001
";

/// The same for Nginx.
const PRINTED_NGINX: &str = "events {}
http {
    upstream reads { server 127.0.0.1:3001; }
    upstream writes { server 127.0.0.1:3001; }
    server {
        listen 80;
        # Writes go to master
        if ($request_method !~ ^(GET|HEAD|OPTIONS)$) {
            proxy_pass http://writes;
        }
        location / {
            proxy_pass http://reads;
        }
    }
}
";

/// Each proxy's own test of its configuration: ours passes, the specification's printed form does not.
pub fn proxies(images: &Images) -> Result<()> {
    let ours = |name: &str| std::fs::read_to_string(compose_file(name));
    let haproxy = |text: &str| {
        let check = ["haproxy", "-c", "-dW", "-f", "/vski.cfg"];
        check_file("haproxy:3.2", text, &["--env", "LB_MAX_LAG=15s"], &check)
    };
    haproxy(&ours("haproxy/haproxy.cfg")?)?;
    refused(haproxy(PRINTED_HAPROXY), "HAProxy without time-outs", &["missing timeouts"])?;
    // Without -dW these are warnings, and it starts.
    check_file("haproxy:3.2", PRINTED_HAPROXY, &[], &["haproxy", "-c", "-f", "/vski.cfg"])?;
    let nginx = |text: &str| {
        check_file(
            "nginx:1.30",
            text,
            &["--user", "101:101", "--tmpfs", "/tmp:uid=101"],
            &["nginx", "-t", "-c", "/vski.cfg"],
        )
    };
    nginx(&ours("nginx/nginx.conf")?)?;
    refused(
        nginx(PRINTED_NGINX),
        "Nginx's proxy_pass in a server's if",
        &["\"proxy_pass\" directive is not allowed here"],
    )?;
    traefik(images)
}

/// Starts a container whose `/vski.cfg` is the text. An error holds what the program said.
fn check_file(image: &str, text: &str, options: &[&str], check: &[&str]) -> Result<String> {
    let directory = readable(text)?;
    let mount = format!("{}:/vski.cfg:ro", directory.path().join("vski.cfg").display());
    docker(&[&["run", "--rm", "--volume", &mount], options, &[image], check].concat())
}

/// A directory with a file that other users can read.
pub fn readable(text: &str) -> Result<TempDir> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("vski.cfg");
    std::fs::write(&file, text)?;
    for (path, mode) in [(directory.path(), 0o755), (&file, 0o644)] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    Ok(directory)
}

fn refused(outcome: Result<String>, what: &str, needles: &[&str]) -> Result<()> {
    let Err(error) = outcome else { anyhow::bail!("{what} was accepted") };
    let text = format!("{error:#}");
    ensure!(needles.iter().any(|needle| text.contains(needle)), "{what} failed otherwise: {text}");
    Ok(())
}

/// How Traefik's log marks an error.
const ERROR: &str = "\"level\":\"error\"";

/// How long it may take until it says what is awaited of it, seconds.
const AWAITED: u32 = 60;

/// Traefik has no test of its configuration: it says at start what it does not understand. The printed form has neither
/// Docker's socket nor what a replica needs to start.
fn traefik(images: &Images) -> Result<()> {
    let start = |text: &str, arguments: &[&str], awaited: &str| -> Result<String> {
        let directory = readable(text)?;
        let mount = format!("{}:/routes.yaml:ro", directory.path().join("vski.cfg").display());
        // It runs on: what it has said some seconds after what is awaited counts.
        let options = ["run", "--rm", "--env", "LB_MAX_LAG=15s", "--volume", &mount, "--entrypoint", "sh"];
        let run = format!(
            "traefik --log.level=DEBUG --log.format=json {} > /tmp/said 2>&1 & \
             n=0; until grep -q '{awaited}' /tmp/said || [ $n = {AWAITED} ]; do n=$((n + 1)); sleep 1; done; \
             sleep 3; kill $!; cat /tmp/said",
            arguments.join(" ")
        );
        let mut command = docker::cli();
        command.args(options).args(["traefik:v3", "-c", &run]);
        let ended = command.output().context("start Traefik")?;
        Ok(String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned())
    };
    let file = ["--providers.file.filename=/routes.yaml", "--entryPoints.web.address=:8080"];
    let routes = std::fs::read_to_string(compose_file("traefik/routes.yaml"))?;
    let said = start(&routes, &file, "only-r001")?;
    ensure!(!said.contains(ERROR) && said.contains("only-r001"), "routes.yaml: {said}");
    let said = start(&routes.replace("service: only-r001", "service: nobody"), &file, ERROR)?;
    ensure!(said.contains(ERROR), "a missing service was not noticed: {said}");
    let said = start("{}", &["--providers.docker=true"], ERROR)?;
    ensure!(said.contains("docker") && said.contains(ERROR), "the printed form worked without Docker's socket: {said}");

    let environment = ["--env", "REPLICA_MODE=replica", "--env", "REPLICA_ID=r001"];
    let replica = docker(
        &[&["run", "--rm"][..], &environment, &["--env", "PUBLIC_URL=https://r001.instance.com", &images.vski]]
            .concat(),
    );
    refused(replica, "a replica without a secret", &["JWT_SECRET"])?;
    let environment = [&environment[..], &["--env", "JWT_SECRET=a-secret-of-more-than-thirty-two-chars"]].concat();
    refused(
        docker(&[&["run", "--rm"], &environment[..], &[&images.vski]].concat()),
        "a replica without a master",
        &["MASTER_URL"],
    )
}
