//! The images that scenarios start, and how they mark what they make of them.

use std::path::PathBuf;

use anyhow::Result;
use e2e::docker::{COMPOSE, Scope, compose, script, stand_ins};
use e2e::manifests::repository;

/// Compose's own label names the project; whatever else a scenario starts gets it too.
pub const SCOPE: Scope = Scope { label: COMPOSE, word: "vski-e2e" };

/// The public images that the files name and the scenarios start.
const PUBLIC: [&str; 3] = ["haproxy:3.2", "nginx:1.30", "traefik:v3"];

/// Names of the images that were made here. Whatever a scenario could not remove is removed with them, once all have ended.
pub struct Images {
    /// The programs, as compose/Dockerfile packs them.
    pub vski: String,
    /// A server that is no VSKI.
    pub backend: String,
}

impl Images {
    /// Makes what is missing of Compose and the images, and removes what earlier runs left behind.
    pub fn prepare() -> Result<Self> {
        SCOPE.clean_up_on_signals();
        SCOPE.clean_up();
        compose()?;
        stand_ins(&PUBLIC)?;
        Ok(Self { vski: script("e2e/images/test-image", &[])?, backend: script("e2e/images/backend", &[])? })
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        SCOPE.clean_up();
    }
}

/// A file of compose/.
pub fn compose_file(name: &str) -> PathBuf {
    repository().join("compose").join(name)
}
