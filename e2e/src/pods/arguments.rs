use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::SCOPE;
use super::spec::{Container, PodSpec};
use super::volumes::mount;
use crate::manifests::quantity;

/// What a container is run in.
pub struct Surroundings<'a> {
    pub namespace: &'a str,
    /// The container that holds network and IPC.
    pub pause: &'a str,
    pub volumes: &'a BTreeMap<String, String>,
    /// Local names of images, by the names in manifests.
    pub images: &'a BTreeMap<String, String>,
}

/// The arguments after `docker`, but for the container's name. Attached: the command ends as the container does.
pub fn run(
    spec: &PodSpec,
    container: &Container,
    variables: &BTreeMap<String, String>,
    around: &Surroundings,
) -> Result<Vec<String>> {
    let mut made: Vec<String> = vec!["run".into()];
    let mut add = |name: &str, value: String| made.extend([name.to_owned(), value]);
    add("--label", SCOPE.tag(around.namespace));
    add("--network", format!("container:{}", around.pause));
    add("--ipc", format!("container:{}", around.pause));
    for (name, value) in variables {
        add("--env", format!("{name}={value}"));
    }
    for wanted in &container.volume_mounts {
        let volume = around.volumes.get(&wanted.name).with_context(|| format!("no volume {}", wanted.name))?;
        add("--mount", mount(volume, &wanted.mount_path, wanted.read_only));
    }
    for (name, value) in identity(spec)?.into_iter().chain(limits(container)?) {
        add(name, value);
    }
    for dropped in &container.security_context.capabilities.drop {
        add("--cap-drop", dropped.clone());
    }
    if container.security_context.allow_privilege_escalation == Some(false) {
        add("--security-opt", "no-new-privileges".to_owned());
    }
    let (entrypoint, rest) = match container.command.as_deref() {
        Some([program, rest @ ..]) => (Some(program), rest),
        _ => (None, &[][..]),
    };
    if let Some(program) = entrypoint {
        add("--entrypoint", program.clone());
    }
    if container.security_context.read_only_root_filesystem {
        made.push("--read-only".into());
    }
    made.push(around.images.get(&container.image).unwrap_or(&container.image).clone());
    made.extend(rest.iter().chain(container.args.iter().flatten()).cloned());
    Ok(made)
}

/// Who the container is.
fn identity(spec: &PodSpec) -> Result<Vec<(&'static str, String)>> {
    let (security, mut made) = (&spec.security_context, Vec::new());
    if let Some(user) = security.run_as_user {
        made.push(("--user", format!("{user}:{}", security.run_as_group.unwrap_or(0))));
    }
    // A kubelet would look at the image's user; ours do not depend on it.
    let is_root = security.run_as_user.unwrap_or(0) == 0;
    ensure!(!(security.run_as_non_root && is_root), "runAsNonRoot: container would run as root");
    made.extend(security.fs_group.map(|group| ("--group-add", group.to_string())));
    Ok(made)
}

/// Amounts in Docker's units.
fn limits(container: &Container) -> Result<Vec<(&'static str, String)>> {
    let mut made = Vec::new();
    for (kind, amounts) in [("request", &container.resources.requests), ("limit", &container.resources.limits)] {
        for (what, amount) in amounts {
            let amount = quantity(amount)?;
            match (kind, what.as_str()) {
                ("limit", "memory") => {
                    made.push(("--memory", format!("{amount:.0}")));
                    made.push(("--memory-swap", format!("{amount:.0}")));
                }
                ("limit", "cpu") => made.push(("--cpus", amount.to_string())),
                ("request", "cpu") => made.push(("--cpu-shares", format!("{:.0}", (amount * 1024.0).max(2.0)))),
                // The scheduler's business.
                ("request", "memory") => {}
                _ => anyhow::bail!("a {kind} of {what} is not emulated"),
            }
        }
    }
    Ok(made)
}
