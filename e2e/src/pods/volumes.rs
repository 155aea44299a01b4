//! Volumes are Docker's. A helper container makes them what a kubelet makes them: owned by fsGroup, filled.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, bail};

use super::SCOPE;
use super::environment::data;
use super::spec::PodSpec;
use crate::docker::docker;
use crate::manifests::Manifests;

/// Where a helper sees the volumes.
const ROOT: &str = "/v";

/// Mode of files of a ConfigMap or Secret if none is given.
const FILE_MODE: u32 = 0o644;

/// What volumes are made of and for.
pub struct Making<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    /// Volumes that come from a StatefulSet's templates, and the names of their claims.
    pub claims: &'a BTreeMap<String, String>,
    /// Docker's volume behind each claim.
    pub bound: &'a BTreeMap<String, String>,
    pub manifests: &'a Manifests,
    /// The helper's image.
    pub small: &'a str,
}

/// Makes the volumes of a pod. Returns their names in Docker by their names in the pod.
pub fn make(spec: &PodSpec, making: &Making) -> Result<BTreeMap<String, String>> {
    let (mut names, mut work) = (BTreeMap::new(), Work::new(spec));
    for (volume, claim) in making.claims {
        names.insert(volume.clone(), bound(making, claim)?);
        work.own(volume);
    }
    for volume in &spec.volumes {
        let own = format!("{}_{}_{}", making.namespace, making.pod, volume.name);
        let name = match (&volume.persistent_volume_claim, &volume.secret, &volume.config_map, &volume.empty_dir) {
            (Some(claim), None, None, None) => {
                work.own(&volume.name);
                bound(making, &claim.claim_name)?
            }
            (None, Some(secret), None, None) => {
                let files = data(making.manifests, "Secret", &secret.secret_name)?;
                work.fill(&volume.name, files, secret.default_mode)?;
                own
            }
            (None, None, Some(map), None) => {
                let files = data(making.manifests, "ConfigMap", &map.name)?;
                work.fill(&volume.name, files, map.default_mode)?;
                own
            }
            (None, None, None, Some(_)) => {
                work.own_open(&volume.name);
                own
            }
            _ => bail!("volume {} is not exactly one of what is emulated", volume.name),
        };
        names.insert(volume.name.clone(), name);
    }
    work.run(&names, making)?;
    Ok(names)
}

/// The volume behind a claim.
fn bound(making: &Making, claim: &str) -> Result<String> {
    making.bound.get(claim).cloned().with_context(|| format!("no claim {claim}: the pod would wait for it"))
}

/// A shell script and the files it writes.
struct Work {
    group: u32,
    script: String,
    files: Vec<String>,
}

impl Work {
    fn new(spec: &PodSpec) -> Self {
        let group = spec.security_context.fs_group.unwrap_or(0);
        Self { group, script: "set -e\n".to_owned(), files: Vec::new() }
    }

    fn add(&mut self, line: std::fmt::Arguments) {
        self.script.write_fmt(line).expect("a String takes all text");
        self.script.push('\n');
    }

    /// As fsGroupChangePolicy OnRootMismatch: everything below gets the group, unless the root has it.
    fn own(&mut self, volume: &str) {
        let (at, group) = (format!("{ROOT}/{volume}"), self.group);
        self.add(format_args!("if [ \"$(stat -c %g {at})\" != {group} ] || [ \"$(stat -c %a {at})\" != 2775 ]; then"));
        self.add(format_args!("  chgrp -R {group} {at}; chmod -R g+rwX {at}"));
        self.add(format_args!("  find {at} -type d -exec chmod g+s {{}} +; chmod 2775 {at}; fi"));
    }

    /// An emptyDir: everybody may write.
    fn own_open(&mut self, volume: &str) {
        let group = self.group;
        self.add(format_args!("chgrp {group} {ROOT}/{volume}; chmod 2777 {ROOT}/{volume}"));
    }

    /// Files of root, which fsGroup may read.
    fn fill(&mut self, volume: &str, files: BTreeMap<String, String>, mode: Option<u32>) -> Result<()> {
        let (at, group) = (format!("{ROOT}/{volume}"), self.group);
        // The volume of a pod of before may hold a key that is gone.
        self.add(format_args!("rm -f {at}/*"));
        let mode = mode.unwrap_or(FILE_MODE) | if group == 0 { 0 } else { 0o440 };
        for (key, value) in files {
            let legal = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            anyhow::ensure!(legal, "{key:?} is no file name");
            self.add(format_args!("printf %s \"$FILE{}\" > {at}/{key}", self.files.len()));
            self.add(format_args!("chown 0:{group} {at}/{key}; chmod {mode:o} {at}/{key}"));
            self.files.push(value);
        }
        self.add(format_args!("chgrp {group} {at}; chmod 2755 {at}"));
        Ok(())
    }

    fn run(&self, names: &BTreeMap<String, String>, making: &Making) -> Result<()> {
        let label = SCOPE.tag(making.namespace);
        for name in names.values() {
            // One that is there stays as it is.
            docker(&["volume", "create", "--label", &label, name])?;
        }
        let mut arguments = vec!["run".to_owned(), "--rm".to_owned(), "--label".to_owned(), label];
        arguments.extend(["--network".to_owned(), "none".to_owned()]);
        for (volume, name) in names {
            arguments.extend(["--mount".to_owned(), mount(name, &format!("{ROOT}/{volume}"), false)]);
        }
        for (number, value) in self.files.iter().enumerate() {
            arguments.extend(["--env".to_owned(), format!("FILE{number}={value}")]);
        }
        arguments.extend([making.small.to_owned(), "sh".to_owned(), "-c".to_owned(), self.script.clone()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        docker(&arguments).with_context(|| format!("prepare the volumes of {}", making.pod)).map(drop)
    }
}

/// The value of `--mount`. A kubelet never copies what an image has at the path.
pub fn mount(volume: &str, target: &str, read_only: bool) -> String {
    let read_only = if read_only { ",readonly" } else { "" };
    format!("type=volume,source={volume},target={target},volume-nocopy{read_only}")
}
