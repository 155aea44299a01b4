use anyhow::{Result, ensure};
use e2e::manifests::{Manifests, PROVIDED_BY_HAND, faults, name, parse, render, repository, schema_faults};

/// What users apply.
const OVERLAYS: [&str; 3] = ["overlays/dev", "overlays/prod", "overlays/sidecar"];

/// What they may add to the production overlay.
const EXAMPLES: [&str; 4] =
    ["examples/ingress.yaml", "examples/httproute.yaml", "examples/former-master.yaml", "examples/restore.yaml"];

/// The newest versions of Kubernetes.
const NEWEST: [&str; 3] = ["1.35", "1.36", "1.37"];

/// Before native sidecars.
const OLD: &str = "1.28";

fn all() -> Result<Vec<(&'static str, Manifests)>> {
    let folders = ["base", "components/monitoring"].into_iter().chain(OVERLAYS).chain(EXAMPLES);
    folders.map(|folder| Ok((folder, render(folder)?))).collect()
}

pub fn valid_for_the_newest() -> Result<()> {
    let (names, sets): (Vec<_>, Vec<_>) = all()?.into_iter().unzip();
    for version in NEWEST {
        let faults = schema_faults(version, &sets)?;
        ensure!(faults.iter().all(Vec::is_empty), "{version}: {:#?}", names.iter().zip(faults).collect::<Vec<_>>());
    }
    Ok(())
}

pub fn valid_for_old() -> Result<()> {
    let faults = schema_faults(OLD, &[render("overlays/sidecar")?, render("overlays/prod")?])?;
    ensure!(faults[0].is_empty() && !faults[1].is_empty(), "{faults:#?}");
    Ok(())
}

pub fn rules() -> Result<()> {
    let production = render("overlays/prod")?;
    for (folder, mut set) in all()? {
        if folder.starts_with("examples/") || folder.starts_with("components/") {
            // They are applied beside it; kustomize puts a component into its namespace.
            let components = set.objects.iter_mut().filter(|_| folder.starts_with("components/"));
            components.for_each(|object| object["metadata"]["namespace"] = "vski".into());
            set.objects.extend(production.objects.iter().cloned());
        }
        let faults = faults(&set);
        ensure!(faults.is_empty(), "{folder}: {faults:#?}");
    }
    Ok(())
}

pub fn secrets() -> Result<()> {
    let readme = std::fs::read_to_string(repository().join("k8s/README.md"))?;
    let production = render("overlays/prod")?;
    ensure!(production.kind("Secret").map(name).next().is_none(), "a secret in the production overlay");
    for secret in PROVIDED_BY_HAND {
        ensure!(readme.contains(&format!("create secret generic {secret}")), "{secret}");
    }
    Ok(())
}

pub fn duplicate_keys() -> Result<()> {
    ensure!(parse("a: 1\nb: {c: 1}\n")?.objects.len() == 1);
    for twice in ["a: 1\na: 2\n", "a: {b: 1, b: 1}\n"] {
        let error = format!("{:#}", parse(twice).err().unwrap_or_else(|| anyhow::anyhow!("accepted")));
        ensure!(error.contains("stands twice"), "{error}");
    }
    Ok(())
}
