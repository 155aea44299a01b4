//! A fresh clone: no image, so the master's service builds it, once, and all others start it. The Dockerfile of this clone
//! only copies what the real one would compile, which e2e/images/dockerfile does.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::docker::{self, docker, finish, try_docker};
use e2e::manifests::repository;
use serde_json::json;
use tempfile::TempDir;

use super::images::{Images, SCOPE};

struct Clone {
    folder: TempDir,
    name: String,
    image: String,
}

impl Clone {
    fn new(images: &Images) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        finish(docker::limited("cp", docker::COMMAND).arg("-r").arg(repository().join("compose")).arg(folder.path()))?;
        let place = folder.path().join("compose");
        std::fs::write(place.join("Dockerfile"), format!("FROM {}\nLABEL clone=fresh\n", images.vski))?;
        let name = SCOPE.name("fresh");
        let nobody = json!({"ports": []});
        let ports = json!({"services": {"master": nobody, "r001": nobody, "r002": nobody},
                           "networks": {"default": {"ipam": {"config": [{"subnet": docker::free_subnet()?}]}}}});
        let ports = ports.to_string().replace("\"ports\":", "\"ports\": !override ");
        std::fs::write(place.join("ports.yaml"), ports)?;
        let image = format!("{name}:latest");
        Ok(Self { folder, name, image })
    }

    fn compose(&self, arguments: &[&str]) -> Result<String> {
        let file = |name: &str| Path::new("compose").join(name);
        let mut command = docker::cli();
        command.current_dir(self.folder.path()).env("VSKI_IMAGE", &self.image);
        command.args(["compose", "--progress", "quiet", "--project-name", &self.name]);
        command.arg("--file").arg(file("compose.yaml")).arg("--file").arg(file("ports.yaml"));
        finish(command.args(arguments))
    }

    fn has_image(&self) -> bool {
        docker(&["image", "inspect", &self.image]).is_ok()
    }

    /// Fails unless exactly these services have containers, all of the image that was built here.
    fn runs(&self, services: &[&str]) -> Result<()> {
        let built = docker(&["image", "inspect", "--format", "{{.Id}} {{.Config.Labels.clone}}", &self.image])?;
        let id = built.strip_suffix(" fresh").with_context(|| format!("not the clone's own image: {built}"))?;
        let list = self.compose(&["ps", "--all", "--format", "{{.Service}} {{.ID}}"])?;
        let mut found: Vec<&str> = Vec::new();
        for (service, container) in list.lines().filter_map(|line| line.split_once(' ')) {
            let image = docker(&["inspect", "--format", "{{.Image}}", container])?;
            ensure!(image == id, "{service} runs {image} instead of {id}");
            found.push(service);
        }
        found.sort_unstable();
        ensure!(found == services, "{found:?} instead of {services:?}");
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        self.compose(&["down", "--volumes"])?;
        if self.has_image() { docker(&["rmi", "--force", &self.image]).map(drop) } else { Ok(()) }
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        if let Err(error) = SCOPE.remove(&self.name) {
            println!("{error:#}");
        }
        let _ = try_docker(&["rmi", "--force", &self.image]);
    }
}

pub fn scenario(images: &Images) -> Result<()> {
    let clone = Clone::new(images)?;
    ensure!(!clone.has_image(), "the clone is not fresh");
    // What is to be built is not asked of a registry.
    clone.compose(&["pull"]).context("pull on a fresh clone")?;
    clone.compose(&["up", "--detach", "--wait"]).context("up on a fresh clone")?;
    clone.runs(&["master", "r001", "r001-agent", "r002", "r002-agent", "secret"])?;
    clone.compose(&["pull"]).context("pull beside the built image")?;
    clone.compose(&["up", "--detach", "--wait"]).context("up with the image")?;
    clone.remove()?;
    // One service alone brings those it needs, the builder among them.
    clone.compose(&["up", "--detach", "--wait", "r001"]).context("up of one replica on a fresh clone")?;
    clone.runs(&["master", "r001", "r001-agent", "secret"])?;
    clone.remove()
}
