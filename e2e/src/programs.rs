//! The binaries come from the build that the tests themselves belong to, or from `VSKI_BIN_DIR`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `vski-server`.
pub fn server() -> Result<PathBuf> {
    find("vski-server")
}

/// `vski-prod`: the server under the name that the quick start uses.
pub fn prod() -> Result<PathBuf> {
    find("vski-prod")
}

/// `vski-sync-agent`.
pub fn agent() -> Result<PathBuf> {
    find("vski-sync-agent")
}

/// The example data of the repository.
#[must_use]
pub fn example_data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("examples").join("data")
}

fn find(name: &str) -> Result<PathBuf> {
    let directories: Vec<PathBuf> = match std::env::var_os("VSKI_BIN_DIR") {
        Some(directory) => vec![directory.into()],
        // A test runs as target/<profile>/deps/<test>, the programs are in target/<profile>.
        None => {
            let test = std::env::current_exe().context("find the running test")?;
            test.ancestors().skip(1).take(3).map(Path::to_owned).collect()
        }
    };
    directories.iter().map(|directory| directory.join(name)).find(|file| file.is_file()).with_context(|| {
        let first = directories.first().map(|directory| directory.display().to_string()).unwrap_or_default();
        format!(
            "no program {name} in or above {first}: run `cargo build --workspace` first, \
             or set VSKI_BIN_DIR to where it is"
        )
    })
}
